package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

// endpoints gives the providers what the sandbox has besides token endpoints.
func endpoints(issuer string, p *provider.Profile) {
	p.RevocationEndpoint = "https://sandbox.example/" + issuer + "/revoke"
	p.IntrospectionEndpoint = "https://sandbox.example/" + issuer + "/introspect"
}

func pemKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func static(name string, change func(*tokenbrokerv1.CreateCredentialRequest)) attempt {
	r := &tokenbrokerv1.CreateCredentialRequest{Credential: name, StaticToken: "static-1",
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_STATIC}}
	if change != nil {
		change(r)
	}
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := credentialsOf(c).CreateCredential(ctx, r)
		return err
	}
}

func importing(r *tokenbrokerv1.ImportRefreshTokenRequest) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := credentialsOf(c).ImportRefreshToken(ctx, r)
		return err
	}
}

func TestAStaticTokenIsKeptAndReplaced(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	creds := credentialsOf(b.Operator())
	r, err := creds.CreateCredential(brief(t), &tokenbrokerv1.CreateCredentialRequest{Credential: "example/key", StaticToken: "static-1",
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_STATIC}})
	if err != nil {
		t.Fatal(err)
	}
	if w := r.GetWarnings(); len(w) == 0 || !strings.Contains(w[0], "no expiry") {
		t.Errorf("got warnings %q, want one of the missing expiry", w)
	}
	if got := b.Token("example/key").GetAccessToken(); got != "static-1" {
		t.Errorf("got %q, want the token that was given", got)
	}
	if st := credential(t, b, "example/key").GetStatus(); st.GetHolds() != "token" || st.GetHasRefreshToken() || st.GetConsentTime() == nil {
		t.Errorf("got %v, want it to hold a token and no refresh token", st)
	}
	end := time.Now().Add(100 * time.Hour).Truncate(time.Second)
	if _, err := creds.ImportRefreshToken(brief(t), &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/key", StaticToken: "static-2",
		SecretExpireTime: timestamppb.New(end)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next token is served", func() bool { return b.Token("example/key").GetAccessToken() == "static-2" })
	if got := credential(t, b, "example/key").GetStatus().GetRefreshTokenExpireTime().AsTime(); !got.Equal(end) {
		t.Errorf("got end %v, want %v", got, end)
	}
}

func TestBadHoldingsAreRefusedWithTheirField(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	soon := timestamppb.New(time.Now().Add(time.Hour))
	for _, tt := range []struct {
		name   string
		do     attempt
		field  string
		code   codes.Code
		reason string
	}{
		{"two secrets", static("example/x", func(r *tokenbrokerv1.CreateCredentialRequest) { r.Password = "p" }), "refreshToken", codes.InvalidArgument, "FIELD_VIOLATION"},
		{"none", static("example/x", func(r *tokenbrokerv1.CreateCredentialRequest) { r.StaticToken = "" }), "staticToken", codes.InvalidArgument, "FIELD_VIOLATION"},
		{"one of another grant", static("example/x", func(r *tokenbrokerv1.CreateCredentialRequest) { r.StaticToken, r.SubjectToken = "", "s" }), "subjectToken", codes.InvalidArgument, "FIELD_VIOLATION"},
		{"the wrong end", static("example/x", func(r *tokenbrokerv1.CreateCredentialRequest) { r.RefreshTokenExpireTime = soon }), "refreshTokenExpireTime", codes.InvalidArgument, "FIELD_VIOLATION"},
		{"an OAuth client", static("example/x", func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.OauthClient = "rotating" }), "spec.oauthClient", codes.InvalidArgument, "FIELD_VIOLATION"},
		{"an import of another kind", importing(&tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/drive", StaticToken: "s"}), "", codes.FailedPrecondition, "GRANT_NOT_SUPPORTED"},
		{"an import with the other end", importing(&tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/drive", RefreshToken: "r", SecretExpireTime: soon}),
			"secretExpireTime", codes.InvalidArgument, "FIELD_VIOLATION"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := wantFault(t, tt.do(brief(t), b.Operator()), tt.code, tt.reason)
			if tt.field != "" && !slices.Contains(f.Fields, tt.field) {
				t.Errorf("got fields %v (%s), want %s", f.Fields, f.Text, tt.field)
			}
		})
	}
}

func TestAConsentToComeIsToldToWorkers(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Profile: func(issuer string, p *provider.Profile) {
		p.AuthorizationEndpoint = "https://sandbox.example/" + issuer + "/authorize"
	}})
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/drive", Spec: &tokenbrokerv1.CredentialSpec{
		Provider: "rotating", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"a", "b"}}})
	_, err := tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
	f := wantFault(t, err, codes.FailedPrecondition, "REAUTHORIZATION_REQUIRED")
	if f.Recovery != "REAUTHORIZE" || f.Meta["code"] != "consent_needed" || f.Retry != 0 {
		t.Errorf("got %+v, want consent_needed", f)
	}
	st := credential(t, b, "example/drive").GetStatus()
	if st.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_PENDING || st.GetRecoveryAction() != tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_REAUTHORIZE ||
		st.GetCode() != "consent_needed" || st.GetAdvice() == "" || st.GetHasRefreshToken() {
		t.Errorf("got %v, want PENDING with REAUTHORIZE and advice", st)
	}

	now := time.Now()
	if _, err = b.Daemon.Broker().Adopt(brief(t), "example/drive", tokenbroker.Adoption{
		RefreshToken: tokenbroker.NewSecret(b.Sandbox.SeedRefreshToken("rotating", "job", "a")), Account: "jo@example.org", Granted: []string{"a"},
		Token: &tokenbroker.Token{AccessToken: tokenbroker.NewSecret("at"), Type: "Bearer", Scopes: []string{"a"}, Obtained: now, Expiry: now.Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	if got := b.Token("example/drive").GetAccessToken(); got != "at" {
		t.Errorf("got %q, want the token of the consent", got)
	}
	_, err = tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive", Scopes: []string{"b"}})
	f = wantFault(t, err, codes.FailedPrecondition, "SCOPE_NOT_GRANTED")
	if f.Recovery != "REAUTHORIZE" || f.Meta["scopes"] != "b" {
		t.Errorf("got %+v, want b to be consented to", f)
	}
	st = credential(t, b, "example/drive").GetStatus()
	if st.GetAccount() != "jo@example.org" || !slices.Equal(st.GetGrantedScopes(), []string{"a"}) || !slices.Equal(st.GetMissingScopes(), []string{"b"}) {
		t.Errorf("got %v, want account, granted and missing scopes", st)
	}
}

func TestAKeyIsShownByItsIdAndFingerprint(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	key := pemKey(t)
	end := time.Now().Add(1000 * time.Hour).Truncate(time.Second)
	req := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: "signer", PrivateKey: key, KeyId: "k1", SecretExpireTime: timestamppb.New(end), RotateAfter: durationpb.New(24 * time.Hour),
		Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast", ClientId: "job", AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_PRIVATE_KEY_JWT}}
	clients := clientsOf(b.Operator())
	r, err := clients.CreateOAuthClient(brief(t), req)
	if err != nil {
		t.Fatal(err)
	}
	s := r.GetOauthClient().GetSecrets()[0]
	if s.GetKind() != "key" || s.GetKeyId() != "k1" || s.GetAlgorithm() != "ES256" || s.GetFingerprint() == "" || !s.GetExpireTime().AsTime().Equal(end) ||
		!s.GetRotateTime().AsTime().Equal(s.GetAddTime().AsTime().Add(24*time.Hour)) {
		t.Errorf("got %v, want what may be known of the key", s)
	}
	for _, tt := range []struct {
		name, field string
		r           *tokenbrokerv1.AddClientSecretRequest
	}{
		{"the same key", "privateKey", &tokenbrokerv1.AddClientSecretRequest{PrivateKey: key}},
		{"no key", "privateKey", &tokenbrokerv1.AddClientSecretRequest{PrivateKey: "hello"}},
		{"a secret", "clientSecret", &tokenbrokerv1.AddClientSecretRequest{ClientSecret: "hello"}},
		{"a bad certificate", "certificate", &tokenbrokerv1.AddClientSecretRequest{PrivateKey: pemKey(t), Certificate: "hello"}},
		{"a bad rule", "rotateAfter", &tokenbrokerv1.AddClientSecretRequest{PrivateKey: pemKey(t), RotateAfter: durationpb.New(-time.Hour)}},
	} {
		tt.r.OauthClient = "signer"
		_, err := clients.AddClientSecret(brief(t), tt.r)
		if f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); !slices.Contains(f.Fields, tt.field) {
			t.Errorf("%s: got fields %v (%s), want %s", tt.name, f.Fields, f.Text, tt.field)
		}
	}
}

func TestRevokeEndsAGrantAtTheProvider(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Profile: endpoints, Policy: brokertest.DefaultPolicy + `  - name: revokers
    identities: ["spiffe://brokertest.local/revoker/*"]
    actions: ["credential.revoke", "credential.get"]
    credentials: ["example/*"]
`})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	b.AddRefreshToken("other/drive", "rotating", "files.read")
	was := b.Token("example/drive")
	w := watch(t, b.Worker(), sel("example/drive"))
	w.ready(0)
	revoker := credentialsOf(b.Conn(domain + "/revoker/1"))
	plan, err := revoker.RevokeCredentials(brief(t), &tokenbrokerv1.RevokeCredentialsRequest{OauthClient: "rotating", ValidateOnly: true})
	if err != nil || len(plan.GetRevocations()) != 1 || plan.GetRevocations()[0].GetOutcome() != tokenbrokerv1.Revocation_OUTCOME_PLANNED || plan.GetRevocations()[0].GetSubscriberCount() != 1 {
		t.Errorf("got %v, %v; want the plan of the one that the caller may revoke", plan, err)
	}
	if !b.Sandbox.Valid(was.GetAccessToken()) {
		t.Error("the plan revoked the token")
	}
	done, err := revoker.RevokeCredentials(brief(t), &tokenbrokerv1.RevokeCredentialsRequest{Credential: "example/drive"})
	if err != nil || len(done.GetRevocations()) != 1 || done.GetRevocations()[0].GetOutcome() != tokenbrokerv1.Revocation_OUTCOME_REVOKED ||
		!done.GetRevocations()[0].GetTokensLiveUntil().AsTime().Equal(was.GetExpireTime().AsTime()) {
		t.Errorf("got %v, %v; want it revoked", done, err)
	}
	if b.Sandbox.Valid(was.GetAccessToken()) {
		t.Error("the provider takes the token still")
	}
	if u := w.update(); u.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE || u.GetToken() != nil {
		t.Errorf("got %v, want REAUTHORIZE without a token", u.GetState())
	}
	if st := credential(t, b, "example/drive").GetStatus(); st.GetCode() != "revoked" || st.GetRevocationPending() || st.GetAdvice() == "" {
		t.Errorf("got %v, want it revoked", st)
	}
	for name, r := range map[string]*tokenbrokerv1.RevokeCredentialsRequest{
		"another's": {Credential: "other/drive"}, "missing": {Credential: "example/none"},
	} {
		_, err := revoker.RevokeCredentials(brief(t), r)
		if f := wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND"); f.Text == "" {
			t.Errorf("%s: got no text", name)
		}
	}
	_, err = revoker.RevokeCredentials(brief(t), &tokenbrokerv1.RevokeCredentialsRequest{Credential: "example/drive", Provider: "rotating"})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
	_, err = credentialsOf(b.Worker()).RevokeCredentials(brief(t), &tokenbrokerv1.RevokeCredentialsRequest{Credential: "example/drive"})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	b.Stop()
	var intents, results int
	for _, l := range auditLines(t, b) {
		switch {
		case l.Kind == "call_intent" && l.Action == "credential.revoke" && l.Credential == "example/drive" && l.Identity == domain+"/revoker/1":
			intents++
		case l.Kind == "revocation" && l.Credential == "example/drive" && l.Reason == "revoked":
			results++
		}
	}
	if intents != 1 || results != 1 {
		t.Errorf("got %d records that say who revoked it, and %d what came of it; want one each", intents, results)
	}
}

func TestCheckSaysWhatAResourceServerWouldSay(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Profile: endpoints})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	was := b.Token("example/drive")
	check := func() *tokenbrokerv1.CheckCredentialResponse {
		t.Helper()
		r, err := credentialsOf(b.Operator()).CheckCredential(brief(t), &tokenbrokerv1.CheckCredentialRequest{Credential: "example/drive"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(); !r.GetActive() || r.GetMethod() != tokenbrokerv1.CheckCredentialResponse_METHOD_INTROSPECTION || r.GetGeneration() != was.GetGeneration() ||
		!slices.Equal(r.GetScopes(), []string{"files.read"}) || len(r.GetMissingScopes()) != 0 || r.GetProviderExpireTime() == nil {
		t.Errorf("got %v, want an active token", r)
	}
	b.Sandbox.RevokeFamily(was.GetAccessToken())
	if r := check(); r.GetActive() || r.GetCode() == "" {
		t.Errorf("got %v, want it not to be active, and why", r)
	}
	_, err := credentialsOf(b.Worker()).CheckCredential(brief(t), &tokenbrokerv1.CheckCredentialRequest{Credential: "example/drive"})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestASourceTakesTheRightToItsTokens(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `  - name: makers
    identities: ["spiffe://brokertest.local/maker/*"]
    actions: ["credential.create", "credential.update", "token.get"]
    credentials: ["mine/**"]
    oauth_clients: ["**"]
    scopes: ["**"]
`})
	b.AddClientCredentials("mine/source", "files.read")
	b.AddClientCredentials("example/source", "files.read")
	maker := b.Conn(domain + "/maker/1")
	from := func(source string) error {
		_, err := credentialsOf(maker).CreateCredential(brief(t), &tokenbrokerv1.CreateCredentialRequest{Credential: "mine/fed", ValidateOnly: true,
			Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", OauthClient: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_TOKEN_EXCHANGE, Source: source}})
		return err
	}
	if err := from("mine/source"); err != nil {
		t.Errorf("got %v, want it allowed", err)
	}
	other, none := faultOf(t, from("example/source")), faultOf(t, from("example/none"))
	if other.Code != codes.PermissionDenied || other.Text != none.Text || none.Code != other.Code {
		t.Errorf("got %v %q and %v %q, want both denied alike", other.Code, other.Text, none.Code, none.Text)
	}
}
