package sandbox_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	verifier  = "0123456789abcdefghijklmnopqrstuvwxyz-._~0123456789"
	challenge = "35dI6bc818DSnjEVWNDDwAe0uNs8n4LXDrKyo-lszWg" // of the verifier, by another implementation
	callback  = "https://app.test/callback"
)

// testKeys are made once: RSA keys take a while.
var testKeys = sync.OnceValue(func() (keys struct {
	rsa, other *rsa.PrivateKey
	ec         *ecdsa.PrivateKey
}) {
	keys.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	keys.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	keys.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return keys
})

// people is an issuer where every grant can be used.
func people() sandbox.Issuer {
	return sandbox.Issuer{
		Accounts: []sandbox.Account{
			{ID: "7", Email: "ann@corp.test", Name: "Ann", Password: "pw"},
			{ID: "8", Email: "bob@corp.test", DeniedScopes: []string{"admin"}},
			{ID: "9", Email: "eve@else.test", Outside: true},
		},
		ScopesSupported: []string{"openid", "read", "write", "admin"},
		Resources:       []string{"https://api.test"},
		Clients: []sandbox.Client{
			{ID: "web", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost, RedirectURIs: []string{callback}},
			{ID: "native", Auth: sandbox.AuthNone, RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]/cb"}},
			{ID: "legacy", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost, PKCEOptional: true, RedirectURIs: []string{callback},
				Grants: []string{sandbox.GrantAuthorizationCode, sandbox.GrantPassword}},
		},
	}
}

// post sends parameters as pairs to an endpoint, by the client "web".
func (w *world) post(endpoint sandbox.Endpoint, params ...string) reply {
	w.t.Helper()
	return w.postAs("web", endpoint, params...)
}

func (w *world) postAs(client string, endpoint sandbox.Endpoint, params ...string) reply {
	w.t.Helper()
	f := url.Values{"client_id": {client}, "client_secret": {"s3cret"}}
	if client == "native" || client == "public" {
		f.Del("client_secret")
	}
	if client == "" {
		f = url.Values{}
	}
	for i := 0; i < len(params); i += 2 {
		f.Add(params[i], params[i+1])
	}
	return w.do(w.request("POST", "/acme/"+string(endpoint), f.Encode()))
}

func (w *world) get(path, bearer string) reply {
	w.t.Helper()
	r := w.request("GET", path, "")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return w.do(r)
}

// asking is an authorization URL with further parameters as pairs; "" takes one away.
func (w *world) asking(params ...string) string {
	f := url.Values{"response_type": {"code"}, "client_id": {"web"}, "redirect_uri": {callback}, "scope": {"read"}, "state": {"st"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"}, "nonce": {"n0"}}
	for i := 0; i < len(params); i += 2 {
		if f.Set(params[i], params[i+1]); params[i+1] == "" {
			f.Del(params[i])
		}
	}
	return w.base + "/acme/authorize?" + f.Encode()
}

// authorize is a consent by Ann; it returns what the callback carries.
func (w *world) authorize(params ...string) url.Values {
	w.t.Helper()
	return w.callback(w.srv.Authorize("acme", w.asking(params...), "ann@corp.test"))
}

func (w *world) callback(to string, err error) url.Values {
	w.t.Helper()
	u, parseErr := url.Parse(to)
	if err != nil || parseErr != nil || to == "" {
		w.t.Fatalf("got callback %q, %v, %v", to, err, parseErr)
	}
	return u.Query()
}

func (w *world) exchange(code string, params ...string) reply {
	w.t.Helper()
	return w.post(sandbox.EndpointToken, append([]string{"grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier}, params...)...)
}

// signed is a JWT with a header and claims; a claim that is nil is left out.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// with returns base changed by pairs; nil takes a claim away.
func with(base map[string]any, pairs ...any) map[string]any {
	out := maps.Clone(base)
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(out, pairs[i].(string))
		}
	}
	return out
}

func unix(after time.Duration) int64 { return time.Now().Add(after).Unix() }

// opened verifies a JWT with the keys that the issuer publishes and returns its claims.
func (w *world) opened(token string) map[string]any {
	w.t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(w.get("/acme/jwks", "").text), &set); err != nil {
		w.t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		w.t.Fatal(err)
	}
	claims := map[string]any{}
	if err := parsed.Claims(&set, &claims); err != nil {
		w.t.Fatal(err)
	}
	return claims
}

// wantRedirect checks where an authorization request is answered without a page.
func (w *world) follow(address string) (status int, location string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, address, strings.NewReader(""))
	if err != nil {
		w.t.Fatal(err)
	}
	got := w.do(r)
	return got.status, got.header.Get("Location")
}
