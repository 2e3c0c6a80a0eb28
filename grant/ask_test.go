package grant_test

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const plainReply = `{"access_token":"at","token_type":"bearer","expires_in":3600}`

func TestRequestsAsSent(t *testing.T) {
	auth := func(r tokenbroker.ExchangeRequest, m tokenbroker.AuthMethod) tokenbroker.ExchangeRequest {
		r.Client.Auth = m
		if m == tokenbroker.AuthNone {
			r.Secret = tokenbroker.ClientSecret{}
		}
		return r
	}
	variant := func(r tokenbroker.ExchangeRequest, audience string, scopes ...string) tokenbroker.ExchangeRequest {
		r.Variant = tokenbroker.NewVariant(scopes, "", audience)
		return r
	}
	const id, secret = "the client:1", secretCanary
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		request tokenbroker.ExchangeRequest
		want    url.Values
		basic   [2]string // user and password as they are on the wire
	}{
		{
			name: "client credentials, secret in the body", request: ccRequest("b", "a"),
			want: url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "client credentials without scopes", request: ccRequest(),
			want: url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "basic is form-encoded", request: auth(ccRequest(), tokenbroker.AuthClientSecretBasic),
			want: url.Values{"grant_type": {"client_credentials"}}, basic: [2]string{"the+client%3A1", "s3cr3t-Canary%2F%2B+of%3Aclient"},
		},
		{
			name: "basic is raw where the profile says so", profile: provider.Profile{RawBasic: new(true)},
			request: func() tokenbroker.ExchangeRequest {
				r := auth(ccRequest(), tokenbroker.AuthClientSecretBasic)
				r.Client.ClientID = "client/1"
				return r
			}(),
			want: url.Values{"grant_type": {"client_credentials"}}, basic: [2]string{"client/1", secret},
		},
		{
			name: "refresh leaves the scopes out", request: refreshRequest("a", "b"),
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshCanary}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "refresh of a public client", request: auth(refreshRequest("a"), tokenbroker.AuthNone),
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshCanary}, "client_id": {id}},
		},
		{
			name: "refresh with scopes where the profile wants them", profile: provider.Profile{ScopeOnRefresh: new(true), ScopeSeparator: ","},
			request: refreshRequest("b", "a"),
			want:    url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshCanary}, "scope": {"a,b"}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "fewer scopes are asked for", profile: provider.Profile{Downscopes: new(true)}, request: variant(refreshRequest("a", "b"), "", "b"),
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshCanary}, "scope": {"b"}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "audience", request: variant(ccRequest(), "https://api.example.com"),
			want: url.Values{"grant_type": {"client_credentials"}, "audience": {"https://api.example.com"}, "client_id": {id}, "client_secret": {secret}},
		},
		{
			name: "resource, and fields of the profile", request: variant(ccRequest(), "https://api.example.com"),
			profile: provider.Profile{AudienceParameter: "resource", TokenParams: map[string]string{"tenant": "7", "resource": "default"}},
			want: url.Values{
				"grant_type": {"client_credentials"}, "resource": {"https://api.example.com"}, "tenant": {"7"},
				"client_id": {id}, "client_secret": {secret},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply := reply(200, "application/json", `{"access_token":"at","expires_in":60,"scope":"b"}`)
			s := serve(t, reply)
			p := trusting(t, s)
			tt.profile.TokenEndpoint, tt.profile.AllowPrivate, tt.profile.CAFile = p.TokenEndpoint, true, p.CAFile
			if _, err := newClient(t, tt.profile).Exchange(t.Context(), tt.request); err != nil {
				t.Fatal(err)
			}
			got := s.requests()
			if len(got) != 1 {
				t.Fatalf("got %d requests, want 1", len(got))
			}
			if diff := cmp.Diff(tt.want, got[0].form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			h := got[0].header
			user, password, _ := basicAuth(h)
			if user != tt.basic[0] || password != tt.basic[1] {
				t.Errorf("basic: got %q, %q, want %q", user, password, tt.basic)
			}
			if h.Get("Accept") != "application/json" || h.Get("Content-Type") != "application/x-www-form-urlencoded" || h.Get("Accept-Encoding") != "identity" {
				t.Errorf("header: got %v", h)
			}
		})
	}
}

func TestRequestsThatAreNotSent(t *testing.T) {
	s := serve(t, reply(200, "", plainReply))
	c := newClient(t, trusting(t, s))
	for _, tt := range []struct {
		name, code string
		change     func(*tokenbroker.ExchangeRequest)
	}{
		{"another provider", "unknown_provider", func(r *tokenbroker.ExchangeRequest) { r.Credential.Provider = "nobody" }},
		{"a client of another provider", "client_of_another_provider", func(r *tokenbroker.ExchangeRequest) { r.Client.Provider = "other" }},
		{"another grant", "unsupported_grant_type", func(r *tokenbroker.ExchangeRequest) { r.Credential.Grant = "password" }},
		{"no client id", "client_id_missing", func(r *tokenbroker.ExchangeRequest) { r.Client.ClientID = "" }},
		{"no secret", "client_secret_missing", func(r *tokenbroker.ExchangeRequest) { r.Secret = tokenbroker.ClientSecret{} }},
		{"another auth method", "auth_method_not_allowed", func(r *tokenbroker.ExchangeRequest) { r.Client.Auth = "bearer" }},
		{"no refresh token", "refresh_token_missing", func(r *tokenbroker.ExchangeRequest) { r.RefreshToken = tokenbroker.Secret{} }},
		{"a subject", "subject_not_supported", func(r *tokenbroker.ExchangeRequest) { r.Variant.Subject = "somebody" }},
		{"a scope beyond the grant", "invalid_scope", func(r *tokenbroker.ExchangeRequest) { r.Variant.Scopes = []string{"a", "admin"} }},
		{"fewer scopes", "downscope_not_supported", func(r *tokenbroker.ExchangeRequest) { r.Variant.Scopes = []string{"a"} }},
		{"a scope of a grant without known scopes", "downscope_not_supported", func(r *tokenbroker.ExchangeRequest) {
			r.Credential.Scopes, r.Variant.Scopes = nil, []string{"a"}
		}},
		{"a public client by client credentials", "client_is_public", func(r *tokenbroker.ExchangeRequest) {
			r.Credential.Grant, r.Client.Auth = tokenbroker.GrantClientCredentials, tokenbroker.AuthNone
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := refreshRequest("a", "b")
			tt.change(&r)
			out, err := c.Exchange(t.Context(), r)
			f := failureOf(t, err)
			want := tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: tt.code}
			if *f != want || out.Token != nil {
				t.Errorf("got %+v, want %+v", *f, want)
			}
		})
	}
	if got := len(s.requests()); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

func TestScopesAreAskedForInFullOnlyIfTheyAreAllThere(t *testing.T) {
	s := serve(t, reply(200, "", plainReply))
	r := refreshRequest("b", "a", "a")
	r.Variant = tokenbroker.NewVariant([]string{"a", "b"}, "", "")
	out, err := newClient(t, trusting(t, s)).Exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out.Token.Scopes, []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("scopes: got %v, want %v", got, want)
	}
}

func TestLifeCountsFromTheMomentOfSending(t *testing.T) {
	s := serve(t, reply(200, "", `{"access_token":"at","expires_in":100,"refresh_token":"r2","refresh_token_expires_in":1000}`))
	before := time.Now()
	out, err := newClient(t, trusting(t, s)).Exchange(t.Context(), refreshRequest())
	if err != nil {
		t.Fatal(err)
	}
	if out.Sent.Before(before) || out.Sent.After(time.Now()) || !out.Token.Obtained.Equal(out.Sent) {
		t.Errorf("sent %v, obtained %v, not before %v", out.Sent, out.Token.Obtained, before)
	}
	if got, want := out.Token.Life(), 100*time.Second; got != want {
		t.Errorf("life: got %v, want %v", got, want)
	}
	if got, want := out.RefreshEnd.Sub(out.Sent), 1000*time.Second; got != want {
		t.Errorf("refresh life: got %v, want %v", got, want)
	}
}

func TestConnectionsAreSharedOnlyByRequestsThatMayBeRepeated(t *testing.T) {
	for _, tt := range []struct {
		name    string
		rotates bool
		request tokenbroker.ExchangeRequest
		want    int
	}{
		{"client credentials", true, ccRequest(), 1},
		{"a refresh token that stays", false, refreshRequest(), 1},
		{"a refresh token that rotates", true, refreshRequest(), 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, reply(200, "", plainReply))
			p := trusting(t, s)
			p.Rotates = &tt.rotates
			c := newClient(t, p)
			for range 3 {
				if _, err := c.Exchange(t.Context(), tt.request); err != nil {
					t.Fatal(err)
				}
			}
			remotes := map[string]bool{}
			for _, r := range s.requests() {
				remotes[r.remote] = true
			}
			if len(remotes) != tt.want {
				t.Errorf("got %d connections, want %d", len(remotes), tt.want)
			}
		})
	}
}
