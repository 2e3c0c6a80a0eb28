package server_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// page asks for a page of credentials, of two at most.
func page(t *testing.T, conn *grpc.ClientConn, token string) (names []string, next string) {
	t.Helper()
	r, err := credentialsOf(conn).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{PageSize: 2, PageToken: token})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetCredentials() {
		names = append(names, c.GetCredential())
	}
	return names, r.GetNextPageToken()
}

func clientNames(t *testing.T, conn *grpc.ClientConn, token string) (names []string, next string) {
	t.Helper()
	r, err := clientsOf(conn).ListOAuthClients(brief(t), &tokenbrokerv1.ListOAuthClientsRequest{PageSize: 2, PageToken: token})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetOauthClients() {
		names = append(names, c.GetOauthClient())
	}
	return names, r.GetNextPageToken()
}

func TestAPageTokenOfAnotherIdentityIsNoCapability(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	for _, name := range []string{"a/1", "a/2", "a/3", "b/1", "b/2", "b/3"} {
		b.AddClientCredentials(name, "files.read")
		if _, err := clientsOf(b.Operator()).CreateOAuthClient(brief(t), &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: name, ClientSecret: "x",
			Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast", ClientId: "job", AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}); err != nil {
			t.Fatal(err)
		}
	}
	for what, list := range map[string]func(*testing.T, *grpc.ClientConn, string) ([]string, string){"credentials": page, "OAuth clients": clientNames} {
		own, token := list(t, b.Conn(operatorA), "")
		rest, end := list(t, b.Conn(operatorA), token)
		if !slices.Equal(own, []string{"a/1", "a/2"}) || !slices.Equal(rest, []string{"a/3"}) || end != "" {
			t.Errorf("%s: the operator of a sees %v and %v, and then %q", what, own, rest, end)
		}
		if got, _ := list(t, b.Conn(operatorB), token); !slices.Equal(got, []string{"b/1", "b/2"}) {
			t.Errorf("%s: the operator of b sees %v by the token of another, want its own", what, got)
		}
		_, wide := list(t, b.Operator(), "")
		if got, _ := list(t, b.Conn(operatorB), wide); !slices.Equal(got, []string{"b/1", "b/2"}) {
			t.Errorf("%s: the operator of b sees %v by the token of one who sees all, want its own", what, got)
		}
	}
	_, token := clientNames(t, b.Conn(operatorA), "")
	_, err := credentialsOf(b.Conn(operatorA)).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{PageToken: token})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestTheIDOfAConsentIsNoCapability(t *testing.T) {
	b := peopleBroker(t, func(c *brokertest.Config) { c.Policy += tenantsPolicy[len(brokertest.DefaultPolicy):] })
	begun, err := consentsOf(b.Operator()).BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	other := consentsOf(b.Conn(operatorA))
	attempts := map[string]func(id string) error{
		"get": func(id string) error {
			_, err := other.GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{ConsentId: id})
			return err
		},
		"cancel": func(id string) error {
			_, err := other.CancelConsent(brief(t), &tokenbrokerv1.CancelConsentRequest{ConsentId: id})
			return err
		},
		"accept": func(id string) error {
			_, err := other.AcceptConsent(brief(t), &tokenbrokerv1.AcceptConsentRequest{ConsentId: id, Account: ann})
			return err
		},
		"complete": func(id string) error {
			_, err := other.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: id, CallbackUrl: catcher + "?code=c&state=s"})
			return err
		},
	}
	for what, try := range attempts {
		got, unknown := try(begun.GetConsent().GetConsentId()), try("0123456789abcdef0123456789abcdef")
		if wantFault(t, got, codes.NotFound, "CONSENT_NOT_FOUND"); wire(t, got) != wire(t, unknown) {
			t.Errorf("%s: got %v, want what is said of an unknown one, %v", what, got, unknown)
		}
	}
	for identity, want := range map[string]int{brokertest.OperatorID: 1, operatorA: 0} {
		r, err := consentsOf(b.Conn(identity)).ListConsents(brief(t), &tokenbrokerv1.ListConsentsRequest{})
		if err != nil || len(r.GetConsents()) != want {
			t.Errorf("%s lists %d consents (%v), want %d", identity, len(r.GetConsents()), err, want)
		}
	}
}

// repetitions is how often a promise is tried: more with TOKENBROKER_SOAK set, as make soak does.
func repetitions(short, whole int) int {
	if os.Getenv("TOKENBROKER_SOAK") != "" {
		return whole
	}
	return short
}

func TestP12AGrantThatThePolicyTakesEndsOnOpenStreamsAndTheOthersStay(t *testing.T) {
	names := []string{"example/a", "example/b", "example/c"}
	without := func(gone string) string {
		return withRules(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == gone }))
	}
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: withRules(names), CertLife: 30 * 24 * time.Hour, Limits: server.Limits{ConnectionAge: 30 * 24 * time.Hour}})
		defer b.Stop()
		for _, name := range names {
			b.AddClientCredentials(name, "files.read")
		}
		w := watch(t, b.Worker(), sel(names[0]), sel(names[1]), sel(names[2]))
		w.patience = time.Minute
		for range names {
			w.ready(0)
		}
		for i := range repetitions(100, 1000) {
			gone := names[i%len(names)]
			began := time.Now()
			b.SetPolicy(without(gone))
			r := w.until(func(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetSnapshotEnd() == nil && !renewed(e) }).GetRemoved()
			if took := time.Since(began); r.GetSelector().GetCredential() != gone || r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND || took > time.Second {
				t.Fatalf("%d: got %v after %v, want %s removed within a second", i, r, took, gone)
			}
			time.Sleep(time.Second)
			if n := len(w.events); n > 0 {
				if e := <-w.events; e.GetHeartbeat() == nil && !renewed(e) {
					t.Fatalf("%d: got %v besides, want the other two to stay", i, e)
				}
			}
			b.SetPolicy(withRules(names))
			back := w.until(func(e *tokenbrokerv1.SubscribeResponse) bool {
				return e.GetUpdate().GetSelector().GetCredential() == gone
			})
			if back.GetUpdate().GetToken() == nil {
				t.Fatalf("%d: got %v, want the token back", i, back)
			}
		}
		w.cancel()
	})
}

// renewed reports whether a message is an update of a token that was refreshed meanwhile.
func renewed(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetUpdate().GetToken() != nil }

// withRules is a policy that gives workers some credentials, by a rule each.
func withRules(names []string) string {
	text, _, _ := strings.Cut(brokertest.DefaultPolicy, "  - name: workers")
	for i, name := range names {
		text += fmt.Sprintf("  - name: grant-%d\n    identities: [\"spiffe://brokertest.local/worker/*\"]\n    actions: [\"token.*\"]\n    credentials: [%q]\n", i, name)
	}
	return text
}

func TestS23WhatIsBeyondTheGrantIsDeniedAndRecorded(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	before := b.Sandbox.Count(tokenRequests)
	for _, row := range []struct {
		name   string
		ask    *tokenbrokerv1.GetTokenRequest
		code   codes.Code
		reason string
	}{
		{"a scope beyond the rule", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{"files.read", "files.write"}}, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"},
		{"an audience beyond the rule", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Audience: "https://payroll.example"}, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"},
		{"a subject beyond the rule", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Subject: "ann@example.org"}, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"},
		{"an empty scope", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{""}}, codes.InvalidArgument, "FIELD_VIOLATION"},
		{"two scopes in one", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{"files.read files.write"}}, codes.InvalidArgument, "FIELD_VIOLATION"},
		{"a wildcard for a scope", &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{"**"}}, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"},
		{"a wildcard in the name", &tokenbrokerv1.GetTokenRequest{Credential: "example/*"}, codes.InvalidArgument, "FIELD_VIOLATION"},
		{"a wildcard for all names", &tokenbrokerv1.GetTokenRequest{Credential: "**"}, codes.InvalidArgument, "FIELD_VIOLATION"},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := len(auditLines(t, b))
			r, err := tokensOf(b.Conn(reader)).GetToken(brief(t), row.ask)
			if wantFault(t, err, row.code, row.reason); r.GetToken() != nil {
				t.Error("and a token came")
			}
			lines := auditLines(t, b)[seen:]
			if !slices.ContainsFunc(lines, func(l auditLine) bool { return l.Identity == reader && l.Decision == "deny" && l.Code == row.reason }) {
				t.Errorf("no record says so: %+v", lines)
			}
		})
	}
	if got := b.Sandbox.Count(tokenRequests); got != before {
		t.Errorf("%d token requests were sent", got-before)
	}
}

// The protocol has no version to resume from, so none can be shown by another. The number of a token is one that a worker may show, with
// ReportRejected.
func TestS24ANumberOfAnotherWorkersTokenIsNoCapability(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("b/api", "files.read")
	u := watch(t, b.Conn(workerB), sel("b/api")).ready(0)
	report := func(identity string) error {
		r, err := tokensOf(b.Conn(identity)).ReportRejected(brief(t), &tokenbrokerv1.ReportRejectedRequest{Credential: "b/api", Generation: u.GetGeneration(), HttpStatus: 401})
		if r.GetToken() != nil {
			t.Errorf("%s was given a token", identity)
		}
		return err
	}
	wantFault(t, report(domain+"/stranger/1"), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	wantFault(t, report(brokertest.OperatorID), codes.FailedPrecondition, "GENERATION_NOT_HANDED")
	if r := watch(t, b.Conn(workerA), sel("b/api")).next().GetRemoved(); r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND {
		t.Errorf("got %v, want nothing for a worker of another tenant", r)
	}
	for _, m := range []proto.Message{&tokenbrokerv1.SubscribeRequest{}, &tokenbrokerv1.Selector{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := string(fields.Get(i).Name()); !slices.Contains([]string{"selectors", "credential", "scopes", "subject", "audience"}, name) {
				t.Errorf("a subscription can bring %s: show that it is no capability", name)
			}
		}
	}
}

func TestS25ANameIsTakenAsItStandsOrRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read")
	b.AddClientCredentials("b/api", "files.read")
	for _, name := range []string{"a/../b/api", "a/./../b/api", "a//b/api", "/b/api", "b/api/", "B/api", "b/API", "\u0440/api", "b/\u0430pi", "\uff42/api", "b\u200b/api", "b%2fapi", "a/..%2fb/api",
		"b/api\x00", "b/api ", " b/api", "b\\api", "a/b/api/..", "b/api\n"} {
		for what, call := range map[string]attempt{
			"get":       get(&tokenbrokerv1.GetTokenRequest{Credential: name}),
			"subscribe": subscribe(&tokenbrokerv1.Selector{Credential: name}),
			"create":    create(name, nil),
		} {
			conn := b.Conn(workerA)
			if what == "create" {
				conn = b.Conn(operatorA)
			}
			if err := call(brief(t), conn); err == nil {
				t.Errorf("%s: %q was taken for a name", what, name)
			} else if f := faultOf(t, err); f.Code != codes.InvalidArgument {
				t.Errorf("%s %q: got %v %s, want INVALID_ARGUMENT", what, name, f.Code, f.Reason)
			}
		}
	}
	wantFault(t, get(&tokenbrokerv1.GetTokenRequest{Credential: "b/api"})(brief(t), b.Conn(workerA)), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	if names, _ := page(t, b.Operator(), ""); len(names) != 2 {
		t.Errorf("there are %v now, want two credentials", names)
	}
}

func TestS30SecretsGoInAndNeverComeOut(t *testing.T) {
	const secret, refresh, fixed, later = "canary-client-secret", "canary-refresh-token", "canary-static-token", "canary-second-secret"
	b := brokertest.Start(t, brokertest.Config{})
	clients, creds := clientsOf(b.Operator()), credentialsOf(b.Operator())
	var told []proto.Message
	keep := func(m proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, m)
	}
	ctx := brief(t)
	spec := func(g tokenbrokerv1.GrantType, client string) *tokenbrokerv1.CredentialSpec {
		return &tokenbrokerv1.CredentialSpec{Provider: "fast", OauthClient: client, GrantType: g}
	}
	keep(clients.CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: "fast", ClientSecret: secret,
		Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast", ClientId: "job", AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}))
	keep(clients.AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "fast", ClientSecret: later}))
	keep(creds.CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: "example/rt", RefreshToken: refresh, Spec: spec(tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, "fast")}))
	keep(creds.CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: "example/key", StaticToken: fixed, Spec: spec(tokenbrokerv1.GrantType_GRANT_TYPE_STATIC, "")}))
	keep(creds.ImportRefreshToken(ctx, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/rt", RefreshToken: refresh + "-2"}))
	for _, name := range []string{"example/rt", "example/key"} {
		keep(creds.GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: name}))
		keep(creds.DisableCredential(ctx, &tokenbrokerv1.DisableCredentialRequest{Credential: name}))
		keep(creds.ListCredentialUsers(ctx, &tokenbrokerv1.ListCredentialUsersRequest{Credential: name}))
	}
	keep(clients.GetOAuthClient(ctx, &tokenbrokerv1.GetOAuthClientRequest{OauthClient: "fast"}))
	keep(clients.ListOAuthClients(ctx, &tokenbrokerv1.ListOAuthClientsRequest{}))
	keep(creds.ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{}))
	keep(policiesOf(b.Operator()).Lint(ctx, &tokenbrokerv1.LintRequest{}))
	keep(tokenbrokerv1.NewProviderServiceClient(b.Operator()).ListProviders(ctx, &tokenbrokerv1.ListProvidersRequest{}))
	for _, m := range told {
		text, err := protojson.Marshal(m) //nolint:forbidigo // it is searched for secrets, and not shown
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{secret, refresh, fixed, later, "canary"} {
			if strings.Contains(string(text), s) {
				t.Errorf("%T holds %s", m, s)
			}
		}
	}
}
