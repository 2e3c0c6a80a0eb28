package grant_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

const verifier = "r3fresh-Canary-of-the-grant-0123456789-0123456789" // longer than 43

const callback = "http://127.0.0.1:4711/callback"

func authorization(scopes ...string) tokenbroker.AuthorizationRequest {
	cred, client, _ := someone(scopes...)
	return tokenbroker.AuthorizationRequest{
		Credential: cred, Client: client, RedirectURI: callback, State: "the state", Nonce: "the nonce", Verifier: tokenbroker.NewSecret(verifier),
	}
}

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestAuthorizationURLs(t *testing.T) {
	const at = "https://login.example.com/authorize"
	usual := func(change ...string) url.Values {
		v := url.Values{
			"response_type": {"code"}, "client_id": {"the client:1"}, "redirect_uri": {callback}, "state": {"the state"},
			"code_challenge": {challenge()}, "code_challenge_method": {"S256"}, "scope": {"b a"},
		}
		for i := 0; i+1 < len(change); i += 2 {
			v.Del(change[i])
			if change[i+1] != "" {
				v.Set(change[i], change[i+1])
			}
		}
		return v
	}
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		edit    func(*tokenbroker.AuthorizationRequest)
		want    url.Values
	}{
		{name: "a plain one", want: usual()},
		{name: "with a nonce where an id_token is asked for", edit: func(r *tokenbroker.AuthorizationRequest) { r.Scopes = []string{"openid"} },
			want: usual("scope", "openid", "nonce", "the nonce")},
		{name: "with the profile's parameters, those of the protocol over them",
			profile: provider.Profile{AuthorizationParams: map[string]string{"access_type": "offline", "prompt": "consent"}},
			want:    usual("access_type", "offline", "prompt", "consent")},
		{name: "with the profile's scopes, each once", profile: provider.Profile{ConsentScopes: []string{"a", "offline_access"}}, want: usual("scope", "b a offline_access")},
		{name: "with scopes as the provider spells them", profile: provider.Profile{ScopeParameter: "user_scope", ScopeSeparator: ","},
			want: usual("scope", "", "user_scope", "b,a")},
		{name: "without scopes", edit: func(r *tokenbroker.AuthorizationRequest) { r.Credential.Scopes = nil }, want: usual("scope", "")},
		{name: "with a hint", edit: func(r *tokenbroker.AuthorizationRequest) { r.LoginHint = "a+b@example.com" }, want: usual("login_hint", "a+b@example.com")},
		{name: "with an audience", edit: func(r *tokenbroker.AuthorizationRequest) { r.Credential.Audience = "https://api.example.com" },
			want: usual("audience", "https://api.example.com")},
		{name: "with resources", profile: provider.Profile{AudienceParameter: "resource"},
			edit: func(r *tokenbroker.AuthorizationRequest) {
				r.Credential.Resources, r.Credential.Audience = []string{"https://one.example.com"}, "https://one.example.com"
			},
			want: usual("resource", "https://one.example.com")},
		{name: "without PKCE where the provider refuses it", profile: provider.Profile{PKCE: "off"}, want: usual("code_challenge", "", "code_challenge_method", "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.profile.TokenEndpoint, tt.profile.AuthorizationEndpoint = "https://login.example.com/token", at+"?tenant=7"
			r := authorization("b", "a")
			if tt.edit != nil {
				tt.edit(&r)
			}
			got, err := newClient(t, tt.profile).AuthorizationURL(r)
			if err != nil {
				t.Fatal(err)
			}
			rest, ok := strings.CutPrefix(got, at+"?")
			v, err := url.ParseQuery(rest)
			tt.want.Set("tenant", "7")
			if diff := cmp.Diff(tt.want, v); !ok || err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", got, err, diff)
			}
			if strings.Contains(got, verifier) || strings.Contains(rest, "+") {
				t.Errorf("%s tells the verifier, or has a blank that some servers don't know", got)
			}
		})
	}
}

func TestConsentsThatAreNotBegun(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		profile    provider.Profile
		edit       func(*tokenbroker.AuthorizationRequest)
	}{
		{name: "without an endpoint", want: "authorization_not_supported", profile: provider.Profile{AuthorizationEndpoint: "-"}},
		{name: "without state", want: "state_missing", edit: func(r *tokenbroker.AuthorizationRequest) { r.State = "" }},
		{name: "without a redirect URI", want: "redirect_uri_missing", edit: func(r *tokenbroker.AuthorizationRequest) { r.RedirectURI = "" }},
		{name: "without a verifier", want: "bad_code_verifier", edit: func(r *tokenbroker.AuthorizationRequest) { r.Verifier = tokenbroker.Secret{} }},
		{name: "with a short verifier", want: "bad_code_verifier", edit: func(r *tokenbroker.AuthorizationRequest) { r.Verifier = tokenbroker.NewSecret("short") }},
		{name: "by a public client without PKCE", want: "pkce_required", profile: provider.Profile{PKCE: "off"},
			edit: func(r *tokenbroker.AuthorizationRequest) { r.Client.Auth = tokenbroker.AuthNone }},
		{name: "for two scopes in one", want: "invalid_scope", edit: func(r *tokenbroker.AuthorizationRequest) { r.Scopes = []string{"a b"} }},
		{name: "at another provider", want: "unknown_provider", edit: func(r *tokenbroker.AuthorizationRequest) { r.Credential.Provider = "nobody" }},
		{name: "by another provider's client", want: "client_of_another_provider", edit: func(r *tokenbroker.AuthorizationRequest) { r.Client.Provider = "nobody" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.profile.TokenEndpoint = "https://login.example.com/token"
			switch tt.profile.AuthorizationEndpoint {
			case "":
				tt.profile.AuthorizationEndpoint = "https://login.example.com/authorize"
			case "-":
				tt.profile.AuthorizationEndpoint = ""
			}
			r := authorization("a")
			if tt.edit != nil {
				tt.edit(&r)
			}
			got, err := newClient(t, tt.profile).AuthorizationURL(r)
			if f := failureOf(t, err); f.Code != tt.want || f.Class != config || f.Sent || got != "" {
				t.Errorf("got %q, %+v, want %s", got, f, tt.want)
			}
		})
	}
}

func codeRequest(scopes ...string) tokenbroker.CodeRequest {
	cred, client, secret := someone(scopes...)
	return tokenbroker.CodeRequest{
		Credential: cred, Client: client, Secret: secret, Code: tokenbroker.NewSecret(refreshCanary), Verifier: tokenbroker.NewSecret(verifier),
		RedirectURI: callback, Nonce: "the nonce",
	}
}

func TestACodeIsRedeemedOnceWithItsVerifier(t *testing.T) {
	f := newFake(t)
	f.on("/token", 200, `{"access_token":"at","expires_in":3600,"token_type":"Bearer","refresh_token":"r1","scope":"drive.readonly mail"}`)
	p := f.profile(t)
	p.ScopeAliases = map[string]string{"mail": "https://scopes.example.com/mail"}
	p.TokenParams = map[string]string{"tenant": "7"}
	r := codeRequest("a")
	r.Credential.Resources = []string{"https://one.example.com", "https://two.example.com"}
	out, err := newClient(t, p).Redeem(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	got := f.requests("/token")
	want := url.Values{
		"grant_type": {"authorization_code"}, "code": {refreshCanary}, "redirect_uri": {callback}, "code_verifier": {verifier}, "tenant": {"7"},
		"client_id": {"the client:1"}, "client_secret": {secretCanary}, "resource": {"https://one.example.com", "https://two.example.com"},
	}
	if len(got) != 1 {
		t.Fatalf("got %d requests, want one", len(got))
	}
	if diff := cmp.Diff(want, got[0].form); diff != "" {
		t.Errorf("form (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"drive.readonly", "https://scopes.example.com/mail"}, out.Granted); diff != "" {
		t.Errorf("granted (-want +got):\n%s", diff)
	}
	if out.RefreshToken.Reveal() != "r1" || out.Token.AccessToken.Reveal() != "at" || out.Account != "" {
		t.Errorf("got %+v", out)
	}
}

func TestWhatRedeemingACodeBrings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   outcome
	}{
		{"no refresh token", 200, usual, outcome{access: "at", life: time.Hour}},
		{"a code that is spent", 400, `{"error":"invalid_grant"}`, bad(dead, "invalid_grant")},
		{"a client that is not known", 401, `{"error":"invalid_client"}`, bad(config, "invalid_client")},
		{"GitHub's error with 200", 200, `{"error":"bad_verification_code"}`, bad(config, "bad_verification_code")},
		{"an echo of the code", 400, `{"error":"` + refreshCanary + `"}`, bad(config, "unparsable_error")},
		{"a reply that is cut", 200, `{"refresh_token":"r1","access_token":"a`, outcome{class: ambiguous, code: "unreadable_reply", refresh: "r1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on("/token", tt.status, tt.body)
			out, err := newClient(t, f.profile(t)).Redeem(t.Context(), codeRequest())
			if diff := cmp.Diff(tt.want, outcomeOf(t, out, err), cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if got := len(f.requests("/token")); got != 1 {
				t.Errorf("sent %d times", got)
			}
		})
	}
}

func TestCodesThatAreNotSent(t *testing.T) {
	f := newFake(t)
	c := newClient(t, f.profile(t))
	for want, edit := range map[string]func(*tokenbroker.CodeRequest){
		"code_missing":          func(r *tokenbroker.CodeRequest) { r.Code = tokenbroker.Secret{} },
		"redirect_uri_missing":  func(r *tokenbroker.CodeRequest) { r.RedirectURI = "" },
		"bad_code_verifier":     func(r *tokenbroker.CodeRequest) { r.Verifier = tokenbroker.NewSecret("?") },
		"client_secret_missing": func(r *tokenbroker.CodeRequest) { r.Secret = tokenbroker.ClientSecret{} },
		"client_id_missing":     func(r *tokenbroker.CodeRequest) { r.Client.ClientID = "" },
	} {
		r := codeRequest()
		edit(&r)
		out, err := c.Redeem(t.Context(), r)
		if f := failureOf(t, err); f.Code != want || f.Sent || out.Token != nil {
			t.Errorf("got %+v, want %s", f, want)
		}
	}
	if got := len(f.requests("/token")); got != 0 {
		t.Errorf("sent %d requests", got)
	}
}

func TestS27ARedirectIsNotFollowedWithACode(t *testing.T) {
	f := newFake(t)
	f.on("/token", 307, "", "Location", f.URL+"/other")
	_, err := newClient(t, f.profile(t)).Redeem(t.Context(), codeRequest())
	if got := failureOf(t, err); got.Code != "redirect_refused" {
		t.Errorf("got %+v", got)
	}
	if got := len(f.requests("/other")); got != 0 {
		t.Errorf("the code went on to another place")
	}
}

func TestCallbacks(t *testing.T) {
	const issuer = "https://login.example.com"
	p := provider.Profile{TokenEndpoint: issuer + "/token", Issuer: issuer}
	promising := p
	promising.IssParameter = new(true)
	for _, tt := range []struct {
		name, query string
		promised    bool
		class       tokenbroker.Class
		code        string
	}{
		{name: "with a code", query: "code=x&state=s"},
		{name: "with the issuer", query: "code=x&state=s&iss=https://login.example.com", promised: true},
		{name: "of another issuer", query: "code=x&state=s&iss=https://evil.example", class: config, code: "iss_mismatch"},
		{name: "of another issuer, with an error", query: "error=access_denied&iss=https://evil.example", class: config, code: "iss_mismatch"},
		{name: "of the issuer with a slash", query: "code=x&iss=https://login.example.com/", class: config, code: "iss_mismatch"},
		{name: "without the issuer that was promised", query: "code=x&state=s", promised: true, class: config, code: "iss_missing"},
		{name: "with two codes", query: "code=x&code=y", class: config, code: "repeated_parameter"},
		{name: "with two issuers", query: "code=x&iss=https://login.example.com&iss=https://evil.example", class: config, code: "repeated_parameter"},
		{name: "with a token of the implicit grant", query: "access_token=a&token_type=Bearer&state=s", class: config, code: "token_in_callback"},
		{name: "with a token beside the code", query: "code=x&state=s&id_token=a", class: config, code: "token_in_callback"},
		{name: "with nothing", query: "state=s", class: config, code: "code_missing"},
		{name: "denied", query: "error=access_denied&error_description=" + replyCanary, class: dead, code: "access_denied"},
		{name: "refused for its scope", query: "error=invalid_scope", class: config, code: "invalid_scope"},
		{name: "in trouble", query: "error=temporarily_unavailable", class: transient, code: "temporarily_unavailable"},
		{name: "with an error that is none", query: "error=%3Cscript%3E", class: config, code: "unparsable_error"},
		{name: "with the state for an error", query: "error=" + strings.ToLower(refreshCanary) + "&state=" + refreshCanary, class: config, code: "unparsable_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c *grant.Client
			if c = newClient(t, p); tt.promised {
				c = newClient(t, promising)
			}
			q, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			err = c.CheckCallback("acme", q)
			if tt.code == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if f := failureOf(t, err); f.Code != tt.code || f.Class != tt.class {
				t.Errorf("got %+v, want %s, %s", f, tt.class, tt.code)
			}
		})
	}
}
