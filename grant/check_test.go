package grant_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

func checkRequest(token string, scopes ...string) tokenbroker.CheckRequest {
	cred, client, secret := someone(scopes...)
	return tokenbroker.CheckRequest{Credential: cred, Client: client, Secret: secret, Token: tokenbroker.Token{AccessToken: tokenbroker.NewSecret(token), Type: "Bearer"}}
}

// only leaves a profile one way to check.
func only(p provider.Profile, way tokenbroker.CheckMethod) provider.Profile {
	if way != tokenbroker.CheckIntrospection {
		p.IntrospectionEndpoint = ""
	}
	if way != tokenbroker.CheckJWT {
		p.JWKSURI = ""
	}
	if way != tokenbroker.CheckTestCall {
		p.UserinfoEndpoint, p.TestEndpoint = "", ""
	}
	return p
}

func TestIntrospection(t *testing.T) {
	f := newFake(t)
	c := newClient(t, only(f.profile(t), tokenbroker.CheckIntrospection))
	yes := tokenbroker.CheckReply{Method: tokenbroker.CheckIntrospection, Active: true}
	full := yes
	full.Expiry, full.Scopes, full.Audience, full.Account = time.Unix(2000000000, 0), []string{"a", "b"}, []string{"https://api.example.com"}, "somebody"
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   tokenbroker.CheckReply
		class  tokenbroker.Class
		code   string
	}{
		{name: "active", status: 200, body: `{"active":true,"exp":2000000000,"scope":"b a","aud":"https://api.example.com","sub":"17","username":"somebody"}`, want: full},
		{name: "active, and no word more", status: 200, body: `{"active":true}`, want: yes},
		{name: "inactive", status: 200, body: `{"active":false,"scope":"a"}`, want: tokenbroker.CheckReply{Method: tokenbroker.CheckIntrospection, Code: "inactive"}},
		{name: "with things that can't be shown", status: 200, body: `{"active":true,"sub":"a\u001b","scope":"a\u0000 b","aud":["x\n"]}`,
			want: tokenbroker.CheckReply{Method: tokenbroker.CheckIntrospection, Active: true, Scopes: []string{"b"}}},
		{name: "a text for yes", status: 200, body: `{"active":"true"}`, class: config, code: "bad_introspection"},
		{name: "yes and no", status: 200, body: `{"active":true,"active":false}`, class: config, code: "bad_introspection"},
		{name: "nothing", status: 200, body: `{}`, class: config, code: "bad_introspection"},
		{name: "half of it", status: 200, body: `{"active":true,`, class: transient, code: "unreadable_reply"},
		{name: "a page", status: 200, body: `<html>`, class: transient, code: "unreadable_reply"},
		{name: "not for this client", status: 401, body: `{"error":"invalid_client"}`, class: config, code: "invalid_client"},
		{name: "in trouble", status: 502, body: `<html>`, class: transient, code: "http_502"},
		{name: "elsewhere", status: 302, class: transient, code: "redirect_refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.on("/introspect", tt.status, tt.body)
			got, err := c.Check(t.Context(), checkRequest(refreshCanary))
			if tt.code != "" {
				if f := failureOf(t, err); f.Class != tt.class || f.Code != tt.code || got.Active {
					t.Errorf("got %+v, %+v, want %s, %s", got, f, tt.class, tt.code)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	want := url.Values{"token": {refreshCanary}, "token_type_hint": {"access_token"}, "client_id": {"the client:1"}, "client_secret": {secretCanary}}
	if diff := cmp.Diff(want, f.requests("/introspect")[0].form); diff != "" {
		t.Errorf("form (-want +got):\n%s", diff)
	}
}

// TestScopesAreToldAsTheyWereAskedFor: what a check finds is compared with what the credential asks for.
func TestScopesAreToldAsTheyWereAskedFor(t *testing.T) {
	f := newFake(t)
	p := only(f.profile(t), tokenbroker.CheckIntrospection)
	p.ScopeResource, p.CatchAllScope, p.ScopeAliases = "https://graph.example/", "/.default", map[string]string{"r": "files.read"}
	for _, tt := range []struct{ name, says, asked, want string }{
		{"all of a resource", "User.Read https://graph.example/Mail.Read", "https://graph.example/.default", "https://graph.example/.default"},
		{"all of another resource", "User.Read", "https://other.example/.default", "User.Read"},
		{"without its resource", "Mail.Read", "https://graph.example/Mail.Read", "https://graph.example/Mail.Read"},
		{"with a blank too many", "  ", "https://graph.example/.default", ""},
		{"by another name, and more", "r mail.send", "files.read", "files.read mail.send"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.on("/introspect", 200, `{"active":true,"scope":"`+tt.says+`"}`)
			got, err := newClient(t, p).Check(t.Context(), checkRequest("at", strings.Fields(tt.asked)...))
			if said := strings.Join(got.Scopes, " "); err != nil || said != tt.want {
				t.Errorf("got %q, %v, want %q", said, err, tt.want)
			}
		})
	}
}

func TestAClockThatIsAheadIsTold(t *testing.T) {
	f := newFake(t)
	late := time.Now().Add(-10 * time.Minute).UTC().Format(http.TimeFormat)
	f.on("/introspect", 200, `{"active":true}`, "Date", late)
	got, err := newClient(t, only(f.profile(t), tokenbroker.CheckIntrospection)).Check(t.Context(), checkRequest("at"))
	if err != nil || got.Skew < 9*time.Minute {
		t.Errorf("got a skew of %v, %v, want 10 minutes or more on a slow machine", got.Skew, err)
	}
}

func TestTheTestCall(t *testing.T) {
	f := newFake(t)
	p := only(f.profile(t), tokenbroker.CheckTestCall)
	p.OKField, p.UserinfoEndpoint, p.TestEndpoint = "ok", "", f.URL+"/me"
	c := newClient(t, p)
	for _, tt := range []struct {
		name   string
		status int
		body   string
		header []string
		active bool
		code   string
		class  tokenbroker.Class
	}{
		{name: "yes", status: 200, body: `{"ok":true}`, active: true},
		{name: "yes, without content", status: 204, active: true},
		{name: "no", status: 401, body: `{"error":"` + replyCanary + `"}`, code: "http_401"},
		{name: "no, with 200", status: 200, body: `{"ok":false,"error":"token_expired"}`, code: "token_expired"},
		{name: "something else, with 200", status: 200, body: `{"ok":false,"error":"team_access_not_granted"}`, class: config, code: "team_access_not_granted"},
		{name: "not with these scopes", status: 403, header: []string{"WWW-Authenticate", `Bearer error="insufficient_scope"`}, active: true, code: "insufficient_scope"},
		{name: "not allowed", status: 403, active: true, code: "http_403"},
		{name: "too many", status: 429, header: []string{"Retry-After", "9"}, class: throttled, code: "http_429"},
		{name: "not there", status: 404, class: transient, code: "http_404"},
		{name: "elsewhere", status: 301, class: transient, code: "redirect_refused"},
		{name: "in trouble", status: 500, class: transient, code: "http_500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.on("/me", tt.status, tt.body, tt.header...)
			got, err := c.Check(t.Context(), checkRequest(refreshCanary))
			if tt.class != "" {
				if f := failureOf(t, err); f.Class != tt.class || f.Code != tt.code {
					t.Errorf("got %+v, want %s, %s", f, tt.class, tt.code)
				}
				return
			}
			want := tokenbroker.CheckReply{Method: tokenbroker.CheckTestCall, Active: tt.active, Code: tt.code}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	if got := f.requests("/me")[0].header.Get("Authorization"); got != "Bearer "+refreshCanary {
		t.Errorf("sent %q", got)
	}
}

func TestAnAPIKeyIsTestedInItsOwnHeader(t *testing.T) {
	f := newFake(t)
	f.on("/userinfo", 200, `{}`)
	p := f.profile(t)
	p.APIKeyHeader = "X-Api-Key"
	r := checkRequest("the key")
	r.Credential.Grant, r.Client = tokenbroker.GrantStatic, tokenbroker.OAuthClient{}
	got, err := newClient(t, p).Check(t.Context(), r)
	h := f.requests("/userinfo")[0].header
	if err != nil || !got.Active || h.Get("X-Api-Key") != "the key" || h.Get("Authorization") != "" {
		t.Errorf("got %+v, %v, sent %v", got, err, h)
	}
}

func TestWaysToCheck(t *testing.T) {
	const yes = `{"active":true}`
	for _, tt := range []struct {
		name  string
		edit  func(*provider.Profile, *tokenbroker.CheckRequest)
		reply int // of introspection
		want  tokenbroker.CheckMethod
		code  string
	}{
		{name: "introspection first", reply: 200, want: tokenbroker.CheckIntrospection},
		{name: "the test call, where introspection refuses the client", reply: 401, want: tokenbroker.CheckTestCall},
		{name: "no other one, where introspection is in trouble", reply: 503, code: "http_503"},
		{name: "the test call, for a public client", reply: 200, want: tokenbroker.CheckTestCall,
			edit: func(_ *provider.Profile, r *tokenbroker.CheckRequest) { r.Client.Auth = tokenbroker.AuthNone }},
		{name: "the test call, for a token that we signed", reply: 200, want: tokenbroker.CheckTestCall,
			edit: func(_ *provider.Profile, r *tokenbroker.CheckRequest) {
				r.Credential.Grant = tokenbroker.GrantSelfSignedJWT
			}},
		{name: "none", want: tokenbroker.CheckNone, edit: func(p *provider.Profile, _ *tokenbroker.CheckRequest) { *p = only(*p, tokenbroker.CheckNone) }},
		{name: "introspection's failure, where there is nothing else", reply: 401, code: "http_401",
			edit: func(p *provider.Profile, _ *tokenbroker.CheckRequest) { *p = only(*p, tokenbroker.CheckIntrospection) }},
		{name: "without a token", code: "token_missing", edit: func(_ *provider.Profile, r *tokenbroker.CheckRequest) { r.Token = tokenbroker.Token{} }},
		{name: "at another provider", code: "unknown_provider", edit: func(_ *provider.Profile, r *tokenbroker.CheckRequest) { r.Credential.Provider = "nobody" }},
		{name: "of a static token at another provider", code: "unknown_provider", edit: func(_ *provider.Profile, r *tokenbroker.CheckRequest) {
			r.Credential.Provider, r.Credential.Grant = "nobody", tokenbroker.GrantStatic
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on("/introspect", tt.reply, yes)
			f.on("/userinfo", 200, `{}`)
			p, r := f.profile(t), checkRequest("at")
			if tt.edit != nil {
				tt.edit(&p, &r)
			}
			got, err := newClient(t, p).Check(t.Context(), r)
			if tt.code != "" {
				if f := failureOf(t, err); f.Code != tt.code {
					t.Errorf("got %+v, want %s", f, tt.code)
				}
				return
			}
			if err != nil || got.Method != tt.want || got.Active != (tt.want != tokenbroker.CheckNone) {
				t.Errorf("got %+v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// signer is a provider's key.
type signer struct {
	key *ecdsa.PrivateKey
	id  string
}

func newSigner(t testing.TB, id string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, id}
}

func (s signer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Algorithm: "ES256", Use: "sig"}
}

// sign signs claims, under a key id that need not be its own.
func (s signer) sign(t testing.TB, id string, claims map[string]any) string {
	t.Helper()
	opts := &jose.SignerOptions{}
	if id != "" {
		opts = opts.WithHeader("kid", id)
	}
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := j.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// jwks is a set of keys, with some that nobody can use.
func jwks(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	list := []string{`{"kty":"oct","k":"AAAA","kid":"one"}`, `{"kty":"future"}`, `17`}
	for _, k := range keys {
		b, err := k.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(b))
	}
	return `{"keys":[` + strings.Join(list, ",") + `]}`
}

func TestJWTsAsTheyAreJudged(t *testing.T) {
	f := newFake(t)
	one, two := newSigner(t, "one"), newSigner(t, "two")
	f.on("/jwks", 200, jwks(t, one.public()))
	c := newClient(t, only(f.profile(t), tokenbroker.CheckJWT))
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	claims := func(change ...any) map[string]any {
		m := map[string]any{"iss": f.URL, "aud": []string{"https://api.example.com", "x"}, "exp": at(time.Hour), "sub": "17", "scope": "b a"}
		for i := 0; i+1 < len(change); i += 2 {
			m[change[i].(string)] = change[i+1]
		}
		return m
	}
	forged := strings.Split(one.sign(t, "one", claims()), ".")
	forged[1] = strings.Split(one.sign(t, "one", claims("sub", "root")), ".")[1]
	symmetric, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("k", 32))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hmac, err := symmetric.Sign([]byte(`{"sub":"17"}`))
	if err != nil {
		t.Fatal(err)
	}
	weak, err := hmac.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	audience := func(r *tokenbroker.CheckRequest) { r.Credential.Audience = "https://api.example.com" }
	for _, tt := range []struct {
		name, token, code string
		edit              func(*tokenbroker.CheckRequest)
	}{
		{name: "a good one", token: one.sign(t, "one", claims())},
		{name: "without a key id", token: one.sign(t, "", claims())},
		{name: "for the audience", token: one.sign(t, "one", claims()), edit: audience},
		{name: "for one of the resources", token: one.sign(t, "one", claims()), edit: func(r *tokenbroker.CheckRequest) { r.Credential.Resources = []string{"y", "x"} }},
		{name: "just past its end", token: one.sign(t, "one", claims("exp", at(-30*time.Second)))},
		{name: "just before its beginning", token: one.sign(t, "one", claims("nbf", at(30*time.Second)))},
		{name: "with a place for its keys, which nobody looks at", token: one.sign(t, "one", claims("jku", "https://evil.example/jwks"))},
		{name: "past its end", token: one.sign(t, "one", claims("exp", at(-2*time.Minute))), code: "expired"},
		{name: "before its beginning", token: one.sign(t, "one", claims("nbf", at(2*time.Minute))), code: "not_yet_valid"},
		{name: "of another issuer", token: one.sign(t, "one", claims("iss", "https://evil.example")), code: "wrong_issuer"},
		{name: "for another audience", token: one.sign(t, "one", claims("aud", "y")), edit: audience, code: "wrong_audience"},
		{name: "signed by another, under the name of the first", token: two.sign(t, "one", claims()), code: "bad_signature"},
		{name: "signed by another", token: two.sign(t, "two", claims()), code: "unknown_key"},
		{name: "changed on the way", token: strings.Join(forged, "."), code: "bad_signature"},
		{name: "signed with a secret", token: weak, code: "algorithm_not_allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := checkRequest(tt.token)
			if tt.edit != nil {
				tt.edit(&r)
			}
			got, err := c.Check(t.Context(), r)
			if err != nil || got.Method != tokenbroker.CheckJWT || got.Code != tt.code || got.Active != (tt.code == "") {
				t.Fatalf("got %+v, %v, want %q", got, err, tt.code)
			}
			if got.Active && (got.Account != "17" || fmt.Sprint(got.Scopes) != "[a b]" || got.Expiry.IsZero() || len(got.Audience) != 2) {
				t.Errorf("got %+v", got)
			}
			if text := fmt.Sprintf("%+v", got); strings.Contains(text, tt.token) || strings.Contains(text, strings.Split(tt.token, ".")[1]) {
				t.Error("the reply holds the token")
			}
		})
	}
}

func TestKeysAreFetchedAgainOnceForAnUnknownKey(t *testing.T) {
	f := newFake(t)
	old, fresh := newSigner(t, "old"), newSigner(t, "new")
	f.on("/jwks", 200, jwks(t, old.public()))
	c := newClient(t, only(f.profile(t), tokenbroker.CheckJWT))
	claims := map[string]any{"iss": f.URL, "exp": time.Now().Add(time.Hour).Unix()}
	check := func(s signer) string {
		t.Helper()
		got, err := c.Check(t.Context(), checkRequest(s.sign(t, s.id, claims)))
		if err != nil {
			t.Fatal(err)
		}
		return got.Code
	}
	for range 3 {
		if got := check(old); got != "" {
			t.Fatalf("got %q", got)
		}
	}
	if got := len(f.requests("/jwks")); got != 1 {
		t.Errorf("the keys were fetched %d times, want once", got)
	}
	f.on("/jwks", 200, jwks(t, old.public(), fresh.public()))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { check(fresh) })
	}
	wg.Wait()
	if got := len(f.requests("/jwks")); got != 1 {
		t.Errorf("unknown keys had them fetched %d times within a minute of the first, want never", got-1)
	}
}

func TestKeysThatCannotBeHad(t *testing.T) {
	f := newFake(t)
	one := newSigner(t, "one")
	token := one.sign(t, "one", map[string]any{"iss": f.URL})
	for body, want := range map[string]string{
		"<html>":                            "bad_jwks",
		`{"keys":"x"}`:                      "bad_jwks",
		strings.Repeat(" ", 513<<10) + "{}": "reply_too_large",
		`{"keys":[` + strings.Repeat("1,", 200) + "1]}": "bad_jwks",
	} {
		f.on("/jwks", 200, body)
		_, err := newClient(t, only(f.profile(t), tokenbroker.CheckJWT)).Check(t.Context(), checkRequest(token))
		if got := failureOf(t, err); got.Code != want || got.Class != transient {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	f.on("/jwks", 302, "", "Location", f.URL+"/elsewhere")
	_, err := newClient(t, only(f.profile(t), tokenbroker.CheckJWT)).Check(t.Context(), checkRequest(token))
	if got := failureOf(t, err); got.Code != "http_302" || len(f.requests("/elsewhere")) != 0 {
		t.Errorf("got %+v", got)
	}
}
