package grant_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
)

const pubsub = "https://pubsub.googleapis.com/"

func TestSelfSignedJWT(t *testing.T) {
	for _, tt := range []struct {
		name, audience string
		scopes         []string
		want           map[string]any
	}{
		{"for an API", pubsub, nil, map[string]any{"aud": pubsub}},
		{"for scopes", "", []string{"b", "a"}, map[string]any{"scope": "a b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, google())
			r := robotRequest(t, c, tt.scopes...)
			r.Credential.Grant, r.Credential.Audience = tokenbroker.GrantSelfSignedJWT, tt.audience
			before := time.Now().Unix()
			out, err := c.Exchange(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			text := out.Token.AccessToken.Reveal()
			j := parseJWT(t, text)
			if diff := cmp.Diff(map[string]any{"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}, j.header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			iat := j.number(t, "iat")
			if iat < before || iat > time.Now().Unix() || j.number(t, "exp") != iat+3600 || out.Token.Expiry.Unix() != iat+3600 {
				t.Errorf("iat %d, exp %d, expiry %s, made at %d", iat, j.number(t, "exp"), out.Token.Expiry, before)
			}
			delete(j.claims, "iat")
			delete(j.claims, "exp")
			tt.want["iss"], tt.want["sub"] = robot, robot
			if diff := cmp.Diff(tt.want, j.claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			j.wantRS256(t, &rsaKey().PublicKey)
			if tt.audience != "" {
				wantNode(t, text, publicJWK(t, &rsaKey().PublicKey), "RS256", robot, pubsub)
			}
			if out.Token.Type != "Bearer" || out.Token.ExpiryEstimated || len(rec.requests()) != 0 {
				t.Errorf("got a %s token after %d requests", out.Token.Type, len(rec.requests()))
			}
		})
	}
}

func TestSelfSignedJWTsThatAreNotMade(t *testing.T) {
	c, _ := recording(t, google())
	for _, tt := range []struct {
		name, code string
		change     func(*tokenbroker.ExchangeRequest)
	}{
		{"a delegated subject", "subject_not_supported", func(r *tokenbroker.ExchangeRequest) { r.Variant.Subject = "ann@example.com" }},
		{"audience and scopes", "invalid_target", func(r *tokenbroker.ExchangeRequest) { r.Credential.Scopes = []string{"a"} }},
		{"neither", "invalid_target", func(r *tokenbroker.ExchangeRequest) { r.Credential.Audience = "" }},
		{"an audience that is no endpoint", "invalid_target", func(r *tokenbroker.ExchangeRequest) { r.Variant.Audience = "pubsub" }},
		{"no key", "key_missing", func(r *tokenbroker.ExchangeRequest) { r.Secret = tokenbroker.ClientSecret{} }},
		{"a key without id", "key_id_missing", func(r *tokenbroker.ExchangeRequest) { r.Secret.KeyID = "" }},
		{"a key of another kind", "key_unusable", func(r *tokenbroker.ExchangeRequest) { r.Secret.Algorithm = "ES256" }},
		{"no client id", "client_id_missing", func(r *tokenbroker.ExchangeRequest) { r.Client.ClientID = "" }},
		{"a key that is none", "key_unreadable", func(r *tokenbroker.ExchangeRequest) { r.Secret.Secret = tokenbroker.NewSecret(secretCanary) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := robotRequest(t, c)
			r.Credential.Grant, r.Credential.Audience = tokenbroker.GrantSelfSignedJWT, pubsub
			tt.change(&r)
			f := failureOf(t, second(c.Exchange(t.Context(), r)))
			if want := (tokenbroker.Failure{Class: config, Code: tt.code}); *f != want {
				t.Errorf("got %+v, want %+v", *f, want)
			}
		})
	}
}
