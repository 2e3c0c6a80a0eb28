package sandbox_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestRevocation(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		consent := func() (access, refresh string) {
			r := w.exchange(w.authorize().Get("code")).want(t, 200, "")
			return r.str("access_token"), r.str("refresh_token")
		}
		access, refresh := consent()
		if got := w.post("revoke", "token", access, "token_type_hint", "refresh_token"); got.status != 200 || got.text != "" {
			t.Errorf("got %d %q, want 200 without a body", got.status, got.text)
		}
		w.wantValid(access, false)
		access = w.post("token", "grant_type", "refresh_token", "refresh_token", refresh).want(t, 200, "").str("access_token")
		w.post("revoke", "token", refresh).want(t, 200, "") // spent, but of this consent
		w.wantValid(access, false)
		w.post("revoke", "token", refresh).want(t, 200, "")
		w.post("revoke", "token", "sandbox_at_unknown").want(t, 200, "")
		access, refresh = consent()
		w.postAs("legacy", "revoke", "token", access).want(t, 400, "unauthorized_client")
		w.postAs("legacy", "revoke", "token", refresh).want(t, 400, "unauthorized_client")
		w.postAs("native", "revoke", "token", "x").want(t, 200, "")
		w.wantValid(access, true)
		w.post("revoke").want(t, 400, "invalid_request")
		w.postAs("nobody", "revoke", "token", access).want(t, 400, "invalid_client")
		if got := w.get("/acme/revoke", ""); got.status != 405 {
			t.Errorf("got %d for GET, want 405", got.status)
		}
	})
}

func TestIntrospection(t *testing.T) {
	iss := people()
	iss.Clients = append(iss.Clients, sandbox.Client{ID: "api", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost, Introspects: true})
	w := newWorld(t, iss)
	r := w.exchange(w.authorize("resource", "https://api.test").Get("code")).want(t, 200, "")
	for _, client := range []string{"web", "api"} {
		got := w.postAs(client, "introspect", "token", r.str("access_token")).want(t, 200, "")
		exp, iat := got.json["exp"].(float64), got.json["iat"].(float64)
		if got.json["active"] != true || got.str("client_id") != "web" || got.str("sub") != "7" || got.str("username") != "ann@corp.test" ||
			got.str("scope") != "read" || got.str("iss") != w.base+"/acme" || exp-iat != 3600 || !strings.Contains(got.text, `"aud":["https://api.test"]`) {
			t.Errorf("%s: got %s", client, got.text)
		}
		if got := w.postAs(client, "introspect", "token", r.str("refresh_token")).want(t, 200, ""); got.json["active"] != true {
			t.Errorf("%s: got %s", client, got.text)
		}
	}
	inactive := func(client, token string) {
		t.Helper()
		if got := w.postAs(client, "introspect", "token", token); got.status != 200 || strings.TrimSpace(got.text) != `{"active":false}` {
			t.Errorf("got %d %s, want inactive and nothing else", got.status, got.text)
		}
	}
	inactive("legacy", r.str("access_token")) // another's
	inactive("legacy", r.str("refresh_token"))
	inactive("api", "x")
	w.post("token", "grant_type", "refresh_token", "refresh_token", r.str("refresh_token")).want(t, 200, "")
	inactive("api", r.str("refresh_token")) // spent: asking must not count as a replay
	w.wantValid(r.str("access_token"), true)
	w.srv.Advance(time.Hour)
	inactive("api", r.str("access_token"))
	w.postAs("native", "introspect", "token", "x").want(t, 400, "invalid_client")
	w.postAs("api", "introspect").want(t, 400, "invalid_request")
	w.postAs("nobody", "introspect", "token", "x").want(t, 400, "invalid_client")
}

func TestDiscovery(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		for _, path := range []string{"/acme/.well-known/openid-configuration", "/acme/.well-known/oauth-authorization-server",
			"/.well-known/oauth-authorization-server/acme", "/.well-known/openid-configuration/acme"} {
			r := w.get(path, "").want(t, 200, "")
			for name, want := range map[string]string{"issuer": "", "token_endpoint": "/token", "authorization_endpoint": "/authorize", "jwks_uri": "/jwks",
				"device_authorization_endpoint": "/device", "revocation_endpoint": "/revoke", "introspection_endpoint": "/introspect", "userinfo_endpoint": "/userinfo"} {
				if got := r.str(name); got != w.base+"/acme"+want {
					t.Errorf("%s: got %s %q", path, name, got)
				}
			}
			if r.json["authorization_response_iss_parameter_supported"] != true || !strings.Contains(r.text, `"code_challenge_methods_supported":["S256"]`) ||
				!strings.Contains(r.text, `"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"]`) {
				t.Errorf("got %s", r.text)
			}
		}
		if got := w.post(sandbox.EndpointDiscovery); got.status != 405 {
			t.Errorf("got %d for POST, want 405", got.status)
		}
	})
}

func TestJWTAccessTokens(t *testing.T) {
	iss := people()
	iss.JWTAccess = true
	w := newWorld(t, iss)
	token := w.exchange(w.authorize("resource", "https://api.test").Get("code")).want(t, 200, "").str("access_token")
	got := w.opened(token)
	if got["sub"] != "7" || got["client_id"] != "web" || got["scope"] != "read" || !strings.HasPrefix(got["jti"].(string), sandbox.AccessPrefix) ||
		got["exp"].(float64)-got["iat"].(float64) != 3600 {
		t.Errorf("got %v", got)
	}
	w.wantValid(token, true)
	w.srv.RotateKey("acme", false)
	w.opened(token) // the old key is still published
	w.srv.RotateKey("acme", true)
	var set struct{ Keys []struct{ Kid, Alg string } }
	if err := json.Unmarshal([]byte(w.get("/acme/jwks", "").text), &set); err != nil || len(set.Keys) != 1 || set.Keys[0].Alg != "RS256" {
		t.Errorf("got %v, %v, want the new key alone", set, err)
	}
	w.post("revoke", "token", token).want(t, 200, "")
	w.wantValid(token, false)
	cc := w.post("token", "grant_type", "client_credentials", "scope", "read").want(t, 200, "")
	if got := w.opened(cc.str("access_token")); got["sub"] != "web" || got["aud"].([]any)[0] != w.base+"/acme/resource" {
		t.Errorf("got %v", got)
	}
}

func TestUserinfoNeedsOpenID(t *testing.T) {
	w := newWorld(t, people())
	r := w.exchange(w.authorize("scope", "read").Get("code")).want(t, 200, "")
	if r.str("id_token") != "" {
		t.Error("got an id_token that nobody asked for")
	}
	if got := w.get("/acme/userinfo", r.str("access_token")); got.status != 403 || !strings.Contains(got.header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("got %d %v", got.status, got.header)
	}
	if got := w.get("/acme/userinfo", "x"); got.status != 401 {
		t.Errorf("got %d, want 401", got.status)
	}
}

func TestResourcesBoundARefresh(t *testing.T) {
	iss := people()
	iss.Resources = []string{"https://api.test", "https://files.test"}
	w := newWorld(t, iss)
	refresh := w.exchange(w.authorize("resource", "https://api.test").Get("code")).str("refresh_token")
	w.post("token", "grant_type", "refresh_token", "refresh_token", refresh, "resource", "https://files.test").want(t, 400, "invalid_target")
	w.post("token", "grant_type", "refresh_token", "refresh_token", refresh, "resource", "https://api.test").want(t, 200, "")
	w.post("token", "grant_type", "client_credentials", "resource", "https://api.test", "resource", "https://files.test").want(t, 200, "")
	w.post("token", "grant_type", "client_credentials", "resource", "https://else.test").want(t, 400, "invalid_target")
}
