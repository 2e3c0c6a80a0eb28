package sandbox_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const robot = "robot@project.iam.test"

func withServiceAccount(t *testing.T) *world {
	t.Helper()
	iss := people()
	keys := testKeys()
	iss.ServiceAccounts = []sandbox.ServiceAccount{
		{Email: robot, ClientID: "1234", Scopes: []string{"read", "write", "admin"}, Delegated: []string{"read", "admin"}, Keys: []sandbox.Key{{ID: "k1", Public: &keys.rsa.PublicKey}}},
		{Email: "plain@project.iam.test", Keys: []sandbox.Key{{ID: "k1", Public: &keys.rsa.PublicKey}}},
		{Email: "off@project.iam.test", Disabled: true, Keys: []sandbox.Key{{ID: "k1", Public: &keys.rsa.PublicKey}}},
	}
	iss.Clients = append(iss.Clients, sandbox.Client{ID: "connected-app", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost, Scopes: []string{"read", "admin"},
		Keys: []sandbox.Key{{ID: "e1", Public: &keys.ec.PublicKey}}})
	return newWorld(t, iss)
}

func (w *world) assert(assertion string, more ...string) reply {
	w.t.Helper()
	return w.postAs("", "token", append([]string{"grant_type", sandbox.GrantJWTBearer, "assertion", assertion}, more...)...)
}

func googleClaims() map[string]any {
	return map[string]any{"iss": robot, "scope": "read write", "aud": "https://sandbox.test/acme/token", "iat": unix(-10 * time.Second), "exp": unix(3590 * time.Second)}
}

func TestAServiceAccountGetsATokenForItself(t *testing.T) {
	w := withServiceAccount(t)
	r := w.assert(signed(t, jose.RS256, testKeys().rsa, "k1", googleClaims())).want(t, 200, "")
	if r.str("refresh_token") != "" || r.str("scope") != "read write" || r.json["expires_in"] != 3600.0 {
		t.Errorf("got %s", r.text)
	}
	if got := w.get("/acme/resource", r.str("access_token")).want(t, 200, ""); got.str("sub") != robot || got.str("client_id") != robot {
		t.Errorf("got %s", got.text)
	}
	if n := w.srv.Count(sandbox.Filter{GrantType: sandbox.GrantJWTBearer, ClientID: robot, Status: 200}); n != 1 {
		t.Errorf("got %d in the journal, want 1", n)
	}
	delegated := w.assert(signed(t, jose.RS256, testKeys().rsa, "", with(googleClaims(), "scope", "read", "sub", "ann@corp.test"))).want(t, 200, "")
	if got := w.get("/acme/resource", delegated.str("access_token")).want(t, 200, ""); got.str("sub") != "7" {
		t.Errorf("got %s", got.text)
	}
}

// The rows of Google's table of JWT errors come of the causes that it names, then further mistakes.
func TestServiceAccountErrorsAreGoogles(t *testing.T) {
	keys := testKeys()
	for name, row := range map[string]struct {
		claims      map[string]any
		alg         jose.SignatureAlgorithm
		key         any
		kid         string
		code        string
		description string
	}{
		"delegation is not authorised":            {claims: with(googleClaims(), "iss", "plain@project.iam.test", "sub", "ann@corp.test"), code: "unauthorized_client", description: "Unauthorized client or scope in request."},
		"delegation for none of the scopes":       {claims: with(googleClaims(), "scope", "write", "sub", "ann@corp.test"), code: "unauthorized_client", description: "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."},
		"a scope that is not the account's":       {claims: with(googleClaims(), "scope", "openid"), code: "unauthorized_client", description: "Client is unauthorized to retrieve"},
		"delegation for some of the scopes":       {claims: with(googleClaims(), "sub", "ann@corp.test"), code: "access_denied", description: ""},
		"the user's administrator forbids it":     {claims: with(googleClaims(), "scope", "admin", "sub", "bob@corp.test"), code: "admin_policy_enforced"},
		"no RS256":                                {claims: googleClaims(), alg: jose.PS256, code: "invalid_client"},
		"no such user":                            {claims: with(googleClaims(), "sub", "nobody@corp.test"), code: "invalid_grant", description: "Not a valid email."},
		"expired":                                 {claims: with(googleClaims(), "iat", unix(-time.Hour), "exp", unix(-1)), code: "invalid_grant", description: "reasonable timeframe"},
		"from the future":                         {claims: with(googleClaims(), "iat", unix(310*time.Second), "exp", unix(320*time.Second)), code: "invalid_grant", description: "reasonable timeframe"},
		"longer than an hour":                     {claims: with(googleClaims(), "exp", unix(3591*time.Second)), code: "invalid_grant", description: "reasonable timeframe"},
		"no exp":                                  {claims: with(googleClaims(), "exp", nil), code: "invalid_grant", description: "reasonable timeframe"},
		"no iat":                                  {claims: with(googleClaims(), "iat", nil), code: "invalid_grant", description: "reasonable timeframe"},
		"exp before iat":                          {claims: with(googleClaims(), "iat", unix(20*time.Second), "exp", unix(10*time.Second)), code: "invalid_grant", description: "reasonable timeframe"},
		"another key":                             {claims: googleClaims(), key: keys.other, code: "invalid_grant", description: "Invalid JWT Signature."},
		"another key id":                          {claims: googleClaims(), kid: "k2", code: "invalid_grant", description: "Invalid JWT Signature."},
		"no such scope":                           {claims: with(googleClaims(), "scope", "nope"), code: "invalid_scope", description: "Invalid OAuth scope or ID token audience provided."},
		"no scope":                                {claims: with(googleClaims(), "scope", nil), code: "invalid_scope"},
		"scopes with a comma":                     {claims: with(googleClaims(), "scope", "read,write"), code: "invalid_scope"},
		"scopes with two blanks":                  {claims: with(googleClaims(), "scope", "read  write"), code: "invalid_scope"},
		"disabled":                                {claims: with(googleClaims(), "iss", "off@project.iam.test"), code: "disabled_client", description: "The OAuth client was disabled."},
		"a user of elsewhere":                     {claims: with(googleClaims(), "scope", "read", "sub", "eve@else.test"), code: "org_internal"},
		"another audience":                        {claims: with(googleClaims(), "aud", "https://sandbox.test/acme"), code: "invalid_grant", description: "right audience is https://sandbox.test/acme/token"},
		"two audiences":                           {claims: with(googleClaims(), "aud", []string{"https://sandbox.test/acme/token", "x"}), code: "invalid_grant", description: "audience"},
		"an account that nobody knows":            {claims: with(googleClaims(), "iss", "x@y.test"), code: "invalid_grant"},
		"claims that are not what they should be": {claims: with(googleClaims(), "exp", "soon"), code: "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			w := withServiceAccount(t)
			alg, key, kid := jose.RS256, any(keys.rsa), "k1"
			if row.alg != "" {
				alg = row.alg
			}
			if row.key != nil {
				key = row.key
			}
			if row.kid != "" {
				kid = row.kid
			}
			got := w.assert(signed(t, alg, key, kid, row.claims)).want(t, 400, row.code)
			if !strings.Contains(got.str("error_description"), row.description) {
				t.Errorf("got %q, want %q", got.str("error_description"), row.description)
			}
		})
	}
}

func TestAnAssertionMustBeAJWT(t *testing.T) {
	w := withServiceAccount(t)
	w.assert("").want(t, 400, "invalid_request")
	w.assert("a.b.c").want(t, 400, "invalid_grant")
	w.assert(signed(t, jose.HS256, []byte(strings.Repeat("k", 32)), "k1", googleClaims())).want(t, 400, "invalid_client")
}

func TestTheServersClockJudgesAssertions(t *testing.T) {
	w := withServiceAccount(t)
	w.srv.Fail("acme", sandbox.Fault{Skew: -6 * time.Minute})
	fresh := func() string { return signed(t, jose.RS256, testKeys().rsa, "k1", googleClaims()) }
	r := w.assert(fresh()).want(t, 400, "invalid_grant")
	date, err := time.Parse(time.RFC1123, r.header.Get("Date"))
	if off := time.Since(date); err != nil || off < 5*time.Minute || off > 7*time.Minute {
		t.Errorf("got Date %q, want it 6 min behind", r.header.Get("Date"))
	}
	w.assert(fresh()).want(t, 200, "")
	w.srv.Advance(time.Hour)
	w.assert(fresh()).want(t, 400, "invalid_grant")
}

func TestAKeyFileFromTheSandboxWorks(t *testing.T) {
	w := withServiceAccount(t)
	var file map[string]string
	if err := json.Unmarshal(w.srv.AddServiceAccountKey("acme", robot, w.base), &file); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(file["private_key"]))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil || file["type"] != "service_account" || file["client_email"] != robot || file["client_id"] != "1234" || len(file["private_key_id"]) != 40 {
		t.Fatalf("got %v, %v", file["client_email"], err)
	}
	ask := func() reply {
		return w.assert(signed(t, jose.RS256, key.(*rsa.PrivateKey), file["private_key_id"], with(googleClaims(), "aud", file["token_uri"])))
	}
	ask().want(t, 200, "")
	w.srv.SetServiceAccount("acme", robot, true, nil)
	ask().want(t, 400, "disabled_client")
	w.srv.SetServiceAccount("acme", robot, false, nil)
	if !w.srv.RemoveServiceAccountKey("acme", robot, file["private_key_id"]) || w.srv.RemoveServiceAccountKey("acme", robot, "x") {
		t.Error("got the wrong answer about a key that was removed")
	}
	ask().want(t, 400, "invalid_grant")
	wantPanic(t, func() { w.srv.AddServiceAccountKey("acme", "nobody", "") })
	wantPanic(t, func() { w.srv.RemoveServiceAccountKey("acme", "nobody", "") })
}

func TestAClientWithKeysAssertsForAnAccount(t *testing.T) {
	base := map[string]any{"iss": "connected-app", "sub": "ann@corp.test", "aud": "https://sandbox.test/acme/token", "exp": unix(3 * time.Minute), "jti": "1"}
	for name, row := range map[string]struct {
		claims map[string]any
		more   []string
		code   string
	}{
		"default scopes":               {claims: base},
		"scope in the request":         {claims: base, more: []string{"scope", "read"}},
		"scope in the assertion":       {claims: with(base, "scope", "read")},
		"for itself":                   {claims: with(base, "sub", "connected-app")},
		"with its secret":              {claims: base, more: []string{"client_id", "connected-app", "client_secret", "s3cret"}},
		"with the wrong secret":        {claims: base, more: []string{"client_id", "connected-app", "client_secret", "x"}, code: "invalid_client"},
		"with the secret of another":   {claims: base, more: []string{"client_id", "web", "client_secret", "s3cret"}, code: "invalid_grant"},
		"no such account":              {claims: with(base, "sub", "nobody"), code: "invalid_grant"},
		"no exp":                       {claims: with(base, "exp", nil), code: "invalid_grant"},
		"expired":                      {claims: with(base, "exp", unix(-1)), code: "invalid_grant"},
		"for too long":                 {claims: with(base, "exp", unix(2*time.Hour)), code: "invalid_grant"},
		"not yet":                      {claims: with(base, "nbf", unix(10*time.Minute)), code: "invalid_grant"},
		"another audience":             {claims: with(base, "aud", "x"), code: "invalid_grant"},
		"more scopes than it may have": {claims: with(base, "scope", "write"), code: "invalid_scope"},
		"a scope that is forbidden":    {claims: with(base, "sub", "bob@corp.test"), code: "admin_policy_enforced"},
		"a client without keys":        {claims: with(base, "iss", "web"), code: "invalid_grant"},
		"a malformed scope":            {claims: base, more: []string{"scope", " "}, code: "invalid_scope"},
	} {
		t.Run(name, func(t *testing.T) {
			w := withServiceAccount(t)
			token := signed(t, jose.ES256, testKeys().ec, "e1", row.claims)
			if row.code != "" {
				w.assert(token, row.more...).want(t, 400, row.code)
				return
			}
			w.assert(token, row.more...).want(t, 200, "")
			w.assert(token, row.more...).want(t, 400, "invalid_grant") // the jti was used
		})
	}
	w := withServiceAccount(t)
	w.assert(signed(t, jose.RS256, testKeys().rsa, "e1", base)).want(t, 400, "invalid_grant")
}

func TestAnIssuerCanNameTheAudience(t *testing.T) {
	iss := people()
	iss.JWTAudience = "https://login.test"
	iss.ServiceAccounts = []sandbox.ServiceAccount{{Email: robot, Keys: []sandbox.Key{{ID: "k1", Public: &testKeys().rsa.PublicKey}}}}
	w := newWorld(t, iss)
	w.assert(signed(t, jose.RS256, testKeys().rsa, "k1", with(googleClaims(), "aud", "https://login.test"))).want(t, 200, "")
	w.assert(signed(t, jose.RS256, testKeys().rsa, "k1", googleClaims())).want(t, 400, "invalid_grant")
}

func TestAScopeWithACommaIsNoScopeEvenWhereEveryScopeIs(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{ServiceAccounts: []sandbox.ServiceAccount{{Email: robot, Keys: []sandbox.Key{{ID: "k1", Public: &testKeys().rsa.PublicKey}}}}})
	ask := func(scope any) reply {
		return w.assert(signed(t, jose.RS256, testKeys().rsa, "k1", with(googleClaims(), "scope", scope)))
	}
	ask("https://api.test/any").want(t, 200, "")
	for _, scope := range []any{"a,b", "a, b", "", nil, " ", "a  b", "a b ", `a"b`} {
		if got := ask(scope).want(t, 400, "invalid_scope"); got.str("error_description") != sandbox.GoogleErrors()["scope"].Description {
			t.Errorf("%v: got %s", scope, got.text)
		}
	}
}
