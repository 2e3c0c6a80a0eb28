package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// acme is a stand-in with one OAuth client of the provider acme.
func acme(t *testing.T) *standIn {
	t.Helper()
	b := newStandIn(t)
	b.clients["acme-app"] = &tokenbrokerv1.OAuthClient{OauthClient: "acme-app", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "acme", ClientId: "app"}}
	return b
}

// unopened is a browser that must not be opened.
func unopenedBrowser(t *testing.T) func(string) error {
	return func(url string) error {
		t.Errorf("a browser was opened with %q", url)
		return nil
	}
}

func wants(t *testing.T, r result, exit int, texts ...string) {
	t.Helper()
	if r.exit != exit {
		t.Errorf("got exit status %d, want %d:\n%s", r.exit, exit, r.all())
	}
	for _, text := range texts {
		if !strings.Contains(r.all(), text) {
			t.Errorf("%q is missing in\n%s", text, r.all())
		}
	}
	if strings.Contains(r.all(), "hush") {
		t.Errorf("a secret got out:\n%s", r.all())
	}
	if strings.IndexFunc(strings.ReplaceAll(r.all(), "\n", ""), unsafe) >= 0 {
		t.Errorf("a control character got out: %q", r.all())
	}
}

func TestAnAccountIsConnectedThroughABrowser(t *testing.T) {
	b := acme(t)
	who := &browser{standIn: b, query: "code=hush-code&state=st4te&iss=https%3A%2F%2Fauth.acme.example"}
	r := b.run(t, "", who.open, "connect", "example/drive", "--provider", "acme", "--scope", "files.read", "--scope", "files.write", "--label", "team=reports")
	who.wg.Wait()
	wants(t, r, 0, "with the OAuth client acme-app", "https://provider.example/authorize?state=st4te", "warning: mind the \\u001b[31mgap",
		"Connected example/drive", "reports@corp.example", "Missing", "files.write", "SCOPE_NOT_GRANTED", "rotates", "tokenctl get example/drive")
	if who.err != nil || !strings.HasSuffix(who.where, donePath) || !strings.Contains(who.page, "Connected") || !strings.Contains(who.page, "close this window") {
		t.Errorf("the browser ended at %q (%v) with %q, want a page without the code in its address", who.where, who.err, who.page)
	}
	begun := last[*tokenbrokerv1.BeginConsentRequest](t, b)
	if begun.GetFlow() != tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK || !strings.HasPrefix(begun.GetRedirectUri(), "http://127.0.0.1:") ||
		!strings.HasSuffix(begun.GetRedirectUri(), "/callback") {
		t.Errorf("got %v to %q", begun.GetFlow(), begun.GetRedirectUri())
	}
	if got := last[*tokenbrokerv1.CompleteConsentRequest](t, b).GetCallbackUrl(); got != begun.GetRedirectUri()+"?"+who.query {
		t.Error("the broker did not get the whole URL as it was")
	}
	made := last[*tokenbrokerv1.CreateCredentialRequest](t, b).GetSpec()
	if made.GetGrantType() != grants["authorization_code"] || made.GetOauthClient() != "acme-app" || made.GetLabels()["team"] != "reports" {
		t.Errorf("the credential was made as %v of %q", made.GetGrantType(), made.GetOauthClient())
	}
	if n := count[*tokenbrokerv1.CancelConsentRequest](b); n != 0 {
		t.Errorf("a consent that is complete was cancelled %d times", n)
	}
}

func TestADenialIsToldInTheBrowserAndHere(t *testing.T) {
	b := acme(t)
	who := &browser{standIn: b, query: "error=access_denied&state=st4te"}
	r := b.run(t, "", who.open, "connect", "example/drive", "--provider", "acme")
	who.wg.Wait()
	wants(t, r, exitReauthorize, "said no: access_denied", "tokenctl consent describe c0nsent", "tokenctl explain access_denied", "waits for its consent")
	if !strings.Contains(who.page, "did not work") {
		t.Errorf("got %q, want that it did not work", who.page)
	}
}

func TestARefusedCodeGetsIntoNoError(t *testing.T) {
	b := acme(t)
	b.fails["CompleteConsentRequest"] = refuse(codes.InvalidArgument, "FIELD_VIOLATION", "iss does not match")
	who := &browser{standIn: b, query: "code=hush-code&state=st4te"}
	r := b.run(t, "", who.open, "connect", "example/drive", "--provider", "acme")
	who.wg.Wait()
	wants(t, r, exitUsage, "iss does not match")
	if n := count[*tokenbrokerv1.CancelConsentRequest](b); n != 1 {
		t.Errorf("the consent was cancelled %d times, want once", n)
	}
}

func TestLeavingCancelsTheConsent(t *testing.T) {
	b := acme(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := b.runIn(t, ctx, "", func(string) error { cancel(); return nil }, "connect", "example/drive", "--provider", "acme")
	wants(t, r, exitInterrupted, "the consent is cancelled", "interrupted")
	if got := last[*tokenbrokerv1.CancelConsentRequest](t, b).GetConsentId(); got != "c0nsent" {
		t.Errorf("got %q", got)
	}
}

func TestAHostileURLIsNeitherOpenedNorPrinted(t *testing.T) {
	for _, url := range []string{"javascript:alert(1)", "file:///etc/passwd", "https://a.example/\x1b[2J", "--help", "", "https://", "https://user:hush@a.example/", "https://a.example/ x"} {
		b := acme(t)
		b.begun.AuthorizationUrl, b.begun.VerificationUri, b.begun.Link = url, url, url
		for _, flag := range []string{"--port=0", "--no-browser", "--device", "--link"} {
			args := []string{"connect", "example/" + flag[2:6], "--provider", "acme", flag}
			if flag == "--port=0" {
				args = args[:4]
			}
			r := b.run(t, "", unopenedBrowser(t), args...)
			wants(t, r, exitOther, "a URL to open that is not a web address")
			if url != "" && strings.Contains(r.all(), url) {
				t.Errorf("%s: %q was printed", flag, url)
			}
		}
	}
}

func TestARedirectIsPastedFromStandardInput(t *testing.T) {
	b := acme(t)
	r := b.run(t, "http://127.0.0.1/callback?code=hush-code&state=st4te\nrest", unopenedBrowser(t), "connect", "example/drive", "--provider", "acme", "--no-browser")
	wants(t, r, 0, "https://provider.example/authorize", "is sent to http://127.0.0.1/callback", "Connected example/drive")
	if got := last[*tokenbrokerv1.CompleteConsentRequest](t, b).GetCallbackUrl(); got != "http://127.0.0.1/callback?code=hush-code&state=st4te" {
		t.Error("the broker did not get the URL that was pasted")
	}
	for _, in := range []string{"", "\n", "hush-code\n", "code=hush-code&state=x", "http://" + strings.Repeat("hush", 5000)} {
		delete(b.creds, "example/drive")
		r := b.run(t, in, unopenedBrowser(t), "connect", "example/drive", "--provider", "acme", "--no-browser")
		wants(t, r, exitUsage, "the consent is cancelled")
	}
}

func TestADeviceCodeIsShownAndWaitedFor(t *testing.T) {
	b := acme(t)
	b.begun = &tokenbrokerv1.BeginConsentResponse{UserCode: "WDJB-MJHT", VerificationUri: "https://acme.example/device", VerificationUriComplete: "https://acme.example/device?c=WDJB-MJHT"}
	b.states = []tokenbrokerv1.ConsentState{tokenbrokerv1.ConsentState_CONSENT_STATE_PENDING, tokenbrokerv1.ConsentState_CONSENT_STATE_DONE}
	r := b.run(t, "", unopenedBrowser(t), "connect", "example/drive", "--provider", "acme", "--device", "-o", "json")
	wants(t, r, 0, "WDJB-MJHT", "https://acme.example/device\n", "https://acme.example/device?c=WDJB-MJHT", `"account": "reports@corp.example"`)
	if got := last[*tokenbrokerv1.CreateCredentialRequest](t, b).GetSpec().GetGrantType(); got != grants["device_code"] {
		t.Errorf("got the grant %v", got)
	}
	b.states = []tokenbrokerv1.ConsentState{tokenbrokerv1.ConsentState_CONSENT_STATE_EXPIRED}
	r = b.run(t, "", unopenedBrowser(t), "connect", "example/drive", "--device", "--reauthorize")
	wants(t, r, exitReauthorize, "nobody consented in time")
}

func TestALinkIsGivenAwayAndItsAccountAccepted(t *testing.T) {
	b := acme(t)
	b.begun = &tokenbrokerv1.BeginConsentResponse{Link: "https://broker.example/c/0nce"}
	r := b.run(t, "", unopenedBrowser(t), "connect", "example/drive", "--provider", "acme", "--link", "--expect-account", "reports@corp.example")
	wants(t, r, 0, "tokenctl consent accept c0nsent --account ACCOUNT")
	if r.out != "https://broker.example/c/0nce\n" {
		t.Errorf("got %q, want the link alone on standard output", r.out)
	}
	if got := last[*tokenbrokerv1.BeginConsentRequest](t, b); got.GetFlow() != tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK || got.GetExpectAccount() != "reports@corp.example" {
		t.Errorf("got %v for %q", got.GetFlow(), got.GetExpectAccount())
	}
	b.states = []tokenbrokerv1.ConsentState{tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE}
	r = b.run(t, "", unopenedBrowser(t), "connect", "example/drive", "--link", "--wait")
	wants(t, r, 0, "AWAITING_ACCEPTANCE", "tokenctl consent accept c0nsent --account 'reports@corp.example'", "tokenctl consent cancel c0nsent")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, b.runIn(t, ctx, "", nil, "connect", "example/drive", "--link", "--wait"), exitInterrupted)
	if n := count[*tokenbrokerv1.CancelConsentRequest](b); n != 0 {
		t.Errorf("a link was cancelled %d times because somebody did not wait", n)
	}

	wants(t, b.run(t, "", nil, "consent", "list", "--credential", "example/drive"), 0, "c0nsent", "AWAITING_ACCEPTANCE", "reports@corp.example")
	wants(t, b.run(t, "", nil, "consent", "describe", "c0nsent"), 0, "Is it the right account?", "files.write")
	wants(t, b.run(t, "", nil, "consent", "accept", "c0nsent"), exitUsage, "--account")
	wants(t, b.run(t, "", nil, "consent", "accept", "c0nsent", "--account", "reports@corp.example"), 0, "Connected example/drive")
	wants(t, b.run(t, "", nil, "consent", "cancel", "c0nsent"), 0, "cancelled consent c0nsent")
	b.fails["AcceptConsentRequest"] = refuse(codes.FailedPrecondition, "ACCOUNT_MISMATCH", "another account consented")
	wants(t, b.run(t, "", nil, "consent", "accept", "c0nsent", "--account", "x"), exitFix, "consent c0nsent: another account consented", "tokenctl explain ACCOUNT_MISMATCH")
	b.fails["GetConsentRequest"] = refuse(codes.NotFound, "CONSENT_NOT_FOUND", "consent not found")
	wants(t, b.run(t, "", nil, "consent", "describe", "nope"), exitNotFound, "tokenctl consent list")
}

func TestAConsentIsRenewed(t *testing.T) {
	b := acme(t)
	spec := &tokenbrokerv1.CredentialSpec{Provider: "acme", OauthClient: "acme-app", GrantType: grants["authorization_code"]}
	b.creds["example/drive"] = &tokenbrokerv1.Credential{Credential: "example/drive", Spec: spec}
	b.connect("example/drive")
	wants(t, b.run(t, "", unopenedBrowser(t), "connect", "example/drive"), exitConflict, "is connected already to reports@corp.example", "tokenctl connect example/drive --reauthorize")

	who := &browser{standIn: b, query: "code=hush-code&state=st4te"}
	r := b.run(t, "", who.open, "connect", "example/drive", "--reauthorize", "--expect-account", "other@corp.example", "--replace-account")
	who.wg.Wait()
	wants(t, r, 0, "Connected")
	if got := last[*tokenbrokerv1.BeginConsentRequest](t, b); !got.GetReplaceAccount() || got.GetExpectAccount() != "other@corp.example" {
		t.Error("the broker was not told which account is to take the place")
	}
	if n := count[*tokenbrokerv1.CreateCredentialRequest](b); n != 0 {
		t.Errorf("the credential was made anew")
	}
}

func TestWhatCanNotBeConnectedIsSaid(t *testing.T) {
	b := acme(t)
	b.clients["acme-other"] = &tokenbrokerv1.OAuthClient{OauthClient: "acme-other", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "acme"}}
	add := func(name, grant string) {
		b.creds[name] = &tokenbrokerv1.Credential{Credential: name, Spec: &tokenbrokerv1.CredentialSpec{Provider: "acme", OauthClient: "acme-app", GrantType: grants[grant]}}
	}
	add("api", "client_credentials")
	add("old", "refresh_token")
	add("tv", "device_code")
	add("new", "authorization_code")
	for _, row := range []struct {
		line string
		exit int
		says string
	}{
		{"nope", exitUsage, "is not there: give --provider to make it"},
		{"nope --reauthorize", exitNotFound, "CREDENTIAL_NOT_FOUND"},
		{"nope --provider acme", exitUsage, "several OAuth clients: give --client with one of acme-app, acme-other"},
		{"nope --provider globex", exitUsage, "has no OAuth client here"},
		{"api", exitConflict, "lives on the grant client_credentials"},
		{"old --reauthorize", exitConflict, "tokenctl credential import old --refresh-token-stdin"},
		{"tv", exitConflict, "tokenctl connect tv --device"},
		{"new --device", exitConflict, "has the grant authorization_code"},
		{"new --provider globex --client x", exitConflict, "another value of --provider, --client"},
		{"new --device --link", exitUsage, "give one of --device, --link"},
		{"new --wait", exitUsage, "--wait goes with --link"},
		{"new --port 0", exitUsage, "--port: give a port"},
		{"new --port 80 --link", exitUsage, "--port: give a port"},
		{"new --replace-account", exitUsage, "--replace-account goes with"},
		{"new --label x", exitUsage, "--label: give key=value"},
	} {
		r := b.run(t, "", unopenedBrowser(t), append([]string{"connect"}, strings.Fields(row.line)...)...)
		wants(t, r, row.exit, row.says)
	}
	if n := count[*tokenbrokerv1.BeginConsentRequest](b); n != 0 {
		t.Errorf("%d consents were begun", n)
	}
}

func TestAProviderWithoutALoopbackRedirectIsSaid(t *testing.T) {
	for _, back := range []string{"none", "https://127.0.0.1:{port}/cb", "http://evil.example:{port}/cb", "http://127.0.0.1:{port}" + donePath, "http://127.0.0.1:{port}"} {
		b := acme(t)
		b.back = back
		wants(t, b.run(t, "", unopenedBrowser(t), "connect", "example/drive", "--provider", "acme"), exitFix, "takes no redirect to this machine", "--link")
	}
}

func TestWhoMayNotReadProvidersCanConnect(t *testing.T) {
	b := acme(t)
	b.fails["GetProviderRequest"] = refuse(codes.PermissionDenied, "CALLER_NOT_ALLOWED", "not allowed")
	who := &browser{standIn: b, query: "code=hush-code&state=st4te"}
	r := b.run(t, "", who.open, "connect", "example/drive", "--provider", "acme")
	who.wg.Wait()
	wants(t, r, 0, "Connected")
}

func TestThatNoBrowserOpensIsNoFailure(t *testing.T) {
	b := acme(t)
	who := &browser{standIn: b, query: "code=hush-code&state=st4te"}
	r := b.run(t, "", func(url string) error { _ = who.open(url); return errors.New("no display") }, "connect", "example/drive", "--provider", "acme")
	who.wg.Wait()
	wants(t, r, 0, "no browser could be opened", "Connected")
}

// TestTheDesktopsBrowserGetsTheURLAndNothingElse puts a program into PATH that keeps its arguments.
func TestTheDesktopsBrowserGetsTheURLAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(filepath.Join(dir, opener("linux")[0]), []byte("#!/bin/sh\nfor a; do echo \"$a\"; done >"+kept+".part && mv "+kept+".part "+kept+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := openBrowser("https://provider.example/?a=$(id)&b=;"); err != nil {
		t.Fatal(err)
	}
	if got := awaitFile(t, kept); got != "https://provider.example/?a=$(id)&b=;\n" {
		t.Errorf("got %q", got)
	}
	t.Setenv("PATH", t.TempDir())
	if err := openBrowser("https://provider.example/"); err == nil {
		t.Error("got no error without a browser")
	}
	for goos, want := range map[string]string{"darwin": "open", "windows": "rundll32", "linux": "xdg-open", "freebsd": "xdg-open"} {
		if got := opener(goos)[0]; got != want {
			t.Errorf("%s: got %s, want %s", goos, got, want)
		}
	}
}
