package server_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// tenantsPolicy has two tenants, each with an operator and workers of its own.
const tenantsPolicy = brokertest.DefaultPolicy + `  - name: a-operator
    identities: ["spiffe://brokertest.local/a/operator"]
    actions: ["credential.*", "oauth_client.*", "consent.*", "policy.*"]
    credentials: ["a/**"]
    oauth_clients: ["a/**"]
    scopes: ["**"]
  - name: b-operator
    identities: ["spiffe://brokertest.local/b/operator"]
    actions: ["credential.*", "oauth_client.*", "consent.*", "policy.*"]
    credentials: ["b/**"]
    oauth_clients: ["b/**"]
    scopes: ["**"]
  - name: a-workers
    identities: ["spiffe://brokertest.local/a/worker"]
    actions: ["token.get", "token.subscribe"]
    credentials: ["a/**"]
  - name: b-workers
    identities: ["spiffe://brokertest.local/b/worker"]
    actions: ["token.*"]
    credentials: ["b/**"]
    scopes: ["files.read"]
    audiences: ["https://b.example/**"]
  - name: b-trial
    identities: ["spiffe://brokertest.local/b/trial"]
    actions: [token.get]
    credentials: ["b/**"]
    mode: audit
    until: 9998-01-01
`

const (
	operatorA, operatorB = domain + "/a/operator", domain + "/b/operator"
	workerA, workerB     = domain + "/a/worker", domain + "/b/worker"
)

func policiesOf(c *grpc.ClientConn) tokenbrokerv1.PolicyServiceClient {
	return tokenbrokerv1.NewPolicyServiceClient(c)
}

func TestExplainSaysWhatGetTokenWouldSay(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read", "files.write")
	b.AddClientCredentials("b/api", "files.read", "files.write")
	policies := policiesOf(b.Operator())
	for _, row := range []struct {
		name         string
		ask          *tokenbrokerv1.ExplainRequest
		rule, reason string
		advice       string
	}{
		{"its own scopes, by a rule without any", &tokenbrokerv1.ExplainRequest{Identity: workerA, Action: "token.get", Credential: "a/api"}, "a-workers", "", `"a-workers" allows it`},
		{"one of them", &tokenbrokerv1.ExplainRequest{Identity: workerA, Action: "token.get", Credential: "a/api", Scopes: []string{"files.write"}}, "a-workers", "", "allows it"},
		{"another credential", &tokenbrokerv1.ExplainRequest{Identity: workerA, Action: "token.get", Credential: "b/api"}, "", "credential", `add it to the credentials of one, e.g. of "a-workers"`},
		{"another action", &tokenbrokerv1.ExplainRequest{Identity: workerA, Action: "token.report", Credential: "a/api"}, "", "no_rule", "none gives it token.report"},
		{"nobody", &tokenbrokerv1.ExplainRequest{Identity: domain + "/nobody", Action: "token.get", Credential: "a/api"}, "", "no_rule", "no rule names this identity"},
		{"a ceiling below the credential's own", &tokenbrokerv1.ExplainRequest{Identity: workerB, Action: "token.get", Credential: "b/api"}, "", "scope", "does not cover scope files.write"},
		{"a subject", &tokenbrokerv1.ExplainRequest{Identity: workerB, Action: "token.get", Credential: "b/api", Scopes: []string{"files.read"}, Subject: "ann"}, "", "subject", `choose subject "ann"`},
		{"an audience", &tokenbrokerv1.ExplainRequest{Identity: workerB, Action: "token.get", Credential: "b/api", Scopes: []string{"files.read"}, Audience: "https://c.example"}, "", "audience", `choose audience "https://c.example"`},
		{"audit mode", &tokenbrokerv1.ExplainRequest{Identity: domain + "/b/trial", Action: "token.get", Credential: "b/api"}, "b-trial", "", "in audit mode until 9998-01-02T00:00:00Z"},
		{"a credential that is not there", &tokenbrokerv1.ExplainRequest{Identity: workerA, Action: "token.get", Credential: "a/none"}, "a-workers", "", "there is no such credential"},
		{"an OAuth client", &tokenbrokerv1.ExplainRequest{Identity: operatorA, Action: "oauth_client.get", OauthClient: "b/client"}, "", "oauth_client", `covers OAuth client "b/client"`},
		{"about none", &tokenbrokerv1.ExplainRequest{Identity: brokertest.OperatorID, Action: "provider.read"}, "operators", "", "allows it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := policies.Explain(brief(t), row.ask)
			if err != nil {
				t.Fatal(err)
			}
			if got.GetRule() != row.rule || got.GetReason() != row.reason || got.GetAllowed() != (row.reason == "") || !strings.Contains(got.GetAdvice(), row.advice) {
				t.Errorf("got %v, want rule %q, reason %q and advice with %q", got, row.rule, row.reason, row.advice)
			}
			if len(got.GetPolicyRevision()) != 16 {
				t.Errorf("got revision %q", got.GetPolicyRevision())
			}
			asCall(t, b, row.ask, got)
		})
	}
}

// asCall makes the call that an explanation is about, and compares.
func asCall(t *testing.T, b *brokertest.Broker, ask *tokenbrokerv1.ExplainRequest, got *tokenbrokerv1.ExplainResponse) {
	t.Helper()
	if ask.GetAction() != "token.get" || strings.HasSuffix(ask.GetCredential(), "/none") {
		return
	}
	_, err := tokensOf(b.Conn(ask.GetIdentity())).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: ask.GetCredential(), Scopes: ask.GetScopes(),
		Subject: ask.GetSubject(), Audience: ask.GetAudience()})
	if (err == nil) != got.GetAllowed() {
		t.Errorf("the call itself: got %v, Explain said allowed=%v", err, got.GetAllowed())
	}
}

func TestExplainJudgesWhatThePresentTokenHasBesides(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: ceilingPolicy})
	gives(b, "files.admin files.read")
	b.AddClientCredentials("example/api", "files.read")
	ask := &tokenbrokerv1.ExplainRequest{Identity: plain, Action: "token.get", Credential: "example/api"}
	explain := func() *tokenbrokerv1.ExplainResponse {
		got, err := policiesOf(b.Operator()).Explain(brief(t), ask)
		if err != nil {
			t.Fatal(err)
		}
		asCall(t, b, ask, got)
		return got
	}
	b.Token("example/api") // of a worker that may have any scope
	got := explain()
	if got.GetAllowed() || got.GetRule() != "" || got.GetReason() != "scope" || got.GetDeniedScope() != "files.admin" || len(got.GetScopes()) != 2 || got.GetExpireTime() != nil {
		t.Errorf("got %v, want it denied for the scope that the token has besides", got)
	}
	for _, word := range []string{"GRANTED_SCOPES_TOO_WIDE", "files.admin", `"plain"`, "extra_scopes", "scope_aliases"} {
		if !strings.Contains(got.GetAdvice(), word) {
			t.Errorf("the advice %q does not say %s", got.GetAdvice(), word)
		}
	}
	if v := got.GetVerdicts(); len(v) != 1 || v[0].GetReason() != "scope" || v[0].GetDeniedScope() != "files.admin" {
		t.Errorf("got %v, want the rule to fail at the scope", v)
	}
	setExtra(t, b, "example/api", tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW)
	if got := explain(); !got.GetAllowed() || got.GetRule() != "plain" {
		t.Errorf("with the extras allowed: got %v", got)
	}
}

func TestExplainSaysWhatTheCredentialGivesToNobody(t *testing.T) {
	issuers := []sandbox.Issuer{{Name: "fast", Rotation: sandbox.RotateNone, Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}}}
	b := brokertest.Start(t, brokertest.Config{Issuers: issuers})
	b.AddClientCredentials("example/api", "files.read", "files.write")
	for word, scopes := range map[string][]string{"not known to narrow scopes": {"files.read"}, "does not have scope files.admin": {"files.admin"}} {
		ask := &tokenbrokerv1.ExplainRequest{Identity: brokertest.WorkerID, Action: "token.get", Credential: "example/api", Scopes: scopes}
		got, err := policiesOf(b.Operator()).Explain(brief(t), ask)
		if err != nil {
			t.Fatal(err)
		}
		if text := got.GetAdvice(); !got.GetAllowed() || !strings.Contains(text, word) || !strings.Contains(text, "to nobody") {
			t.Errorf("%v: got allowed=%v, %q", scopes, got.GetAllowed(), text)
		}
		_, err = tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: scopes})
		if f := wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"); !strings.Contains(f.Text, word) {
			t.Errorf("%v: the call itself: %v", scopes, err)
		}
	}
}

func TestExplainTellsNobodyToWidenARuleInAuditMode(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("b/api", "files.read")
	for word, ask := range map[string]*tokenbrokerv1.ExplainRequest{
		"scope files.write": {Scopes: []string{"files.read", "files.write"}}, `subject "ann"`: {Subject: "ann"}, `audience "https://c.example"`: {Audience: "https://c.example"},
	} {
		ask.Identity, ask.Action, ask.Credential = domain+"/b/trial", "token.get", "b/api"
		got, err := policiesOf(b.Operator()).Explain(brief(t), ask)
		if err != nil {
			t.Fatal(err)
		}
		if text := got.GetAdvice(); got.GetAllowed() || !strings.Contains(text, word) || !strings.Contains(text, "write an enforced rule for it") || strings.Contains(text, "add it to") {
			t.Errorf("%s: got %q", word, text)
		}
	}
}

func TestExplainSaysWhatIsWrongWithTheQuestion(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	for _, row := range []struct {
		identity, action, field, text string
	}{
		{"foo", "token.get", "identity", "must be spiffe://"},
		{domain + "/job/*", "token.get", "identity", "pattern"},
		{"", "token.get", "identity", "is required"},
		{worker("1"), "token.steal", "action", `"token.steal" is no action`},
	} {
		_, err := policiesOf(b.Operator()).Explain(brief(t), &tokenbrokerv1.ExplainRequest{Identity: row.identity, Action: row.action, Credential: "a/api"})
		f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
		if len(f.Fields) != 1 || f.Fields[0] != row.field || !strings.Contains(err.Error()+wire(t, err), row.text) {
			t.Errorf("%q, %q: got %v with fields %v, want %s with %q", row.identity, row.action, err, f.Fields, row.field, row.text)
		}
	}
	_, err := policiesOf(b.Operator()).Explain(brief(t), &tokenbrokerv1.ExplainRequest{Identity: "dns:host.example", Action: "token.get", Credential: "a/api"})
	if err != nil {
		t.Errorf("a DNS name: %v", err)
	}
}

func TestExplainShowsHowFarEachRuleCame(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy + `  - name: b-late
    identities: ["spiffe://brokertest.local/b/*"]
    actions: ["token.get"]
    credentials: ["c/*"]
`})
	b.AddClientCredentials("b/api", "files.read", "files.write")
	got, err := policiesOf(b.Operator()).Explain(brief(t), &tokenbrokerv1.ExplainRequest{Identity: workerB, Action: "token.get", Credential: "b/api"})
	if err != nil {
		t.Fatal(err)
	}
	v := got.GetVerdicts()
	if len(v) != 2 || v[0].GetRule() != "b-workers" || v[0].GetReason() != "scope" || v[0].GetDeniedScope() != "files.write" ||
		v[1].GetRule() != "b-late" || v[1].GetReason() != "credential" || v[1].GetMode() != tokenbrokerv1.PolicyMode_POLICY_MODE_ENFORCE {
		t.Errorf("got %v, want b-workers to fail at the scope and b-late at the credential", v)
	}
	if s := got.GetScopes(); len(s) != 2 {
		t.Errorf("judged %v, want the credential's own scopes", s)
	}
	if n := len(auditLines(t, b)); n == 0 || b.Sandbox.Count(tokenRequests) > 1 {
		t.Errorf("%d records; a question fetched a token", n)
	}
}

func TestExplainIsForWhoMayAskAboutTheCredential(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read")
	b.AddClientCredentials("b/api", "files.read")
	ask := func(identity string, r *tokenbrokerv1.ExplainRequest) error {
		r.Identity = workerB
		_, err := policiesOf(b.Conn(identity)).Explain(brief(t), r)
		return err
	}
	if err := ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "a/api"}); err != nil {
		t.Errorf("about its own: %v", err)
	}
	foreign := ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "b/api"})
	wantFault(t, foreign, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	if wire(t, foreign) != wire(t, ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "b/none"})) {
		t.Error("what is not there and what is another's answer otherwise")
	}
	wantFault(t, ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "oauth_client.get", OauthClient: "b/x"}), codes.NotFound, "OAUTH_CLIENT_NOT_FOUND")
	wantFault(t, ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "a/api", OauthClient: "b/x"}), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	wantFault(t, ask(operatorA, &tokenbrokerv1.ExplainRequest{Action: "provider.read"}), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	wantFault(t, ask(workerA, &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "a/api"}), codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	for _, bad := range []*tokenbrokerv1.ExplainRequest{{}, {Action: "token.steal", Credential: "a/api"}, {Action: "token.get"}, {Action: "oauth_client.get"}, {Action: "token.get", Credential: "A"},
		{Action: "token.get", Credential: "a/api", Scopes: []string{"a b"}}, {Action: "oauth_client.get", OauthClient: "a b"}} {
		wantFault(t, ask(brokertest.OperatorID, bad), codes.InvalidArgument, "FIELD_VIOLATION")
	}
	_, err := policiesOf(b.Operator()).Explain(brief(t), &tokenbrokerv1.ExplainRequest{Action: "token.get", Credential: "a/api"})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestADenialNamesAThingOnlyWhereThereIsOne(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	_, err := policiesOf(b.Conn(workerA)).Lint(brief(t), &tokenbrokerv1.LintRequest{})
	if f := wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED"); !strings.HasSuffix(f.Text, "no rule gives this identity policy.lint") {
		t.Errorf("got %q, of a call that is about nothing", f.Text)
	}
	_, err = credentialsOf(b.Conn(workerA)).GetCredential(brief(t), &tokenbrokerv1.GetCredentialRequest{Credential: "a/api"})
	if f := wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED"); !strings.HasSuffix(f.Text, "credential.get on it") {
		t.Errorf("got %q, of a call that is about a credential", f.Text)
	}
}

func TestLintTellsOfWhatTheCallerMaySee(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy + `  - name: shallow-operator
    identities: ["spiffe://brokertest.local/shallow/operator"]
    actions: ["policy.*"]
    credentials: ["*/*"]
  - name: deep-trial
    identities: ["spiffe://brokertest.local/deep/trial"]
    actions: [token.get]
    credentials: ["deep/down/there"]
    mode: audit
    until: 9998-01-01
`})
	b.AddClientCredentials("a/api", "files.read", "files.write")
	b.AddClientCredentials("b/api", "files.read", "files.write")
	findings := func(identity string) (text string, rules map[string]bool) {
		r, err := policiesOf(b.Conn(identity)).Lint(brief(t), &tokenbrokerv1.LintRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if since := r.GetUsageSince().AsTime(); time.Since(since) > time.Hour || len(r.GetPolicyRevision()) != 16 {
			t.Errorf("got usage since %v and revision %q", since, r.GetPolicyRevision())
		}
		rules = map[string]bool{}
		for _, f := range r.GetFindings() {
			text += f.GetCredential() + " " + f.GetMessage() + "\n"
			rules[f.GetRule()] = true
			if f.GetCheck() == "" || f.GetMessage() == "" {
				t.Errorf("got %v, want it to say what it is about", f)
			}
		}
		return text, rules
	}
	if _, rules := findings(brokertest.OperatorID); !rules["b-trial"] {
		t.Errorf("the operator of all is told of %v, want b-trial among them, which is in audit mode", rules)
	}
	if _, rules := findings(operatorB); !rules["b-trial"] {
		t.Errorf("the operator of b is told of %v, want b-trial among them", rules)
	}
	if _, rules := findings(domain + "/shallow/operator"); !rules["b-trial"] || rules["deep-trial"] {
		t.Errorf("the operator of what has one slash is told of %v, want of b-trial and not of deep-trial", rules)
	}
	if text, rules := findings(operatorA); strings.Contains(text, "b/api") || rules["b-trial"] || rules["b-workers"] {
		t.Errorf("the operator of a is told of b: %v\n%s", rules, text)
	}
	_, err := policiesOf(b.Conn(workerA)).Lint(brief(t), &tokenbrokerv1.LintRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}
