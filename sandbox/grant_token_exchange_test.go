package sandbox_test

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	accessType = "urn:ietf:params:oauth:token-type:access_token"
	jwtType    = "urn:ietf:params:oauth:token-type:jwt"
)

func trusting() sandbox.Issuer {
	iss := people()
	iss.TrustedIssuers = []sandbox.TrustedIssuer{{Issuer: "https://ci.test", Keys: []sandbox.Key{{ID: "c1", Public: &testKeys().ec.PublicKey}}}}
	return iss
}

func (w *world) swap(params ...string) reply {
	w.t.Helper()
	return w.post("token", append([]string{"grant_type", sandbox.GrantTokenExchange}, params...)...)
}

func TestAnAccessTokenIsExchangedForANarrowerOne(t *testing.T) {
	w := newWorld(t, trusting())
	subject := w.exchange(w.authorize("scope", "read write").Get("code")).str("access_token")
	with := func(more ...string) reply {
		return w.swap(append([]string{"subject_token", subject, "subject_token_type", accessType}, more...)...)
	}
	r := with("scope", "read", "audience", "https://api.test").want(t, 200, "")
	if r.str("issued_token_type") != accessType || r.str("scope") != "read" || r.str("refresh_token") != "" {
		t.Errorf("got %s", r.text)
	}
	if got := w.get("/acme/resource", r.str("access_token")); got.str("sub") != "7" {
		t.Errorf("got %s", got.text)
	}
	if got := with().want(t, 200, "").str("scope"); got != "read write" {
		t.Errorf("got %q, want all", got)
	}
	for code, more := range map[string][]string{
		"invalid_scope":      {"scope", "admin"},
		"invalid_scope ":     {"scope", `"`},
		"invalid_target":     {"audience", "https://else.test"},
		"invalid_target ":    {"resource", "https://else.test"},
		"invalid_request":    {"requested_token_type", jwtType},
		"invalid_request ":   {"actor_token", "x"},
		"invalid_request   ": {"actor_token_type", accessType},
	} {
		for code[len(code)-1] == ' ' {
			code = code[:len(code)-1]
		}
		with(more...).want(t, 400, code)
	}
	w.swap("subject_token", "x", "subject_token_type", accessType).want(t, 400, "invalid_request")
	w.swap("subject_token", subject).want(t, 400, "invalid_request")
	w.swap("subject_token_type", accessType).want(t, 400, "invalid_request")
	w.srv.RevokeToken(subject)
	with().want(t, 400, "invalid_request")
}

func TestAJWTOfATrustedIssuerIsExchanged(t *testing.T) {
	w := newWorld(t, trusting())
	base := map[string]any{"iss": "https://ci.test", "sub": "job:7", "aud": "https://sandbox.test/acme", "iat": unix(0), "exp": unix(time.Minute)}
	w.swap("subject_token", signed(t, jose.ES256, testKeys().ec, "c1", base), "subject_token_type", jwtType, "scope", "read").want(t, 200, "")
	for name, token := range map[string]string{
		"not a JWT":      "x",
		"not trusted":    signed(t, jose.ES256, testKeys().ec, "c1", with(base, "iss", "https://else.test")),
		"other audience": signed(t, jose.ES256, testKeys().ec, "c1", with(base, "aud", "https://else.test")),
		"other key":      signed(t, jose.RS256, testKeys().rsa, "c1", base),
		"expired":        signed(t, jose.ES256, testKeys().ec, "c1", with(base, "exp", unix(-1))),
		"nobody":         signed(t, jose.ES256, testKeys().ec, "c1", with(base, "sub", nil)),
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.swap("subject_token", token, "subject_token_type", jwtType).want(t, 400, "invalid_request")
		})
	}
}

func TestAnAnonymousExchangeTakesNoClient(t *testing.T) {
	iss := trusting()
	iss.AnonymousExchange = true
	iss.TrustedIssuers[0].Audience = "//iam.test/pool"
	w := newWorld(t, iss)
	token := signed(t, jose.ES256, testKeys().ec, "", map[string]any{"iss": "https://ci.test", "sub": "job:7", "aud": "//iam.test/pool", "exp": unix(time.Minute)})
	params := []string{"grant_type", sandbox.GrantTokenExchange, "subject_token", token, "subject_token_type", jwtType, "scope", "read"}
	r := w.postAs("", "token", params...).want(t, 200, "")
	if got := w.get("/acme/resource", r.str("access_token")); got.str("sub") != "job:7" {
		t.Errorf("got %s", got.text)
	}
	w.post("token", params...).want(t, 400, "invalid_client")
}

func TestPasswordIsForClientsThatAreRegisteredForIt(t *testing.T) {
	w := newWorld(t, people())
	ask := func(client string, more ...string) reply {
		return w.postAs(client, "token", append([]string{"grant_type", "password"}, more...)...)
	}
	ask("web", "username", "ann@corp.test", "password", "pw").want(t, 400, "unauthorized_client")
	if got := ask("legacy", "username", "7", "password", "pw", "scope", "openid").want(t, 200, ""); w.opened(got.str("id_token"))["sub"] != "7" {
		t.Errorf("got %s", got.text)
	}
	ask("legacy", "username", "ann@corp.test", "password", "no").want(t, 400, "invalid_grant")
	ask("legacy", "username", "bob@corp.test", "password", "x").want(t, 400, "invalid_grant")
	ask("legacy", "username", "nobody", "password", "x").want(t, 400, "invalid_grant")
	ask("legacy", "username", "ann@corp.test").want(t, 400, "invalid_request")
	ask("legacy", "username", "ann@corp.test", "password", "pw", "scope", "nope").want(t, 400, "invalid_scope")
}
