package grant_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const accessTokenType = "urn:ietf:params:oauth:token-type:access_token"

func exchangeRequest(scopes ...string) tokenbroker.ExchangeRequest {
	r := refreshRequest(scopes...)
	r.Credential.Grant, r.Holds = tokenbroker.GrantTokenExchange, tokenbroker.HoldsSubjectToken
	return r
}

func TestTokenExchangeAsSent(t *testing.T) {
	jwtType := "urn:ietf:params:oauth:token-type:jwt"
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		change  func(*tokenbroker.ExchangeRequest)
		want    url.Values
	}{
		{"plain", provider.Profile{}, func(*tokenbroker.ExchangeRequest) {}, url.Values{"subject_token_type": {accessTokenType},
			"requested_token_type": {accessTokenType}, "client_id": {"the client:1"}, "client_secret": {secretCanary}}},
		{"as Google's STS: other types, no client", provider.Profile{SubjectTokenType: jwtType, ExchangeUnauthenticated: new(true)},
			func(r *tokenbroker.ExchangeRequest) { r.Credential.Audience = "//iam.googleapis.com/x" },
			url.Values{"subject_token_type": {jwtType}, "requested_token_type": {accessTokenType}, "audience": {"//iam.googleapis.com/x"}}},
		{"resources and scopes", provider.Profile{}, func(r *tokenbroker.ExchangeRequest) {
			r.Credential.Resources = []string{"https://a.example.com/", "https://b.example.com/"}
			r.Credential.Scopes = []string{"x", "y"}
		}, url.Values{"subject_token_type": {accessTokenType}, "requested_token_type": {accessTokenType}, "scope": {"x y"},
			"resource": {"https://a.example.com/", "https://b.example.com/"}, "client_id": {"the client:1"}, "client_secret": {secretCanary}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, tt.profile)
			rec.body = `{"access_token":"at","issued_token_type":"` + accessTokenType + `","token_type":"Bearer","expires_in":60}`
			r := exchangeRequest()
			tt.change(&r)
			if _, err := c.Exchange(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			sent := rec.only(t)
			tt.want.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
			tt.want.Set("subject_token", refreshCanary)
			if diff := cmp.Diff(tt.want, sent.form); diff != "" || sent.header.Get("Authorization") != "" {
				t.Errorf("form (-want +got):\n%s\nheader %v", diff, sent.header)
			}
		})
	}
}

func TestWhatTokenExchangeIssues(t *testing.T) {
	saml, jwtType := "urn:ietf:params:oauth:token-type:saml2", "urn:ietf:params:oauth:token-type:jwt"
	for _, tt := range []struct{ name, requested, body, wantType, code string }{
		{"an access token", "", `{"access_token":"at","issued_token_type":"` + accessTokenType + `","token_type":"Bearer"}`, "Bearer", ""},
		{"an access token called a JWT", "", `{"access_token":"at","issued_token_type":"` + jwtType + `","token_type":"Bearer"}`, "Bearer", ""},
		{"no type named", "", `{"access_token":"at","token_type":"Bearer"}`, "Bearer", ""},
		{"another type than asked for", "", `{"access_token":"at","issued_token_type":"` + saml + `","token_type":"N_A"}`, "", "unexpected_issued_token_type"},
		{"an access token that is none", "", `{"access_token":"at","issued_token_type":"` + accessTokenType + `","token_type":"N_A"}`, "", "unsupported_token_type"},
		{"an assertion, as asked", saml, `{"access_token":"at","issued_token_type":"` + saml + `","token_type":"N_A"}`, "N_A", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, provider.Profile{RequestedTokenType: tt.requested})
			rec.body = tt.body
			out, err := c.Exchange(t.Context(), exchangeRequest())
			if tt.code != "" {
				if f := failureOf(t, err); f.Code != tt.code || f.Class != config {
					t.Errorf("got %+v, want %s", f, tt.code)
				}
				return
			}
			if err != nil || out.Token.Type != tt.wantType {
				t.Errorf("got %v, %v, want a token of type %s", out.Token, err, tt.wantType)
			}
		})
	}
	// A subject token that is refused is no grant that a person could renew by consent.
	c, rec := recording(t, provider.Profile{})
	rec.status, rec.body = 400, `{"error":"invalid_grant"}`
	if f := failureOf(t, second(c.Exchange(t.Context(), exchangeRequest()))); f.Class != config {
		t.Errorf("got %+v, want configuration", f)
	}
}

func TestStaticTokens(t *testing.T) {
	end := time.Now().Add(48 * time.Hour).Round(0)
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		end     time.Time
		want    tokenbroker.Token
	}{
		{"with an expiry", provider.Profile{}, end, tokenbroker.Token{Type: "Bearer", Expiry: end}},
		{"without one", provider.Profile{}, time.Time{}, tokenbroker.Token{Type: "Bearer", ExpiryEstimated: true}},
		{"in a header of its own", provider.Profile{APIKeyHeader: "X-Api-Key"}, end,
			tokenbroker.Token{Type: "APIKey", Expiry: end, Metadata: map[string]string{"header": "X-Api-Key"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, tt.profile)
			r := refreshRequest("a")
			r.Credential.Grant, r.Holds, r.RefreshEnd, r.Client = tokenbroker.GrantStatic, tokenbroker.HoldsToken, tt.end, tokenbroker.OAuthClient{}
			out, err := c.Exchange(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			got := *out.Token
			if tt.want.Expiry.IsZero() {
				if life := got.Life(); life < 364*24*time.Hour || life > 366*24*time.Hour {
					t.Errorf("life %s, want about a year", life)
				}
				tt.want.Expiry = got.Expiry
			}
			tt.want.AccessToken, tt.want.Scopes, tt.want.Obtained = tokenbroker.NewSecret(refreshCanary), []string{"a"}, got.Obtained
			if diff := cmp.Diff(tt.want, got); diff != "" || !out.RefreshToken.IsZero() || len(rec.requests()) != 0 {
				t.Errorf("%d requests; token (-want +got):\n%s", len(rec.requests()), diff)
			}
		})
	}
}

func TestStaticTokensThatAreNotServed(t *testing.T) {
	c, _ := recording(t, provider.Profile{})
	r := refreshRequest("a")
	r.Credential.Grant, r.RefreshEnd = tokenbroker.GrantStatic, time.Now().Add(-time.Second)
	if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Code != "static_token_expired" || f.Sent {
		t.Errorf("got %+v", f)
	}
	r.RefreshToken = tokenbroker.Secret{}
	if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Code != "token_missing" {
		t.Errorf("got %+v", f)
	}
}

func passwordRequest() tokenbroker.ExchangeRequest {
	r := refreshRequest("a")
	r.Credential.Grant, r.Credential.Subject, r.Holds = tokenbroker.GrantPassword, "ann", tokenbroker.HoldsPassword
	return r
}

func TestPasswordUntilThereIsARefreshToken(t *testing.T) {
	c, rec := recording(t, provider.Profile{Grants: []tokenbroker.GrantType{tokenbroker.GrantPassword}})
	rec.body = `{"access_token":"at","expires_in":60,"refresh_token":"r2"}`
	r := passwordRequest()
	out, err := c.Exchange(t.Context(), r)
	if err != nil || out.RefreshToken.Reveal() != "r2" {
		t.Fatalf("got %v, %v, want a refresh token", out.RefreshToken.Reveal(), err)
	}
	r.RefreshToken, r.Holds = out.RefreshToken, tokenbroker.HoldsRefreshToken
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	id := url.Values{"client_id": {"the client:1"}, "client_secret": {secretCanary}}
	want := []url.Values{
		{"grant_type": {"password"}, "username": {"ann"}, "password": {refreshCanary}, "scope": {"a"}},
		{"grant_type": {"refresh_token"}, "refresh_token": {"r2"}},
	}
	for i, sent := range rec.requests() {
		want[i]["client_id"], want[i]["client_secret"] = id["client_id"], id["client_secret"]
		if diff := cmp.Diff(want[i], sent.form); diff != "" {
			t.Errorf("request %d (-want +got):\n%s", i+1, diff)
		}
	}
	// A refused password is configuration, a refused refresh token needs the user.
	rec.status, rec.body = 400, `{"error":"invalid_grant"}`
	if f := failureOf(t, second(c.Exchange(t.Context(), passwordRequest()))); f.Class != config {
		t.Errorf("password: got %+v", f)
	}
	if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Class != dead {
		t.Errorf("refresh token: got %+v", f)
	}
}

// consenting is a provider where people consent.
func consenting(grants ...tokenbroker.GrantType) provider.Profile {
	return provider.Profile{Grants: grants, AuthorizationEndpoint: "https://login.example.com/authorize",
		DeviceAuthorizationEndpoint: "https://login.example.com/device"}
}

func TestGrantsWithNothingToLiveOn(t *testing.T) {
	p := consenting(tokenbroker.GrantPassword, tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode, tokenbroker.GrantTokenExchange)
	c, rec := recording(t, p)
	none := func(r *tokenbroker.ExchangeRequest) { r.RefreshToken = tokenbroker.Secret{} }
	for _, tt := range []struct {
		grant  tokenbroker.GrantType
		change func(*tokenbroker.ExchangeRequest)
		class  tokenbroker.Class
		code   string
	}{
		{tokenbroker.GrantAuthorizationCode, none, dead, "consent_needed"},
		{tokenbroker.GrantDeviceCode, none, dead, "consent_needed"},
		{tokenbroker.GrantAuthorizationCode, func(r *tokenbroker.ExchangeRequest) { none(r); r.Holds = tokenbroker.HoldsNothing }, dead, "no_refresh_token"},
		{tokenbroker.GrantRefreshToken, none, config, "refresh_token_missing"},
		{tokenbroker.GrantTokenExchange, none, config, "subject_token_missing"},
		{tokenbroker.GrantPassword, none, config, "password_missing"},
		{tokenbroker.GrantPassword, func(r *tokenbroker.ExchangeRequest) { r.Holds = tokenbroker.HoldsPassword }, config, "username_missing"},
		{tokenbroker.GrantPassword, func(r *tokenbroker.ExchangeRequest) { r.Variant.Subject = "bob" }, config, "subject_not_supported"},
		{tokenbroker.GrantClientCredentials, none, config, "unsupported_grant_type"},
	} {
		r := refreshRequest("a")
		r.Credential.Grant = tt.grant
		tt.change(&r)
		f := failureOf(t, second(c.Exchange(t.Context(), r)))
		if want := (tokenbroker.Failure{Class: tt.class, Code: tt.code}); *f != want {
			t.Errorf("%s: got %+v, want %+v", tt.grant, *f, want)
		}
	}
	if got := len(rec.requests()); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

// TestConsentedGrantsLiveOnTheirRefreshToken: what is sent is a refresh, whatever the credential's grant is called.
func TestConsentedGrantsLiveOnTheirRefreshToken(t *testing.T) {
	for _, g := range []tokenbroker.GrantType{tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode} {
		p := consenting(g)
		p.RefreshEndpoint = "https://login.example.com/refresh"
		c, rec := recording(t, p)
		r := refreshRequest("a")
		r.Credential.Grant = g
		if _, err := c.Exchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if sent := rec.only(t); sent.form.Get("grant_type") != "refresh_token" || sent.url != "https://login.example.com/refresh" {
			t.Errorf("%s: got %s to %s", g, sent.form.Get("grant_type"), sent.url)
		}
	}
}
