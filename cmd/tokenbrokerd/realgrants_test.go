package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// realWorld is a broker and the server of testdata/oidc, which knows every grant and method.
type realWorld struct {
	*oidcServer
	site     *site
	operator *grpc.ClientConn
	key      string // PEM: the key of the client "key-jwt"
}

func newRealWorld(t *testing.T, env ...string) *realWorld {
	t.Helper()
	key, jwks := clientKey(t)
	w := &realWorld{oidcServer: startOIDC(t, time.Minute, append(env, "OIDC_CLIENT_JWKS="+jwks)...), key: key}
	w.site = newSite(t, providerYAML("oidc", w.issuer+"/token", w.profile()...))
	w.site.start()
	w.operator = w.site.conn("operator")
	return w
}

// profile is what an operator would write of the server, besides its token endpoint.
func (w *realWorld) profile() []string {
	return []string{
		"ca_file: " + w.ca, "issuer: " + w.issuer, "rotates: true",
		"authorization_endpoint: " + w.issuer + "/auth",
		"device_authorization_endpoint: " + w.issuer + "/device/auth",
		"revocation_endpoint: " + w.issuer + "/token/revocation",
		"introspection_endpoint: " + w.issuer + "/token/introspection",
		"userinfo_endpoint: " + w.issuer + "/me",
		"jwks_uri: " + w.issuer + "/jwks",
		"iss_parameter: true",
		"consent_scopes: [openid, email, offline_access]", "account: [userinfo.email]",
		"authorization_params: {prompt: consent}",
	}
}

// clientKey makes a key, and the file of its public half for the server.
func clientKey(t *testing.T) (private, jwksFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwks, err := json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one", "x": b64(point[1:33]), "y": b64(point[33:])}}})
	if err != nil {
		t.Fatal(err)
	}
	jwksFile = filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(jwksFile, jwks, 0o600); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), jwksFile
}

// client adds an OAuth client under its own id, less what no name can have.
func (w *realWorld) client(t *testing.T, id string) string {
	t.Helper()
	i := slices.IndexFunc(w.clients, func(c oidcClient) bool { return c.ID == id })
	if i < 0 {
		t.Fatalf("the server has no client %q", id)
	}
	c, name := w.clients[i], strings.NewReplacer(":", "-", " ", "-").Replace(id)
	auth := "AUTH_METHOD_" + strings.ToUpper(c.Auth)
	r := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: name, ClientSecret: c.Secret, Spec: &tokenbrokerv1.OAuthClientSpec{
		Provider: "oidc", ClientId: id, AuthMethod: tokenbrokerv1.AuthMethod(tokenbrokerv1.AuthMethod_value[auth])}}
	if c.Auth == "private_key_jwt" {
		r.PrivateKey, r.KeyId = w.key, "one"
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := tokenbrokerv1.NewOAuthClientServiceClient(w.operator).CreateOAuthClient(ctx, r); err != nil && status.Code(err) != codes.AlreadyExists {
		t.Fatalf("create OAuth client %s: %v", name, err)
	}
	return name
}

// credential adds a credential and returns its name.
func (w *realWorld) credential(t *testing.T, name string, spec *tokenbrokerv1.CredentialSpec) string {
	t.Helper()
	spec.Provider = "oidc"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := tokenbrokerv1.NewCredentialServiceClient(w.operator).CreateCredential(ctx,
		&tokenbrokerv1.CreateCredentialRequest{Credential: name, Spec: spec})
	if err != nil {
		t.Fatalf("create credential %s: %v", name, err)
	}
	return name
}

// check has the broker ask the server about a credential's token.
func (w *realWorld) check(t *testing.T, name string) *tokenbrokerv1.CheckCredentialResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := tokenbrokerv1.NewCredentialServiceClient(w.operator).CheckCredential(ctx, &tokenbrokerv1.CheckCredentialRequest{Credential: name})
	if err != nil {
		t.Fatalf("check %s: %v", name, err)
	}
	return r
}

func TestRealServerTakesEveryWayToAuthenticate(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	for _, id := range []string{"basic-special", "post-special", "secret-jwt", "key-jwt"} {
		name := w.credential(t, "example/"+id, &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, id),
			GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"reports.read"}})
		if _, err := get(t, w.operator, name); err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		got := w.check(t, name)
		if !got.GetActive() || got.GetMethod() != tokenbrokerv1.CheckCredentialResponse_METHOD_INTROSPECTION || !slices.Contains(got.GetScopes(), "reports.read") {
			t.Errorf("%s: got verdict %v", id, got)
		}
	}
}

func TestRealServerTakesAnAssertionOfOurs(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	name := w.credential(t, "example/assertion", &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, "key-jwt"),
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_JWT_BEARER, Scopes: []string{"openid", "reports.read"}, Subject: "alice"})
	tok, err := get(t, w.operator, name)
	if err != nil {
		t.Fatal(err)
	}
	if !w.takes(tok.GetToken().GetAccessToken()) {
		t.Error("the server's own resource does not take the token")
	}
}

func TestRealServerBindsATokenToAResource(t *testing.T) {
	t.Parallel()
	const resource = "https://api.example/reports"
	w := newRealWorld(t)
	name := w.credential(t, "example/resource", &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, "basic-plain"),
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"reports.read"}, Resources: []string{resource}})
	tok, err := get(t, w.operator, name)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(tok.GetToken().GetAccessToken(), ".")
	if len(parts) != 3 {
		t.Fatalf("got a token of %d parts, want a JWT", len(parts))
	}
	var claims struct {
		Audience string `json:"aud"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Audience != resource {
		t.Errorf("got audience %q (%v), want %q", claims.Audience, err, resource)
	}
	if got := w.check(t, name); !got.GetActive() {
		t.Errorf("got verdict %v", got)
	}
}

// consent begins a consent.
func (w *realWorld) consent(t *testing.T, r *tokenbrokerv1.BeginConsentRequest) *tokenbrokerv1.BeginConsentResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := tokenbrokerv1.NewConsentServiceClient(w.operator).BeginConsent(ctx, r)
	if err != nil {
		t.Fatalf("begin a consent for %s: %v", r.GetCredential(), err)
	}
	return resp
}

// browse follows a URL as a browser would, to the redirect that leaves the server.
func (w *realWorld) browse(t *testing.T, from string) *url.URL {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.browser().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	to, err := resp.Location()
	if err != nil {
		t.Fatalf("browse: HTTP %d without a redirect", resp.StatusCode)
	}
	return to
}

func (w *realWorld) complete(t *testing.T, id, callback string) (*tokenbrokerv1.CompleteConsentResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return tokenbrokerv1.NewConsentServiceClient(w.operator).CompleteConsent(ctx,
		&tokenbrokerv1.CompleteConsentRequest{ConsentId: id, CallbackUrl: callback})
}

const loopback = "http://127.0.0.1:49152/callback"

func TestRealServerConsentRefreshAndRevocation(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t, "OIDC_PERSON=alice")
	for _, id := range []string{"basic-plain", "public"} {
		name := w.credential(t, "example/code-"+id, &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, id),
			GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"reports.read"}})
		if _, err := get(t, w.operator, name); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: before the consent: got %v, want FailedPrecondition", id, err)
		}
		begun := w.consent(t, &tokenbrokerv1.BeginConsentRequest{Credential: name, Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK, RedirectUri: loopback})
		callback := w.browse(t, begun.GetAuthorizationUrl())
		done, err := w.complete(t, begun.GetConsent().GetConsentId(), callback.String())
		if err != nil {
			t.Fatalf("%s: complete: %v", id, err)
		}
		if got := done.GetConsent(); got.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DONE || got.GetAccount() != "alice@example.org" {
			t.Errorf("%s: got consent %v", id, got)
		}
		if _, err := w.complete(t, begun.GetConsent().GetConsentId(), callback.String()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: a second completion: got %v, want FailedPrecondition", id, err)
		}
		tok, err := get(t, w.operator, name)
		if err != nil || !w.takesAny(tok.GetToken().GetAccessToken()) {
			t.Fatalf("%s: got %v, want a token that the server takes", id, err)
		}
		w.revoke(t, name)
		if w.takesAny(tok.GetToken().GetAccessToken()) {
			t.Errorf("%s: the server takes a token of a revoked grant", id)
		}
	}
}

// takesAny asks the server's resource whether a token is good, whosever it is.
func (w *realWorld) takesAny(accessToken string) bool {
	r, err := http.NewRequest(http.MethodGet, w.issuer+"/me", nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+accessToken)
	resp, err := w.http.Do(r)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// revoke ends a grant at the server, and sees that the credential knows.
func (w *realWorld) revoke(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := tokenbrokerv1.NewCredentialServiceClient(w.operator).RevokeCredentials(ctx, &tokenbrokerv1.RevokeCredentialsRequest{Credential: name})
	if err != nil || len(r.GetRevocations()) != 1 || r.GetRevocations()[0].GetOutcome() != tokenbrokerv1.Revocation_OUTCOME_REVOKED {
		t.Fatalf("revoke %s: got %v, %v", name, r, err)
	}
	if _, err := get(t, w.operator, name); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%s after the revocation: got %v, want FailedPrecondition", name, err)
	}
}

func TestRealServerDenialIsSaid(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t) // nobody is there to consent
	name := w.credential(t, "example/denied", &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, "basic-plain"),
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"reports.read"}})
	begun := w.consent(t, &tokenbrokerv1.BeginConsentRequest{Credential: name, Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK, RedirectUri: loopback})
	_, err := w.complete(t, begun.GetConsent().GetConsentId(), w.browse(t, begun.GetAuthorizationUrl()).String())
	if err == nil || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("got %v, want access_denied", err)
	}
}
