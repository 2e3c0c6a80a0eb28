package provider

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/explain"
)

// maxAssertionLife is what Google takes, and nobody takes more.
const maxAssertionLife = time.Hour

var (
	fieldPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	pathPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

	authMethods = []tokenbroker.AuthMethod{
		tokenbroker.AuthClientSecretBasic, tokenbroker.AuthClientSecretPost, tokenbroker.AuthNone, tokenbroker.AuthClientSecretJWT,
		tokenbroker.AuthPrivateKeyJWT, tokenbroker.AuthTLSClientAuth, tokenbroker.AuthServiceAccount,
	}
	grants = []tokenbroker.GrantType{
		tokenbroker.GrantClientCredentials, tokenbroker.GrantRefreshToken, tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode,
		tokenbroker.GrantJWTBearer, tokenbroker.GrantSelfSignedJWT, tokenbroker.GrantTokenExchange, tokenbroker.GrantGoogleADC,
		tokenbroker.GrantStatic, tokenbroker.GrantPassword,
	}
	// wireHeaders belong to HTTP itself.
	wireHeaders = []string{"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer", "cookie"}
	classes     = []tokenbroker.Class{
		tokenbroker.ClassDeadGrant, tokenbroker.ClassConfiguration, tokenbroker.ClassThrottled,
		tokenbroker.ClassTransient, tokenbroker.ClassAmbiguous, tokenbroker.ClassClockSkew,
	}
	// protocolFields are set by the broker alone.
	protocolFields = []string{"grant_type", "client_id", "client_secret", "refresh_token", "scope", "code", "code_verifier",
		"assertion", "client_assertion", "client_assertion_type", "username", "password", "redirect_uri", "device_code",
		"subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type"}
	// secretFields are never passed on to workers and never written into a URL.
	secretFields = []string{"access_token", "refresh_token", "id_token", "client_secret", "secret", "token", "password",
		"assertion", "client_assertion", "code", "api_key", "apikey", "key"}
)

// check returns all that is wrong with a merged profile, each with its field, and compiles its error rules.
func check(p *Profile) []error {
	problems := compile(p.Errors)
	for _, part := range [][]error{
		checkEndpoints(*p), checkProxy(*p), checkIssuer(*p), checkGrants(*p), checkConsent(*p), checkScopes(*p), checkAssertions(*p),
		checkRequest(*p), checkReply(*p), checkLives(*p), checkRules(p.Errors), checkTestOf(*p),
	} {
		problems = append(problems, part...)
	}
	return problems
}

func checkRequest(p Profile) (problems []error) {
	if len(p.AuthMethods) == 0 {
		problems = append(problems, errors.New("auth_methods: empty"))
	}
	for i, m := range p.AuthMethods {
		if !slices.Contains(authMethods, m) {
			problems = append(problems, fmt.Errorf("auth_methods[%d]: unknown method %q", i, m))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.TokenParams)) {
		if name == "" || slices.Contains(protocolFields, name) {
			problems = append(problems, fmt.Errorf("token_params: %q is set by the broker", name))
		}
	}
	if p.BodyFormat != "form" && p.BodyFormat != "json" && p.BodyFormat != "query" {
		problems = append(problems, fmt.Errorf("body_format: must be form, json or query, not %q", p.BodyFormat))
	}
	if p.APIKeyHeader != "" && (!fieldPattern.MatchString(p.APIKeyHeader) || slices.Contains(wireHeaders, strings.ToLower(p.APIKeyHeader))) {
		problems = append(problems, fmt.Errorf("api_key_header: %q is not a header that may carry a key", p.APIKeyHeader))
	}
	if p.AudienceParameter != "audience" && p.AudienceParameter != "resource" {
		problems = append(problems, fmt.Errorf("audience_parameter: must be audience or resource, not %q", p.AudienceParameter))
	}
	if len(p.ScopeSeparator) != 1 || !strings.Contains(" ,;+|", p.ScopeSeparator) {
		problems = append(problems, errors.New(`scope_separator: must be one of blank , ; + |`))
	}
	if !printable(p.Accept) {
		problems = append(problems, errors.New("accept: must be printable ASCII"))
	}
	return problems
}

func checkReply(p Profile) (problems []error) {
	for field, value := range map[string]string{"expiry_field": p.ExpiryField, "refresh_token_expiry_field": p.RefreshTokenExpiryField} {
		if !fieldPattern.MatchString(value) {
			problems = append(problems, fmt.Errorf("%s: %q is not the name of a field", field, value))
		}
	}
	for field, value := range map[string]string{"token_path": p.TokenPath, "ok_field": p.OKField, "error_path": p.ErrorPath} {
		if value != "" && !pathPattern.MatchString(value) {
			problems = append(problems, fmt.Errorf("%s: %q is not a dotted path", field, value))
		}
	}
	if !slices.Contains([]string{"s", "ms", "unix", "unix_ms", "rfc3339"}, p.ExpiryUnit) {
		problems = append(problems, fmt.Errorf("expiry_unit: must be s, ms, unix, unix_ms or rfc3339, not %q", p.ExpiryUnit))
	}
	for i, field := range p.Metadata {
		if !mayLeave(field) {
			problems = append(problems, fmt.Errorf("metadata[%d]: %q is not a field that may be passed on", i, field))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

func checkLives(p Profile) (problems []error) {
	for _, f := range []struct {
		name  string
		value *Duration
	}{
		{"default_life", p.DefaultLife}, {"grace", p.Grace}, {"idle_life", p.IdleLife},
		{"absolute_life", p.AbsoluteLife}, {"floor", p.Floor},
	} {
		if f.value != nil && *f.value < 0 {
			problems = append(problems, fmt.Errorf("%s: must not be negative", f.name))
		}
	}
	if number(p.Strikes) < 0 || number(p.LiveTokens) < 0 {
		problems = append(problems, errors.New("strikes, live_tokens: must not be negative"))
	}
	if !(p.Rate >= 0 && p.Rate <= 1e6) || p.Burst < 0 {
		problems = append(problems, errors.New("rate, burst: must not be negative, and rate at most 1000000 per second"))
	}
	return problems
}

func checkRules(rules []ErrorRule) (problems []error) {
	for i, r := range rules {
		if !slices.Contains(classes, r.Class) {
			problems = append(problems, fmt.Errorf("errors[%d].class: unknown class %q", i, r.Class))
		}
		if r.Cause != "" && !explain.Known(r.Cause) {
			problems = append(problems, fmt.Errorf("errors[%d].cause: %q is not a cause that package explain knows", i, r.Cause))
		}
		if r.Status == 0 && r.Code == "" && r.Description == "" {
			problems = append(problems, fmt.Errorf("errors[%d]: needs a status, a code or a description", i))
		}
		if r.Status != 0 && (r.Status < 200 || r.Status > 599) {
			problems = append(problems, fmt.Errorf("errors[%d].status: must be 200 to 599", i))
		}
		if r.RetryAfter < 0 {
			problems = append(problems, fmt.Errorf("errors[%d].retry_after: must not be negative", i))
		}
	}
	return problems
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
