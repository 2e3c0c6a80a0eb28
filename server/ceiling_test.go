package server_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// ceilingPolicy has a rule that leaves scopes to the credential, and one with a ceiling.
const ceilingPolicy = brokertest.DefaultPolicy + `  - name: plain
    identities: ["spiffe://brokertest.local/plain/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
  - name: readers
    identities: ["spiffe://brokertest.local/reader/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["files.read"]
`

const plain = domain + "/plain/1"

// gives has the issuer "fast" say from now on that its tokens have these scopes.
func gives(b *brokertest.Broker, scopes string) {
	b.Sandbox.Fail("fast", sandbox.Fault{Set: map[string]any{"scope": scopes}, Times: sandbox.Forever})
}

func setExtra(t *testing.T, b *brokertest.Broker, name string, extra tokenbrokerv1.ExtraScopes) *tokenbrokerv1.Credential {
	t.Helper()
	r, err := credentialsOf(b.Operator()).UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: name,
		Spec: &tokenbrokerv1.CredentialSpec{ExtraScopes: extra}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"extra_scopes"}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetCredential()
}

func TestATokenThatIsWiderThanAskedGoesOnlyToWhoMayHaveAllOfIt(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy})
	gives(b, "files.admin files.read mail.send")
	b.AddClientCredentials("example/api", "files.read")
	for _, identity := range []string{plain, reader} {
		_, err := tokensOf(b.Conn(identity)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		f := wantFault(t, err, codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE")
		if f.Meta["scopes"] != "files.admin mail.send" || f.Recovery != "FIX_CONFIGURATION" {
			t.Errorf("%s: got scopes %q and recovery %s, want the extras and FIX_CONFIGURATION", identity, f.Meta["scopes"], f.Recovery)
		}
		for _, word := range []string{"files.admin", "mail.send", "at the provider", "the rule", "scope_aliases", "extra_scopes"} {
			if !strings.Contains(f.Text, word) {
				t.Errorf("%s: %q does not say %s", identity, f.Text, word)
			}
		}
	}
	r, err := tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if err != nil || len(r.GetToken().GetScopes()) != 3 {
		t.Errorf("an identity that may have the extras: got %v with %v", err, r.GetToken().GetScopes())
	}
	_, err = tokensOf(b.Conn(reader)).ReportRejected(brief(t), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/api", Generation: r.GetToken().GetGeneration(), HttpStatus: 401})
	wantFault(t, err, codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE")
	denied := 0
	for _, l := range auditLines(t, b) {
		if l.Code == "GRANTED_SCOPES_TOO_WIDE" && l.Decision == "deny" && l.Reason == "scope" {
			denied++
		}
	}
	if denied != 3 {
		t.Errorf("got %d records of the refusals, want 3", denied)
	}
}

func TestExtraScopesAllowLetsThemPassAndJudgeStopsThemAgain(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy})
	gives(b, "files.admin files.read")
	b.AddClientCredentials("example/api", "files.read")
	tokens := tokensOf(b.Conn(plain))
	ask := func() error {
		_, err := tokens.GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		return err
	}
	wantFault(t, ask(), codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE")
	w := watch(t, b.Conn(plain), sel("example/api"))
	tooWide := func() {
		t.Helper()
		if r := w.until(isRemoved).GetRemoved(); r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE {
			t.Errorf("got %v, want it removed as too wide", r)
		}
	}
	tooWide()
	got := setExtra(t, b, "example/api", tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW)
	if got.GetSpec().GetExtraScopes() != tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW {
		t.Errorf("got %v in the reply", got.GetSpec().GetExtraScopes())
	}
	if u := w.ready(0); len(u.GetToken().GetScopes()) != 2 {
		t.Errorf("got %v, want the wide token", u.GetToken().GetScopes())
	}
	if err := ask(); err != nil {
		t.Errorf("with the extras allowed: %v", err)
	}
	b.Restart() // it is stored
	if err := ask(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	w = watch(t, b.Conn(plain), sel("example/api"))
	w.ready(0)
	setExtra(t, b, "example/api", tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_JUDGE)
	tooWide()
	wantFault(t, ask(), codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE")
}

func TestExtraScopesDoNotWidenWhatMayBeAskedFor(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy})
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/api", Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"files.read", "files.write"}, ExtraScopes: tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW}})
	_, err := tokensOf(b.Conn(reader)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
}

func TestOnlyWhoMayHaveAnyScopeLetsScopesPassThatNobodyAskedFor(t *testing.T) {
	for _, scopes := range []string{`"files.*"`, `"*", "*/*"`, `"*/*", "*/*/**"`} {
		t.Run(scopes, func(t *testing.T) { wantNoExtras(t, scopes) })
	}
}

// wantNoExtras wants that whoever may have these scopes lets no others pass.
func wantNoExtras(t *testing.T, scopes string) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy + `  - name: team
    identities: ["spiffe://brokertest.local/team"]
    actions: ["credential.*"]
    credentials: ["example/*"]
    oauth_clients: ["fast"]
    scopes: [` + scopes + `]
`})
	b.AddClientCredentials("example/api", "files.read")
	team := credentialsOf(b.Conn(domain + "/team"))
	update := func(extra tokenbrokerv1.ExtraScopes) error {
		_, err := team.UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: "example/api", Spec: &tokenbrokerv1.CredentialSpec{ExtraScopes: extra}})
		return err
	}
	f := wantFault(t, update(tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW), codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	if len(f.Fields) != 1 || f.Fields[0] != "spec.extraScopes" {
		t.Errorf("got fields %v", f.Fields)
	}
	if err := update(tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_JUDGE); err != nil {
		t.Errorf("back to the safe value: %v", err)
	}
	wantFault(t, update(9), codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestWithoutScopesOfItsOwnACredentialHasWhatTheProviderGives(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy})
	gives(b, "files.read mail.send")
	b.AddClientCredentials("example/default")
	for identity, reason := range map[string]string{plain: "", worker("1"): "", reader: "SCOPE_NOT_ALLOWED"} {
		_, err := tokensOf(b.Conn(identity)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/default"})
		if reason != "" {
			wantFault(t, err, codes.PermissionDenied, reason)
		} else if err != nil {
			t.Errorf("%s: %v", identity, err)
		}
	}
	if u := watch(t, b.Conn(plain), sel("example/default")).ready(0); len(u.GetToken().GetScopes()) != 2 {
		t.Errorf("got %v, want what the provider gives", u.GetToken().GetScopes())
	}
}

func TestATokenWithFewerScopesOrAnotherSpellingIsNotTooWide(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy, Profile: func(_ string, p *provider.Profile) {
		p.ScopeAliases = map[string]string{"r": "files.read"}
	}})
	gives(b, "r")
	b.AddClientCredentials("example/api", "files.read", "files.write")
	r, err := tokensOf(b.Conn(plain)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if err != nil || strings.Join(r.GetToken().GetScopes(), " ") != "files.read" {
		t.Errorf("got %v with %v, want files.read", err, r.GetToken().GetScopes())
	}
}

func TestWhoAsksForAllOfAResourceIsGivenWhatWasGrantedOnIt(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy, Profile: func(_ string, p *provider.Profile) {
		p.ScopeResource, p.CatchAllScope = "https://graph.example/", "/.default"
	}})
	ask := func(name string) error {
		_, err := tokensOf(b.Conn(plain)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: name})
		return err
	}
	gives(b, "User.Read https://graph.example/Mail.Read")
	b.AddClientCredentials("example/all", "https://graph.example/.default")
	b.AddClientCredentials("example/one", "https://graph.example/User.Read")
	if err := ask("example/all"); err != nil {
		t.Errorf("what was granted on the resource: %v", err)
	}
	if f := wantFault(t, ask("example/one"), codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE"); f.Meta["scopes"] != "https://graph.example/Mail.Read" {
		t.Errorf("got the extras %q", f.Meta["scopes"])
	}
}

func TestASubscriberLosesATokenThatGotTooWideWithARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy, CertLife: 24 * time.Hour, Limits: server.Limits{ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		w := watch(t, b.Conn(plain), sel("example/api"))
		w.patience = 24 * time.Hour
		w.ready(0)
		gives(b, "files.read files.admin")
		if r := w.until(isRemoved).GetRemoved(); r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE {
			t.Errorf("got %v, want it removed as too wide", r)
		}
	})
}
