package provider_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

const sound = `
title: Acme
notes: "Register at acme.example; redirect URI http://127.0.0.1:PORT/callback."
sources: [https://acme.example/docs]
token_endpoint: https://login.acme.example/token
authorization_endpoint: https://login.acme.example/authorize
revocation_endpoint: https://login.acme.example/revoke
userinfo_endpoint: https://login.acme.example/me
scopes: [{name: read, meaning: Read all}]
rotates: false
`

// findings are the texts of one severity, joined.
func findings(list []provider.Finding, s provider.Severity) string {
	var texts []string
	for _, f := range list {
		if f.Severity == s {
			texts = append(texts, f.Provider+": "+f.Text)
		}
	}
	return strings.Join(texts, "\n")
}

func TestLintFindsNothingInASoundProfile(t *testing.T) {
	indented := strings.ReplaceAll(sound, "\n", "\n  ")
	for form, data := range map[string]string{
		"one profile":          sound,
		"a map":                "acme:" + indented + "\n",
		"a configuration file": "listen: 127.0.0.1:1\nproviders:\n acme:" + indented + "\n",
	} {
		if got := provider.Lint("acme", []byte(data)); len(got) != 0 {
			t.Errorf("%s: got %v", form, got)
		}
	}
}

func TestLintFindsErrors(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"broken YAML", "acme: {", "line 1"},
		{"a list", "- a\n", "line 1"},
		{"an unknown key", sound + "token_endpont: x\n", `unknown field "token_endpont"`},
		{"the implicit grant", sound + "authorization_params: {response_type: token}\n", "acme: authorization_params: response_type must be"},
		{"plain http", strings.Replace(sound, "https://login.acme.example/token", "http://login.acme.example/token", 1), "acme: token_endpoint: must be https"},
		{"an unknown cause", sound + "errors: [{code: x, class: transient, cause: y}]\n", "acme: errors[0].cause"},
		{"an unknown base", "acme: {profile: nothing}\n", "no built-in profile"},
		{"providers that are none", "providers: 7\n", "line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := findings(provider.Lint("acme", []byte(tt.data)), provider.SeverityError); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

func TestLintReportsAllErrors(t *testing.T) {
	got := findings(provider.Lint("x", []byte("a: {token_endpoint: 'http://a.example/#', pkce: plain}\nb: {}\n")), provider.SeverityError)
	for _, want := range []string{"a: token_endpoint: must be https", "a: token_endpoint: must not have a fragment", "a: pkce", "b: token_endpoint: missing"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestLintGivesAdvice(t *testing.T) {
	data := `
token_endpoint: https://login.acme.example/token
authorization_endpoint: https://accounts.other.example/authorize
consent_scopes: [offline]
parts: {tenant: {pattern: ".*", example: acme}}
pkce: off
`
	got := findings(provider.Lint("acme", []byte(data)), provider.SeverityAdvice)
	for _, want := range []string{
		"notes: none", "sources: none", "rotates: not said", "scopes: none has a meaning", "revocation_endpoint: none", "test_endpoint: none",
		"authorization_endpoint: is on other.example, the token endpoint on acme.example", "scopes: offline is asked for", "parts.tenant.pattern: lets through", "parts.tenant: say in about", "pkce: off",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", got, want)
		}
	}
	if errs := findings(provider.Lint("acme", []byte(data)), provider.SeverityError); errs != "" {
		t.Errorf("errors: %s", errs)
	}
}

func TestSitesBelowACountryAreTellApart(t *testing.T) {
	data := strings.Replace(sound, "https://login.acme.example/authorize", "https://login.other.co.uk/authorize", 1)
	data = strings.Replace(data, "https://login.acme.example/token", "https://login.acme.co.uk/token", 1)
	if got := findings(provider.Lint("acme", []byte(data)), provider.SeverityAdvice); !strings.Contains(got, "is on other.co.uk, the token endpoint on acme.co.uk") {
		t.Errorf("got %q", got)
	}
}

func FuzzLint(f *testing.F) {
	f.Add([]byte(sound))
	f.Add([]byte("providers: {a: {profile: okta, with: {domain: x}}}"))
	f.Add([]byte("a: {parts: {b: {pattern: '('}}}"))
	f.Fuzz(func(_ *testing.T, data []byte) { provider.Lint("it", data) })
}
