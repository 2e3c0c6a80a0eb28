package grant_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

func revokeRequest(kind tokenbroker.TokenKind) tokenbroker.RevokeRequest {
	cred, client, secret := someone()
	return tokenbroker.RevokeRequest{Credential: cred, Client: client, Secret: secret, Token: tokenbroker.NewSecret(refreshCanary), Kind: kind}
}

func TestRevocationsAsTheyAreAsked(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for _, tt := range []struct {
		name, style string
		kind        tokenbroker.TokenKind
		public      bool
		method      string
		body        string
		auth        string
		content     string
	}{
		{name: "by RFC 7009", kind: tokenbroker.RefreshTokenKind, method: http.MethodPost, content: form,
			body: "client_id=the+client%3A1&client_secret=s3cr3t-Canary%2F%2B+of%3Aclient&token=" + refreshCanary + "&token_type_hint=refresh_token"},
		{name: "by a public client", kind: tokenbroker.AccessTokenKind, public: true, method: http.MethodPost, content: form,
			body: "client_id=the+client%3A1&token=" + refreshCanary + "&token_type_hint=access_token"},
		{name: "with the token as bearer", style: "bearer", kind: tokenbroker.AccessTokenKind, method: http.MethodPost, auth: "Bearer " + refreshCanary},
		{name: "with the token alone", style: "query", kind: tokenbroker.RefreshTokenKind, method: http.MethodPost, content: form, body: "token=" + refreshCanary},
		{name: "at GitHub", style: "github", kind: tokenbroker.AccessTokenKind, method: http.MethodDelete, content: "application/json",
			body: `{"access_token":"` + refreshCanary + `"}`,
			auth: "Basic " + base64.StdEncoding.EncodeToString([]byte("the+client%3A1:s3cr3t-Canary%2F%2B+of%3Aclient"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on("/revoke", 200, "")
			p := f.profile(t)
			p.RevocationStyle = tt.style
			r := revokeRequest(tt.kind)
			if tt.public {
				r.Client.Auth, r.Secret = tokenbroker.AuthNone, tokenbroker.ClientSecret{}
			}
			if err := newClient(t, p).Revoke(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got := f.requests("/revoke")
			if len(got) != 1 {
				t.Fatalf("got %d requests", len(got))
			}
			h := got[0].header
			if got[0].method != tt.method || got[0].body != tt.body || h.Get("Authorization") != tt.auth || h.Get("Content-Type") != tt.content {
				t.Errorf("got %s %q, %q, %q", got[0].method, got[0].body, h.Get("Authorization"), h.Get("Content-Type"))
			}
		})
	}
}

func TestRevocationsAsTheyAreAnswered(t *testing.T) {
	for _, tt := range []struct {
		name, style string
		status      int
		body        string
		header      []string
		class       tokenbroker.Class // "" = the token is dead
		code        string
		wait        time.Duration
	}{
		{name: "done", status: 200},
		{name: "done, without content", status: 204},
		{name: "Google, of a token that is gone", style: "query", status: 400, body: `{"error":"invalid_token"}`},
		{name: "Slack, of a token that is gone", style: "bearer", status: 200, body: `{"ok":false,"error":"token_revoked"}`},
		{name: "Slack, refused", style: "bearer", status: 200, body: `{"ok":false,"error":"not_allowed_token_type"}`, class: config, code: "not_allowed_token_type"},
		{name: "a bearer that is gone", style: "bearer", status: 401, body: `{}`},
		{name: "GitHub, of a token that is gone", style: "github", status: 404, body: `{"message":"Not Found"}`},
		{name: "GitHub, with a wrong secret", style: "github", status: 401, body: `{"message":"Bad credentials"}`, class: config, code: "http_401"},
		{name: "an unknown endpoint", status: 404, class: transient, code: "http_404"},
		{name: "another kind of token", status: 400, body: `{"error":"unsupported_token_type"}`, class: config, code: "unsupported_token_type"},
		{name: "a wrong secret", status: 401, body: `{"error":"invalid_client"}`, class: config, code: "invalid_client"},
		{name: "later", status: 503, header: []string{"Retry-After", "7"}, class: throttled, code: "http_503", wait: 7 * time.Second},
		{name: "in trouble", status: 500, body: `{"error":"invalid_token"}`, class: transient, code: "invalid_token"},
		{name: "elsewhere", status: 302, header: []string{"Location", "https://evil.example"}, class: transient, code: "redirect_refused"},
		{name: "an echo", status: 400, body: `{"error":"` + refreshCanary + `"}`, class: config, code: "unparsable_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on("/revoke", tt.status, tt.body, tt.header...)
			p := f.profile(t)
			p.RevocationStyle = tt.style
			if tt.style == "bearer" {
				p.OKField = "ok"
			}
			err := newClient(t, p).Revoke(t.Context(), revokeRequest(tokenbroker.AccessTokenKind))
			if tt.class == "" {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			if f := failureOf(t, err); f.Class != tt.class || f.Code != tt.code || f.RetryAfter != tt.wait {
				t.Errorf("got %+v, want %s, %s", f, tt.class, tt.code)
			}
		})
	}
}

func TestRevocationsThatAreNotSent(t *testing.T) {
	f := newFake(t)
	for _, tt := range []struct {
		want string
		edit func(*provider.Profile, *tokenbroker.RevokeRequest)
	}{
		{"revocation_not_supported", func(p *provider.Profile, _ *tokenbroker.RevokeRequest) { p.RevocationEndpoint = "" }},
		{"token_missing", func(_ *provider.Profile, r *tokenbroker.RevokeRequest) { r.Token = tokenbroker.Secret{} }},
		{"revocation_not_supported", func(p *provider.Profile, _ *tokenbroker.RevokeRequest) { p.RevocationStyle = "bearer" }},
		{"revocation_not_supported", func(p *provider.Profile, _ *tokenbroker.RevokeRequest) { p.RevocationStyle = "github" }},
		{"client_secret_missing", func(p *provider.Profile, r *tokenbroker.RevokeRequest) {
			p.RevocationStyle, r.Kind, r.Secret = "github", tokenbroker.AccessTokenKind, tokenbroker.ClientSecret{}
		}},
	} {
		p, r := f.profile(t), revokeRequest(tokenbroker.RefreshTokenKind)
		tt.edit(&p, &r)
		err := newClient(t, p).Revoke(t.Context(), r)
		if got := failureOf(t, err); got.Code != tt.want || got.Class != config || got.Sent {
			t.Errorf("got %+v, want %s", got, tt.want)
		}
	}
	if got := len(f.requests("/revoke")); got != 0 {
		t.Errorf("sent %d requests", got)
	}
}

func TestARevocationOfACredentialWithoutAnOAuthClientIsNotOffered(t *testing.T) {
	f := newFake(t)
	f.on("/revoke", 200, "")
	r := revokeRequest(tokenbroker.AccessTokenKind)
	r.Client, r.Credential.Client, r.Credential.Grant = tokenbroker.OAuthClient{}, "", tokenbroker.GrantStatic
	failure, ok := errors.AsType[*tokenbroker.Failure](newClient(t, f.profile(t)).Revoke(t.Context(), r))
	if !ok || failure.Code != "revocation_not_supported" {
		t.Errorf("got %v, want revocation_not_supported", failure)
	}
	if n := len(f.requests("/revoke")); n != 0 {
		t.Errorf("got %d requests, want none", n)
	}
}
