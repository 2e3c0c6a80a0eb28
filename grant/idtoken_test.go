package grant_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// unsigned is a JWT that nobody looks at the signature of.
func unsigned(t testing.TB, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return part(map[string]string{"alg": "RS256"}) + "." + part(claims) + ".c2ln"
}

func TestIDTokensAsTheyAreJudged(t *testing.T) {
	f := newFake(t)
	good := func(change ...any) string {
		claims := map[string]any{
			"iss": f.URL, "aud": "the client:1", "nonce": "the nonce", "exp": time.Now().Add(time.Hour).Unix(), "sub": "17", "email": "who@example.com",
		}
		for i := 0; i+1 < len(change); i += 2 {
			claims[change[i].(string)] = change[i+1]
			if change[i+1] == nil {
				delete(claims, change[i].(string))
			}
		}
		return unsigned(t, claims)
	}
	twice := strings.Split(good(), ".")
	twice[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + f.URL + `","aud":"the client:1","aud":"another","nonce":"the nonce","exp":99999999999}`))
	for _, tt := range []struct {
		name, token, code, account string
		class                      tokenbroker.Class
	}{
		{name: "a good one", token: good(), account: "who@example.com"},
		{name: "for several, this one among them", token: good("aud", []string{"other", "the client:1"}, "azp", "the client:1"), account: "who@example.com"},
		{name: "without an email", token: good("email", nil), account: "17"},
		{name: "with an email that nobody verified", token: good("email_verified", false), account: "17"},
		{name: "with an email for a terminal", token: good("email", "a\x1b[2J"), account: "17"},
		{name: "just past its end", token: good("exp", time.Now().Add(-30*time.Second).Unix()), account: "who@example.com"},
		{name: "of another issuer", token: good("iss", "https://evil.example"), class: config, code: "id_token_wrong_issuer"},
		{name: "of no issuer", token: good("iss", nil), class: config, code: "id_token_wrong_issuer"},
		{name: "for another client", token: good("aud", "another"), class: config, code: "id_token_wrong_audience"},
		{name: "for nobody", token: good("aud", nil), class: config, code: "id_token_wrong_audience"},
		{name: "by another client's request", token: good("aud", []string{"other", "the client:1"}, "azp", "other"), class: config, code: "id_token_wrong_audience"},
		{name: "of another consent", token: good("nonce", "another"), class: config, code: "id_token_wrong_nonce"},
		{name: "of no consent", token: good("nonce", nil), class: config, code: "id_token_wrong_nonce"},
		{name: "past its end", token: good("exp", time.Now().Add(-2*time.Minute).Unix()), class: skew, code: "id_token_expired"},
		{name: "without an end", token: good("exp", nil), class: skew, code: "id_token_expired"},
		{name: "with two audiences in two members", token: strings.Join(twice, "."), class: config, code: "id_token_unreadable"},
		{name: "without a signature", token: strings.TrimSuffix(good(), "c2ln"), class: config, code: "id_token_unreadable"},
		{name: "that is none", token: "x.y.z", class: config, code: "id_token_unreadable"},
		{name: "encrypted", token: good() + ".x.y", class: config, code: "id_token_unreadable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.on("/token", 200, `{"access_token":"at","expires_in":3600,"refresh_token":"r1","id_token":"`+tt.token+`"}`)
			out, err := newClient(t, f.profile(t)).Redeem(t.Context(), codeRequest("openid"))
			if out.RefreshToken.Reveal() != "r1" {
				t.Error("the refresh token is lost: nobody can revoke it")
			}
			if tt.code == "" {
				if err != nil || out.Account != tt.account {
					t.Errorf("got %q, %v, want %q", out.Account, err, tt.account)
				}
				return
			}
			if f := failureOf(t, err); f.Code != tt.code || f.Class != tt.class || out.Token != nil || out.Account != "" {
				t.Errorf("got %+v, %+v, want %s", out, f, tt.code)
			}
		})
	}
}

func TestAnIDTokenThatWasNotAskedForNeedsNoNonce(t *testing.T) {
	f := newFake(t)
	token := unsigned(t, map[string]any{"iss": f.URL, "aud": "the client:1", "exp": time.Now().Add(time.Hour).Unix(), "sub": "17"})
	f.on("/token", 200, `{"access_token":"at","id_token":"`+token+`"}`)
	out, err := newClient(t, f.profile(t)).Redeem(t.Context(), codeRequest("files"))
	if err != nil || out.Account != "17" {
		t.Errorf("got %q, %v", out.Account, err)
	}
}

func TestGoogleLeavesTheSchemeOut(t *testing.T) {
	token := unsigned(t, map[string]any{"iss": "accounts.google.com", "aud": "the client:1", "exp": time.Now().Add(time.Hour).Unix(), "sub": "17"})
	p := provider.Profile{TokenEndpoint: "https://oauth2.googleapis.com/token", Issuer: "https://accounts.google.com", Account: []string{"id_token.sub"}}
	c := newClient(t, p, canned(200, `{"access_token":"at","id_token":"`+token+`"}`, http.Header{}))
	out, err := c.Redeem(t.Context(), codeRequest())
	if err != nil || out.Account != "17" {
		t.Errorf("got %q, %v", out.Account, err)
	}
}

func TestWhoseAccountItIs(t *testing.T) {
	f := newFake(t)
	identity := map[string]any{"iss": f.URL, "aud": "the client:1", "exp": time.Now().Add(time.Hour).Unix(), "sub": "17"}
	with := func(k string, v any) map[string]any {
		claims := maps.Clone(identity)
		claims[k] = v
		return claims
	}
	for _, tt := range []struct {
		name     string
		paths    []string
		claims   map[string]any
		status   int
		userinfo string
		want     string
		asked    int
	}{
		{name: "from the reply", paths: []string{"team.name"}, want: "The Team"},
		{name: "a number in the reply", paths: []string{"team.id"}, want: "42"},
		{name: "from the first place that has one", paths: []string{"id_token.email", "team.name", "userinfo.login"}, claims: identity, want: "The Team"},
		{name: "from the id_token", paths: []string{"id_token.email", "team.name"}, claims: with("email", "who@example.com"), want: "who@example.com"},
		{name: "from userinfo", paths: []string{"userinfo.login"}, status: 200, userinfo: `{"login":"somebody"}`, want: "somebody", asked: 1},
		{name: "from userinfo, asked once", paths: []string{"userinfo.a", "userinfo.b", "userinfo.c"}, status: 200, userinfo: `{"c":"somebody"}`, want: "somebody", asked: 1},
		{name: "from nested userinfo", paths: []string{"userinfo.user.email"}, status: 200, userinfo: `{"user":{"email":"who@example.com"}}`, want: "who@example.com", asked: 1},
		{name: "userinfo about another", paths: []string{"userinfo.email"}, claims: identity, status: 200, userinfo: `{"sub":"18","email":"evil@example.com"}`, asked: 1},
		{name: "userinfo with an unverified email", paths: []string{"userinfo.email"}, status: 200, userinfo: `{"email":"evil@example.com","email_verified":false}`, asked: 1},
		{name: "userinfo in trouble", paths: []string{"userinfo.login"}, status: 500, userinfo: `{"login":"somebody"}`, asked: 1},
		{name: "userinfo elsewhere", paths: []string{"userinfo.login"}, status: 302, userinfo: `{"login":"somebody"}`, asked: 1},
		{name: "userinfo that is a page", paths: []string{"userinfo.login"}, status: 200, userinfo: `<html>`, asked: 1},
		{name: "nowhere", paths: []string{"id_token.email", "user"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply := `{"access_token":"at","expires_in":3600,"team":{"id":42,"name":"The Team"}`
			if tt.claims != nil {
				reply += `,"id_token":"` + unsigned(t, tt.claims) + `"`
			}
			f.on("/token", 200, reply+"}")
			f.on("/userinfo", tt.status, tt.userinfo, "Location", f.URL+"/elsewhere")
			before := len(f.requests("/userinfo"))
			p := f.profile(t)
			p.Account = tt.paths
			out, err := newClient(t, p).Redeem(t.Context(), codeRequest())
			if err != nil || out.Account != tt.want || out.Token == nil {
				t.Errorf("got %q, %v, want %q", out.Account, err, tt.want)
			}
			got := f.requests("/userinfo")[before:]
			if len(got) != tt.asked {
				t.Fatalf("userinfo was asked %d times, want %d", len(got), tt.asked)
			}
			if tt.asked > 0 && (got[0].header.Get("Authorization") != "Bearer at" || got[0].method != http.MethodGet) {
				t.Errorf("userinfo was asked by %s with %q", got[0].method, got[0].header.Get("Authorization"))
			}
		})
	}
	if got := len(f.requests("/elsewhere")); got != 0 {
		t.Error("a redirect was followed with a token")
	}
}
