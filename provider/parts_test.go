package provider_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

func TestPartsGoIntoTheirPlaces(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{"it": {
		Parts: map[string]provider.Part{
			"tenant": {Pattern: "[a-z]+", About: "the tenant", Example: "acme"},
			"region": {Pattern: "eu|us", Default: "eu"},
		},
		With:                  map[string]string{"tenant": "acme"},
		TokenEndpoint:         "https://{tenant}.{region}.example.com/{tenant}/token",
		AuthorizationEndpoint: "https://{tenant}.example.com/authorize",
		Issuer:                "https://{tenant}.example.com",
		GrantAudience:         "https://{tenant}.example.com/aud",
		TokenParams:           map[string]string{"account": "{tenant}", "other": "{left}"},
		AuthorizationParams:   map[string]string{"account": "{tenant}"},
		AssertionClaims:       map[string]string{"org": "{tenant}"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("it")
	for what, pair := range map[string][2]string{
		"token endpoint":         {p.TokenEndpoint, "https://acme.eu.example.com/acme/token"},
		"refresh endpoint":       {p.RefreshEndpoint, "https://acme.eu.example.com/acme/token"},
		"authorization endpoint": {p.AuthorizationEndpoint, "https://acme.example.com/authorize"},
		"issuer":                 {p.Issuer, "https://acme.example.com"},
		"audience":               {p.GrantAudience, "https://acme.example.com/aud"},
		"token parameter":        {p.TokenParams["account"], "acme"},
		"what is no part":        {p.TokenParams["other"], "{left}"},
		"authorization":          {p.AuthorizationParams["account"], "acme"},
		"claim":                  {p.AssertionClaims["org"], "acme"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
}

func TestAValueOfAPartCanNotLeadElsewhere(t *testing.T) {
	loose := map[string]provider.Part{"tenant": {Pattern: "(?s).*", Example: "acme"}}
	for _, value := range []string{
		"evil.example/", "evil.example?", "evil.example#", "me@evil.example", "a:443", "a%2fb", "a b", "a\tb", "a\nb", `a\b`, "{tenant}", "exämple", "a\u200bb", "a\u3002b", "a\uff0fb",
	} {
		_, err := provider.New(map[string]provider.Profile{"it": {
			Parts: loose, With: map[string]string{"tenant": value}, TokenEndpoint: "https://{tenant}.example.com/token"}})
		if err == nil || !strings.Contains(err.Error(), "with.tenant: must not hold") {
			t.Errorf("%q: got %v, want it to be refused", value, err)
		}
	}
}

func TestAPartIsCheckedAsAWhole(t *testing.T) {
	part := func(pattern string) map[string]provider.Part {
		return map[string]provider.Part{"tenant": {Pattern: pattern, About: "the tenant", Example: "acme"}}
	}
	for _, tt := range []struct {
		name string
		p    provider.Profile
		want string
	}{
		{"more than the pattern has", provider.Profile{Parts: part("acme"), With: map[string]string{"tenant": "acme.evil"}}, `"acme.evil" is not of the form acme, e.g. acme`},
		{"an end that the pattern has in one branch", provider.Profile{Parts: part("a|acme"), With: map[string]string{"tenant": "a-evil"}}, "not of the form"},
		{"a line break at the end", provider.Profile{Parts: part("acme"), With: map[string]string{"tenant": "acme\n"}}, "must not hold"},
		{"no value", provider.Profile{Parts: part("acme")}, "with.tenant: missing: the tenant, e.g. acme"},
		{"a value for no part", provider.Profile{Parts: part("acme"), With: map[string]string{"tenant": "acme", "x": "y"}}, "with.x: the profile has no such part; it has tenant"},
		{"a value where there are no parts", provider.Profile{With: map[string]string{"x": "y"}}, "it has none"},
		{"no pattern", provider.Profile{Parts: part(""), With: map[string]string{"tenant": "acme"}}, "parts.tenant.pattern: missing"},
		{"a broken pattern", provider.Profile{Parts: part("("), With: map[string]string{"tenant": "acme"}}, "parts.tenant.pattern"},
		{"the name of the redirect's port", provider.Profile{Parts: map[string]provider.Part{"port": {Pattern: "a", Default: "a"}}}, "not a name for a part"},
		{"a bad name", provider.Profile{Parts: map[string]provider.Part{"a b": {Pattern: "a", Default: "a"}}}, "not a name for a part"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.TokenEndpoint = "https://{tenant}.example.com/token"
			_, err := provider.New(map[string]provider.Profile{"it": tt.p})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestTheURLIsJudgedWithItsParts(t *testing.T) {
	for value, want := range map[string]string{
		"169.254.169.254": "link-local", "10.0.0.1": "private", "localhost": "loopback", "0x7f000001": "number in disguise", "-": "DNS name",
	} {
		_, err := provider.New(map[string]provider.Profile{"it": {
			Parts: map[string]provider.Part{"host": {Pattern: ".+", Example: "a"}}, With: map[string]string{"host": value}, TokenEndpoint: "https://{host}/token"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", value, err, want)
		}
	}
}

func TestABuiltInProfileTakesItsParts(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{
		"a": {Base: "okta", With: map[string]string{"domain": "acme.okta.com"}},
		"b": {Base: "okta", With: map[string]string{"domain": "id.acme.example", "server": "aus1abc"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "https://acme.okta.com/oauth2/default/v1/token", "b": "https://id.acme.example/oauth2/aus1abc/v1/token"} {
		if p, _ := c.Profile(name); p.TokenEndpoint != want || p.Title != "Okta (a custom authorization server)" || p.Base != "okta" {
			t.Errorf("%s: got %q of %q", name, p.TokenEndpoint, p.Title)
		}
	}
	if _, ok := provider.Builtin("okta"); !ok || !slices.Contains(c.Configured(), "a") {
		t.Errorf("configured: %q", c.Configured())
	}
	if p, _ := provider.Builtin("okta"); p.TokenEndpoint != "https://{domain}/oauth2/{server}/v1/token" {
		t.Errorf("the built-in profile was changed: %q", p.TokenEndpoint)
	}
}
