package main_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/web/browsertest"
)

// browserWorld is a broker with its consent listener, the server of testdata/oidc with pages for people, and Chromium. Its two sites have
// different hosts, as in life: browsers tell such requests from those of one site.
type browserWorld struct {
	*realWorld
	driver   *browsertest.Driver
	public   string     // URL of the consent listener
	empty    string     // folder
	brokers  []*process // one after the other
	commands []*process // of tokenctl
	browsers []*browsertest.Browser
	canary   *canary
}

func newBrowserWorld(t *testing.T) *browserWorld {
	t.Helper()
	addr := brokertest.Addr(t)
	w := &browserWorld{public: "https://localhost" + addr[strings.LastIndexByte(addr, ':'):], empty: t.TempDir(), canary: newCanary(t)}
	w.realWorld = &realWorld{oidcServer: startOIDC(t, time.Minute, "OIDC_BROWSER=1", "OIDC_REDIRECT="+w.public+"/consent/callback", "OIDC_SECRETS="+w.canary.file)}
	w.site = newSite(t, providerYAML("oidc", w.issuer+"/token", append(w.profile(), "title: Acme Reports", "floor: 1s",
		"scopes: [{name: reports.read, meaning: See your reports}, {name: email, meaning: See your e-mail address}]")...))
	w.site.edit("tokenbroker.yaml", "store:\n", fmt.Sprintf("consent:\n  listen: %s\n  public_url: %s\n  cert_file: server.pem\n  key_file: server.key\n\nstore:\n", addr, w.public))
	w.site.edit("policy.yaml", "rules:\n", otherTeam)
	w.brokers = append(w.brokers, w.site.start())
	w.operator = w.site.conn("operator")
	trust := [][]byte{[]byte(w.site.read("server.pem"))}
	server, err := os.ReadFile(filepath.Join(filepath.Dir(w.ca), "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w.driver = browsertest.Start(t, browsertest.Config{Dir: "../../web/testdata/browser", Trust: append(trust, server)})
	return w
}

// browser is a browser that nobody has signed in with. Where it has been is looked at in the end.
func (w *browserWorld) browser(s browsertest.Size) *browsertest.Browser {
	b := w.driver.Browser(s)
	w.browsers = append(w.browsers, b)
	return b
}

// tokenctl starts the command. There is no program in its PATH that could open a browser, so it asks for one to be opened.
func (w *browserWorld) tokenctl(t *testing.T, args ...string) *process {
	t.Helper()
	cmd := exec.Command("tokenctl", args...)
	cmd.Env = []string{"PATH=" + w.empty, "HOME=" + w.empty, "TOKENBROKER_ADDR=" + *w.site.grpc.Load(),
		"TOKENBROKER_CA=" + w.site.path("ca.pem"), "TOKENBROKER_CERT=" + w.site.path("operator.pem"), "TOKENBROKER_KEY=" + w.site.path("operator.key")}
	p := startProcess(t, cmd)
	w.commands = append(w.commands, p)
	w.canary.process(t, p)
	return p
}

// connect starts "tokenctl connect" for a credential, and returns the URL that it prints first.
func (w *browserWorld) connect(t *testing.T, name string, flags ...string) (p *process, target string) {
	t.Helper()
	p = w.tokenctl(t, append([]string{"connect", name}, flags...)...)
	target = strings.TrimSpace(p.line("https://"))
	w.canary.see(target)
	return p, target
}

// signIn is a person who opens a URL of the server and signs in there.
func (w *browserWorld) signIn(b *browsertest.Browser, target, name string) browsertest.Standing {
	b.Open(target)
	b.Type(name)
	return b.Press("Enter")
}

// ends waits for the end of a command, whose exit status and words must be these.
func ends(t *testing.T, p *process, exit int, says ...string) {
	t.Helper()
	if got := p.wait(patience); got != exit {
		t.Errorf("%v: got exit status %d, want %d", p.cmd.Args, got, exit)
	}
	want(t, p.out.String(), says...)
}

// callback is where tokenctl waits, with another query.
func callback(t *testing.T, target string, query url.Values) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("redirect_uri") + "?" + query.Encode()
}

func TestInARealBrowserAConsentByLoopback(t *testing.T) {
	t.Parallel()
	w := newBrowserWorld(t)
	loopback := []string{"--provider", "oidc", "--client", w.client(t, "basic-special"), "--scope", "reports.read"}

	t.Run("connects the account and leaves a clean address bar", func(t *testing.T) {
		p, target := w.connect(t, "example/loopback", loopback...)
		b := w.browser(browsertest.Desktop())
		w.signIn(b, target, "alice")
		got := b.Click("button", "Allow")
		wantPage(t, got, "Connected", "You can close this window")
		wantReadable(t, got)
		shot(b, "real-loopback-desktop")
		if u, err := url.Parse(got.URL); err != nil || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("the address bar says %s", got.URL)
		}
		ends(t, p, 0, "Connected example/loopback", "alice@example.org", "reports.read", "held, rotates with each refresh")
		w.wantToken(t, "example/loopback")
	})
	t.Run("on which the person says no is denied", func(t *testing.T) {
		p, target := w.connect(t, "example/denied", loopback...)
		b := w.browser(browsertest.Phone())
		w.signIn(b, target, "alice")
		got := b.Click("button", "Deny")
		wantPage(t, got, "That did not work", "The terminal says why")
		wantReadable(t, got)
		shot(b, "real-loopback-denied-phone")
		ends(t, p, 5, "said no: access_denied")
	})
	t.Run("takes no answer with another state and goes on to wait for its own", func(t *testing.T) {
		p, target := w.connect(t, "example/state", loopback...)
		b := w.browser(browsertest.Desktop())
		for _, state := range []string{"", "x", "a.b"} {
			got := b.Open(callback(t, target, url.Values{"code": {"forged"}, "state": {state}}))
			if got.Status != 400 {
				t.Errorf("state %q: got %d %q, want 400", state, got.Status, got.Text)
			}
		}
		w.signIn(b, target, "alice")
		wantPage(t, b.Click("button", "Allow"), "Connected")
		ends(t, p, 0, "Connected example/state")
	})
	t.Run("with another account is refused on reauthorize and the grant of before goes on", func(t *testing.T) {
		p, target := w.connect(t, "example/loopback", "--reauthorize")
		b := w.browser(browsertest.Desktop())
		w.signIn(b, target, "bob")
		wantPage(t, b.Click("button", "Allow"), "That did not work")
		ends(t, p, 7, "ACCOUNT_MISMATCH")
		w.wantLastGrantRevoked(t)
		w.wantRefresh(t, "example/loopback")
	})
	t.Run("with an altered redirect URI is refused by the server", func(t *testing.T) {
		p, target := w.connect(t, "example/altered", loopback...)
		for _, other := range []string{"http://127.0.0.1:1/else", "https://evil.example/callback", w.public + "/consent/callback"} {
			u, _ := url.Parse(target)
			q := u.Query()
			q.Set("redirect_uri", other)
			u.RawQuery = q.Encode()
			got := w.driver.Browser(browsertest.Desktop()).Open(u.String())
			if got.Status != 400 || !strings.HasPrefix(got.URL, w.issuer) {
				t.Errorf("%s: got %d at %.60s, want 400 at the server", other, got.Status, got.URL)
			}
		}
		p.kill()
	})
	t.Run("is of the identity that began it and of its redirect URI", w.testWhoseConsent)
	w.wantNoLeak(t)
}

// otherTeam is a rule for somebody who may consent, but for other credentials.
const otherTeam = `rules:
  - name: other-team
    identities: ["spiffe://tokenbroker.local/team/other"]
    actions: ["consent.*"]
    credentials: ["other/*"]
    oauth_clients: ["**"]
    scopes: ["**"]
`

// testWhoseConsent brings what Chromium was sent to to CompleteConsent, by wrong hands first.
func (w *browserWorld) testWhoseConsent(t *testing.T) {
	name := w.credential(t, "example/whose", &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, "public"),
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"reports.read"}})
	nobody, err := net.Listen("tcp", "127.0.0.1:0") // catches nothing: the address is what a person would copy
	if err != nil {
		t.Fatal(err)
	}
	page := serveCatcher(t, nobody)
	begun := w.consent(t, &tokenbrokerv1.BeginConsentRequest{Credential: name, Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK, RedirectUri: page})
	b := w.driver.Browser(browsertest.Desktop()) // in whose address bar the code has to stay
	w.signIn(b, begun.GetAuthorizationUrl(), "alice")
	back := b.Click("button", "Allow").URL
	w.canary.see(begun.GetAuthorizationUrl())
	w.canary.see(back)
	id := begun.GetConsent().GetConsentId()

	w.site.issue("second", clientTemplate("operator/second"))
	w.site.issue("team", clientTemplate("team/other"))
	for who, want := range map[string][3]codes.Code{
		"second": {codes.NotFound, codes.OK, codes.FailedPrecondition}, // an operator may look, and nothing is to be accepted here
		"team":   {codes.NotFound, codes.NotFound, codes.NotFound},
		"worker": {codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied},
	} {
		there, none := w.meddle(t, who, id, back), w.meddle(t, who, "n0ne", back)
		for i, err := range there {
			if status.Code(err) != want[i] {
				t.Errorf("%s, call %d: got %v, want %v", who, i, err, want[i])
			}
			if who != "second" && err.Error() != none[i].Error() {
				t.Errorf("%s, call %d tells a consent that is there, %q, from one that is not, %q", who, i, err, none[i])
			}
		}
	}
	for _, other := range []string{strings.Replace(back, "/callback", "/callback/", 1), strings.Replace(back, "127.0.0.1", "localhost", 1),
		strings.Replace(back, page, "http://127.0.0.1:1/callback", 1), strings.Replace(back, "http://", "https://", 1)} {
		if _, err := w.complete(t, id, other); status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), "code=") {
			t.Errorf("another redirect URI: got %v, want InvalidArgument", err)
		}
	}
	done, err := w.complete(t, id, back)
	if err != nil || done.GetConsent().GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DONE {
		t.Errorf("whoever began it: got %s, %v", done.GetConsent().GetState(), err)
	}
}

// meddle has another identity complete a consent, look at it and accept it.
func (w *browserWorld) meddle(t *testing.T, who, id, back string) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := tokenbrokerv1.NewConsentServiceClient(w.site.conn(who))
	_, completed := c.CompleteConsent(ctx, &tokenbrokerv1.CompleteConsentRequest{ConsentId: id, CallbackUrl: back})
	_, got := c.GetConsent(ctx, &tokenbrokerv1.GetConsentRequest{ConsentId: id})
	_, accepted := c.AcceptConsent(ctx, &tokenbrokerv1.AcceptConsentRequest{ConsentId: id, Account: "alice@example.org"})
	return []error{completed, got, accepted}
}
