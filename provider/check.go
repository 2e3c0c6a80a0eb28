package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

var (
	hostPattern  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)
	fieldPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	pathPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

	authMethods = []tokenbroker.AuthMethod{
		tokenbroker.AuthClientSecretBasic, tokenbroker.AuthClientSecretPost, tokenbroker.AuthNone, tokenbroker.AuthClientSecretJWT,
		tokenbroker.AuthPrivateKeyJWT, tokenbroker.AuthTLSClientAuth, tokenbroker.AuthServiceAccount,
	}
	classes = []tokenbroker.Class{
		tokenbroker.ClassDeadGrant, tokenbroker.ClassConfiguration, tokenbroker.ClassThrottled,
		tokenbroker.ClassTransient, tokenbroker.ClassAmbiguous, tokenbroker.ClassClockSkew,
	}
	// protocolFields are set by the broker alone.
	protocolFields = []string{"grant_type", "client_id", "client_secret", "refresh_token", "scope", "code", "code_verifier",
		"assertion", "client_assertion", "client_assertion_type", "username", "password"}
	// secretFields are never passed on to workers and never written into a URL.
	secretFields = []string{"access_token", "refresh_token", "id_token", "client_secret", "secret", "token", "password",
		"assertion", "client_assertion", "code", "api_key", "apikey", "key"}
)

// check returns all that is wrong with a merged profile, each with its field, and compiles its error rules.
func check(p *Profile) []error {
	problems := compile(p.Errors)
	for _, part := range [][]error{
		checkEndpoint(*p), checkProxy(*p), checkIssuer(p.Issuer), checkRequest(*p), checkReply(*p), checkLives(*p), checkRules(p.Errors),
	} {
		problems = append(problems, part...)
	}
	return problems
}

func checkEndpoint(p Profile) []error {
	if p.TokenEndpoint == "" {
		return []error{errors.New("token_endpoint: missing")}
	}
	u, err := url.Parse(p.TokenEndpoint)
	if err != nil {
		return []error{errors.New("token_endpoint: not a URL")} // the text of err holds the URL, which may hold a secret
	}
	var problems []error
	fail := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("token_endpoint: "+format, args...))
	}
	if u.User != nil {
		fail("must not hold a user or password")
	}
	if u.Fragment != "" || strings.Contains(p.TokenEndpoint, "#") {
		fail("must not have a fragment (RFC 6749 §3.2)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fail("query can't be read")
	}
	for name := range query {
		if slices.Contains(secretFields, strings.ToLower(name)) {
			fail("must not carry %q in its query: URLs end up in logs", name)
		}
	}
	if err := checkHost(p, u); err != nil {
		fail("%w", err)
	}
	switch {
	case u.Scheme == "http" && !loopbackLiteral(u.Hostname()):
		fail("must be https; plain http is for a loopback address given as a literal, with insecure_loopback: true")
	case u.Scheme == "http" && !p.InsecureLoopback:
		fail("must be https, or set insecure_loopback: true for development")
	case u.Scheme != "http" && u.Scheme != "https":
		fail("must be an https URL")
	}
	return problems
}

// checkHost judges the host as it is written. Names are judged again by what they resolve to, when connecting.
func checkHost(p Profile, u *url.URL) error {
	host := u.Hostname()
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("port must be 1 to 65535")
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return errors.New("an address must not have a zone")
		}
		return p.CheckAddr(addr)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case host == "":
		return errors.New("has no host")
	case !hostPattern.MatchString(host):
		return errors.New("host must be a DNS name in ASCII (xn-- for other scripts) or an IP address")
	case looksLikeNumber(name):
		return errors.New("host is a number in disguise; write an IPv4 address as four decimal numbers")
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return p.CheckAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return nil
}

// looksLikeNumber reports whether some resolver would read the host as an IPv4 address (WHATWG URL, "ends in a number").
func looksLikeNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func loopbackLiteral(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	kind, _ := judge(unwrap(addr))
	return kind == addrLoopback
}

func checkProxy(p Profile) []error {
	if p.Proxy == "" {
		return nil
	}
	u, err := url.Parse(p.Proxy)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return []error{errors.New("proxy: must be an http or https URL with a host")}
	case u.User != nil:
		return []error{errors.New("proxy: must not hold a user or password")}
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return []error{errors.New("proxy: must be scheme, host and port only")}
	case strings.HasPrefix(strings.ToLower(p.TokenEndpoint), "http:"):
		return []error{errors.New("proxy: can't be used with a plain http token_endpoint")}
	}
	return nil
}

func checkIssuer(issuer string) []error {
	u, err := url.Parse(issuer)
	if issuer == "" || err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
		return nil
	}
	return []error{errors.New("issuer: must be an https URL without user, query and fragment (RFC 8414 §2)")}
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
		last := strings.ToLower(field[strings.LastIndexByte(field, '.')+1:])
		if !pathPattern.MatchString(field) || slices.Contains(secretFields, last) {
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
