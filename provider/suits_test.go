package provider_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestKnows(t *testing.T) {
	some := provider.Profile{Grants: []tokenbroker.GrantType{tokenbroker.GrantAuthorizationCode}}
	for _, tt := range []struct {
		name  string
		p     provider.Profile
		grant tokenbroker.GrantType
		want  bool
	}{
		{"a profile without grants knows any", provider.Profile{}, tokenbroker.GrantDeviceCode, true},
		{"but for password", provider.Profile{}, tokenbroker.GrantPassword, false},
		{"which has to be named", provider.Profile{Grants: []tokenbroker.GrantType{tokenbroker.GrantPassword}}, tokenbroker.GrantPassword, true},
		{"a grant that is named", some, tokenbroker.GrantAuthorizationCode, true},
		{"a grant that is not", some, tokenbroker.GrantClientCredentials, false},
		{"a refresh token where people consent", some, tokenbroker.GrantRefreshToken, true},
		{"none where nobody does", provider.Profile{Grants: []tokenbroker.GrantType{tokenbroker.GrantJWTBearer}}, tokenbroker.GrantRefreshToken, false},
		{"a token brought by hand", some, tokenbroker.GrantStatic, true},
	} {
		if got := tt.p.Knows(tt.grant); got != tt.want {
			t.Errorf("%s: got %t", tt.name, got)
		}
	}
}

func TestSuitsSaysWhatDoes(t *testing.T) {
	for _, tt := range []struct {
		profile string
		grant   tokenbroker.GrantType
		public  bool
		want    []string // in the text; none = it suits
	}{
		{"google", tokenbroker.GrantAuthorizationCode, false, nil},
		{"google", tokenbroker.GrantDeviceCode, true, nil},
		{"google", tokenbroker.GrantRefreshToken, false, nil},
		{"google", tokenbroker.GrantStatic, true, nil},
		{"google", tokenbroker.GrantClientCredentials, false, []string{"Google (a user's data) has no client_credentials grant", "authorization_code (tokenctl connect)", "device_code (tokenctl connect --device)"}},
		{"google", tokenbroker.GrantPassword, false, []string{"RFC 9700 §2.4", "tokenctl connect"}},
		{"google-service-account", tokenbroker.GrantJWTBearer, false, nil},
		{"google-service-account", tokenbroker.GrantGoogleADC, true, nil},
		{"google-service-account", tokenbroker.GrantAuthorizationCode, false, []string{"jwt_bearer (tokenctl import"}},
		{"paypal", tokenbroker.GrantClientCredentials, false, nil},
		{"paypal", tokenbroker.GrantClientCredentials, true, []string{"nothing to authenticate with"}},
		{"paypal", tokenbroker.GrantAuthorizationCode, false, []string{"client_credentials (tokenctl credential create --grant client_credentials)"}},
		{"atlassian", tokenbroker.GrantAuthorizationCode, true, []string{"takes no public clients"}},
		{"slack", tokenbroker.GrantAuthorizationCode, false, nil},
		{"github-app", tokenbroker.GrantDeviceCode, true, nil},
		{"salesforce", tokenbroker.GrantJWTBearer, true, []string{"no key to sign with", "authorization_code"}},
		{"ebay", tokenbroker.GrantAuthorizationCode, false, []string{"eBay has no authorization_code grant", "refresh_token"}},
	} {
		err := provider.Suits(merged(t, tt.profile), tt.grant, tt.public)
		if (err == nil) != (len(tt.want) == 0) {
			t.Errorf("%s, %s, public %t: got %v", tt.profile, tt.grant, tt.public, err)
		}
		for _, want := range tt.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: got %q, want %q in it", tt.profile, tt.grant, err, want)
			}
		}
	}
}

func TestAProfileThatSaysNothingLacksEndpointsForPeople(t *testing.T) {
	p := provider.Profile{Title: "Acme"}
	for grant, want := range map[tokenbroker.GrantType]string{
		tokenbroker.GrantAuthorizationCode: "authorization_endpoint", tokenbroker.GrantDeviceCode: "device_authorization_endpoint",
	} {
		if err := provider.Suits(p, grant, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", grant, err)
		}
	}
	off := provider.Profile{Title: "Acme", AuthorizationEndpoint: endpoint, PKCE: "off"}
	if err := provider.Suits(off, tokenbroker.GrantAuthorizationCode, true); err == nil || !strings.Contains(err.Error(), "RFC 9700 §2.1.1") {
		t.Errorf("a public client without PKCE: got %v", err)
	}
	if err := provider.Suits(p, tokenbroker.GrantSelfSignedJWT, true); err == nil {
		t.Error("a public client may sign")
	}
}

func TestScopesHaveSpellingsAndMeanings(t *testing.T) {
	p := merged(t, "google")
	const email = "https://www.googleapis.com/auth/userinfo.email"
	if got := p.CanonicalScope("email"); got != email {
		t.Errorf("email: got %q", got)
	}
	if p.CanonicalScope(email) != email || p.CanonicalScope("other") != "other" {
		t.Error("a scope without other spellings is not itself")
	}
	if p.ScopeMeaning("email") != "See your e-mail address" || p.ScopeMeaning(email) != p.ScopeMeaning("email") || p.ScopeMeaning("other") != "" {
		t.Errorf("meanings: %q, %q", p.ScopeMeaning("email"), p.ScopeMeaning("other"))
	}
}
