package provider_test

import (
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestAnEntryAddsToABuiltInProfile(t *testing.T) {
	entry := provider.Profile{
		Base:                "google",
		AuthorizationParams: map[string]string{"hd": "acme.example", "prompt": "select_account"},
		Scopes:              []provider.ScopeInfo{{Name: "openid", Meaning: "Know your account"}, {Name: "acme", Meaning: "Something of ours"}},
		ScopeAliases:        map[string]string{"a": "b"},
		ConsentScopes:       []string{},
		Errors:              []provider.ErrorRule{{Code: "invalid_grant", Class: tokenbroker.ClassTransient}},
	}
	c, err := provider.New(map[string]provider.Profile{"google": entry})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("google")
	if p.AuthorizationParams["access_type"] != "offline" || p.AuthorizationParams["prompt"] != "select_account" || p.AuthorizationParams["hd"] != "acme.example" {
		t.Errorf("authorization parameters: %v", p.AuthorizationParams)
	}
	if p.ScopeMeaning("openid") != "Know your account" || p.ScopeMeaning("acme") == "" || p.ScopeMeaning("https://www.googleapis.com/auth/drive") == "" {
		t.Errorf("meanings of scopes: %v", p.Scopes)
	}
	if len(p.ConsentScopes) != 0 || p.ScopeAliases["email"] == "" || p.ScopeAliases["a"] != "b" {
		t.Errorf("consent scopes %v, aliases %v", p.ConsentScopes, p.ScopeAliases)
	}
	if p.Errors[0].Class != tokenbroker.ClassTransient || len(p.Errors) < 3 {
		t.Errorf("rules: %v", p.Errors)
	}
	if base, _ := provider.Builtin("google"); base.AuthorizationParams["prompt"] != "consent" || len(entry.AuthorizationParams) != 2 {
		t.Errorf("merging changed what it merged: %v, %v", base.AuthorizationParams, entry.AuthorizationParams)
	}
	if got := c.Builtins(); len(got) == 0 || len(c.Configured()) != 1 {
		t.Errorf("built in %q, configured %q", got, c.Configured())
	}
}

func TestABuiltInProfileStartsFromAnother(t *testing.T) {
	p, _ := provider.Builtin("salesforce-sandbox")
	if p.Base != "salesforce" || p.TestOf != "salesforce" || p.GrantAudience != "https://test.salesforce.com" {
		t.Errorf("got base %q, test of %q, audience %q", p.Base, p.TestOf, p.GrantAudience)
	}
	if p := merged(t, "salesforce-sandbox"); p.TokenEndpoint != "https://test.salesforce.com/services/oauth2/token" || len(p.Metadata) != 1 {
		t.Errorf("got %q, metadata %q", p.TokenEndpoint, p.Metadata)
	}
}

func TestFieldsThatFollowFromOthers(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint, UserinfoEndpoint: "https://login.example.com/me"}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("acme")
	if p.Title != "acme" || p.RefreshEndpoint != endpoint || p.TestEndpoint != "https://login.example.com/me" {
		t.Errorf("got title %q, refresh endpoint %q, test endpoint %q", p.Title, p.RefreshEndpoint, p.TestEndpoint)
	}
	if p := merged(t, "figma"); p.RefreshEndpoint != "https://api.figma.com/v1/oauth/refresh" {
		t.Errorf("got refresh endpoint %q", p.RefreshEndpoint)
	}
}

func TestDefaultsOfAProfileThatSaysNothing(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{"acme": {TokenEndpoint: endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("acme")
	for what, pair := range map[string][2]string{
		"pkce":               {p.PKCE, "s256"},
		"redirect":           {p.LoopbackRedirect, "http://127.0.0.1:{port}/callback"},
		"scope parameter":    {p.ScopeParameter, "scope"},
		"body":               {p.BodyFormat, "form"},
		"revocation":         {p.RevocationStyle, "rfc7009"},
		"client's audience":  {p.AssertionAudience, "token_endpoint"},
		"grant's audience":   {p.GrantAudience, "token_endpoint"},
		"life of assertions": {p.AssertionLife.String(), "5m0s"},
		"expiry unit":        {p.ExpiryUnit, "s"},
		"subject token":      {p.SubjectTokenType, "urn:ietf:params:oauth:token-type:access_token"},
		"requested token":    {p.RequestedTokenType, "urn:ietf:params:oauth:token-type:access_token"},
		"account":            {p.Account[0], "id_token.email"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
	if !*p.ScopeInAssertion || p.Discover != nil || p.IssParameter != nil || len(p.Grants) != 0 || len(p.AuthMethods) != 7 {
		t.Errorf("got %+v", p)
	}
}
