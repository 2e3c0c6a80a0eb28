package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Values of fields that have few.
const (
	pkceS256 = "s256"
	pkceOff  = "off"

	loopbackNone = "none" // the server takes no loopback redirect

	audienceIssuer = "issuer"
)

// authorizationFields of an authorization request are the broker's own; response_type is judged apart.
var authorizationFields = []string{"client_id", "client_secret", "redirect_uri", "scope", "state", "nonce", "code_challenge",
	"code_challenge_method", "request", "request_uri"}

// claimsOfOurs are set in each assertion by the broker (RFC 7519 §4.1, RFC 7523 §3).
var claimsOfOurs = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope"}

func checkGrants(p Profile) (problems []error) {
	for i, g := range p.Grants {
		if !slices.Contains(grants, g) {
			problems = append(problems, fmt.Errorf("grants[%d]: unknown grant %q", i, g))
		}
	}
	for _, g := range slices.Sorted(maps.Keys(p.GrantTypes)) {
		if !slices.Contains(grants, g) || p.GrantTypes[g] == "" || !printable(p.GrantTypes[g]) {
			problems = append(problems, fmt.Errorf("grant_types: %q: must be a grant of the broker with the value to send for it", g))
		}
	}
	if len(p.Grants) > 0 && p.AuthorizationEndpoint == "" && !on(p.Discover) && slices.Contains(p.Grants, tokenbroker.GrantAuthorizationCode) {
		problems = append(problems, errors.New("authorization_endpoint: missing; grants has authorization_code"))
	}
	if len(p.Grants) > 0 && p.DeviceAuthorizationEndpoint == "" && !on(p.Discover) && slices.Contains(p.Grants, tokenbroker.GrantDeviceCode) {
		problems = append(problems, errors.New("device_authorization_endpoint: missing; grants has device_code"))
	}
	return problems
}

func checkConsent(p Profile) (problems []error) {
	if p.PKCE != pkceS256 && p.PKCE != pkceOff {
		problems = append(problems, fmt.Errorf("pkce: must be s256 or off, not %q", p.PKCE))
	}
	if !slices.Contains([]string{"rfc7009", "bearer", "query", "github"}, p.RevocationStyle) {
		problems = append(problems, fmt.Errorf("revocation_style: must be rfc7009, bearer, query or github, not %q", p.RevocationStyle))
	}
	if !fieldPattern.MatchString(p.ScopeParameter) || p.ScopeParameter != "scope" && slices.Contains(authorizationFields, p.ScopeParameter) {
		problems = append(problems, fmt.Errorf("scope_parameter: %q is not a name for the field with the scopes", p.ScopeParameter))
	}
	for _, name := range slices.Sorted(maps.Keys(p.AuthorizationParams)) {
		if name == "" || name == p.ScopeParameter || slices.Contains(authorizationFields, strings.ToLower(name)) {
			problems = append(problems, fmt.Errorf("authorization_params: %q is set by the broker", name))
		}
	}
	if err := checkLoopback(p.LoopbackRedirect); err != nil {
		problems = append(problems, fmt.Errorf("loopback_redirect: %w", err))
	}
	for i, path := range p.Account {
		if !mayLeave(path) {
			problems = append(problems, fmt.Errorf("account[%d]: %q is not a field that may be shown", i, path))
		}
	}
	return problems
}

// checkLoopback judges the redirect URI of consents on one machine (RFC 8252 §7.3).
func checkLoopback(raw string) error {
	if raw == loopbackNone {
		return nil
	}
	u, err := url.Parse(strings.Replace(raw, ":{port}", ":1", 1))
	switch {
	case err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || strings.ContainsAny(raw, "#"):
		return errors.New(`must be a plain http URL without user, query and fragment, or "none"`)
	case u.Hostname() != "localhost" && !loopbackLiteral(u.Hostname()):
		return errors.New("must be on 127.0.0.1, [::1] or localhost")
	case u.Port() == "" || strings.ContainsAny(u.Path, "{}"):
		return errors.New("must have a port, {port} for any")
	}
	return nil
}

func checkScopes(p Profile) (problems []error) {
	if err := tokenbroker.ValidateScopes(p.ConsentScopes); err != nil {
		problems = append(problems, fmt.Errorf("consent_scopes: %w", err))
	}
	seen := map[string]bool{}
	for i, s := range p.Scopes {
		switch err := tokenbroker.ValidateScopes([]string{s.Name}); {
		case err != nil:
			problems = append(problems, fmt.Errorf("scopes[%d].name: %w", i, err))
		case seen[s.Name]:
			problems = append(problems, fmt.Errorf("scopes[%d].name: %q is there twice", i, s.Name))
		case s.Meaning == "" || strings.ContainsFunc(s.Meaning, func(r rune) bool { return r < ' ' }):
			problems = append(problems, fmt.Errorf("scopes[%d].meaning: must be one line of text", i))
		}
		seen[s.Name] = true
	}
	for _, spelling := range slices.Sorted(maps.Keys(p.ScopeAliases)) {
		if err := tokenbroker.ValidateScopes([]string{spelling, p.ScopeAliases[spelling]}); err != nil {
			problems = append(problems, fmt.Errorf("scope_aliases: %w", err))
		}
	}
	if r := p.ScopeResource; r != "" && (tokenbroker.ValidateScopes([]string{r}) != nil || !strings.HasSuffix(r, "/")) {
		problems = append(problems, errors.New("scope_resource: must be what goes before a scope, with a / at its end"))
	}
	if c := p.CatchAllScope; c != "" && (tokenbroker.ValidateScopes([]string{c}) != nil || !strings.HasPrefix(c, "/") || c == "/") {
		problems = append(problems, errors.New("catch_all_scope: must be how a scope ends, from its / on"))
	}
	return problems
}

func checkAssertions(p Profile) (problems []error) {
	for _, at := range []slot{{"assertion_audience", &p.AssertionAudience}, {"grant_audience", &p.GrantAudience},
		{"subject_token_type", &p.SubjectTokenType}, {"requested_token_type", &p.RequestedTokenType}} {
		if *at.value == "" || !printable(*at.value) || strings.ContainsAny(*at.value, " {}") {
			problems = append(problems, fmt.Errorf("%s: must be printable ASCII without blanks", at.field))
		}
	}
	if life := value(p.AssertionLife); life <= 0 || life > maxAssertionLife {
		problems = append(problems, errors.New("assertion_life: must be over 0 and at most 1h"))
	}
	for _, name := range slices.Sorted(maps.Keys(p.AssertionClaims)) {
		if name == "" || slices.Contains(claimsOfOurs, name) {
			problems = append(problems, fmt.Errorf("assertion_claims: %q is set by the broker", name))
		}
	}
	return problems
}

// checkTestOf sees to it that a test environment belongs to something.
func checkTestOf(p Profile) []error {
	if p.TestOf == "" {
		return nil
	}
	if _, err := files.Open("profiles/" + p.TestOf + ".yaml"); err != nil {
		return []error{fmt.Errorf("test_of: no built-in profile %q", p.TestOf)}
	}
	return nil
}

// mayLeave reports whether the field at a path may be shown to people and workers: it is a dotted path that does not end at a secret.
func mayLeave(path string) bool {
	last := strings.ToLower(path[strings.LastIndexByte(path, '.')+1:])
	return pathPattern.MatchString(path) && !slices.Contains(secretFields, last)
}
