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

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)

func checkEndpoints(p Profile) (problems []error) {
	if p.TokenEndpoint == "" && !on(p.Discover) && p.asksForTokens() {
		problems = append(problems, errors.New("token_endpoint: missing"))
	}
	for _, at := range p.endpoints() {
		derived := at.field == "refresh_endpoint" && *at.value == p.TokenEndpoint || at.field == "test_endpoint" && *at.value == p.UserinfoEndpoint
		if *at.value == "" || derived {
			continue
		}
		raw := *at.value
		if at.field == "revocation_endpoint" && p.RevocationStyle == "github" {
			raw = strings.Replace(raw, "{client_id}", "id", 1)
		}
		for _, err := range checkURL(p, raw) {
			problems = append(problems, fmt.Errorf("%s: %w", at.field, err))
		}
	}
	return append(problems, checkResponseType(p)...)
}

// asksForTokens reports whether any grant of the profile sends a request to the token endpoint.
func (p Profile) asksForTokens() bool {
	return len(p.Grants) == 0 || slices.ContainsFunc(p.Grants, func(g tokenbroker.GrantType) bool {
		return g != tokenbroker.GrantStatic && g != tokenbroker.GrantSelfSignedJWT && g != tokenbroker.GrantGoogleADC
	})
}

func on(b *bool) bool { return b != nil && *b }

// checkURL judges the URL of an endpoint. No text of it gets into a problem: it may hold a secret.
func checkURL(p Profile, raw string) (problems []error) {
	u, err := url.Parse(raw)
	if err != nil {
		return []error{errors.New("not a URL")}
	}
	fail := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if u.User != nil {
		fail("must not hold a user or password")
	}
	if u.Fragment != "" || strings.Contains(raw, "#") {
		fail("must not have a fragment (RFC 6749 §3.2)")
	}
	if strings.ContainsAny(raw, "{}") {
		fail("names a part in braces that the profile does not declare")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fail("query can't be read")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(secretFields, strings.ToLower(name)) {
			fail("must not carry %q in its query: URLs end up in logs", name)
		}
	}
	if err := checkHost(p, u); err != nil {
		problems = append(problems, err)
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

// checkResponseType refuses the implicit grant, whose tokens travel in URLs, wherever it may be written.
func checkResponseType(p Profile) (problems []error) {
	const reason = `response_type must be "code": any other one has tokens in URLs, browser history and logs (implicit grant, RFC 9700 §2.1.2)`
	if value, given := p.AuthorizationParams["response_type"]; given && value != "code" {
		problems = append(problems, errors.New("authorization_params: "+reason))
	}
	u, err := url.Parse(p.AuthorizationEndpoint)
	if err != nil {
		return problems
	}
	for name, values := range u.Query() {
		if strings.EqualFold(name, "response_type") && !slices.Equal(values, []string{"code"}) {
			problems = append(problems, errors.New("authorization_endpoint: "+reason))
		}
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
	if p.Proxy == "" && p.ProxyResolves {
		return []error{errors.New("proxy_resolves: there is no proxy")}
	}
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
	if err := checkHost(Profile{AllowPrivate: true}, u); err != nil {
		return []error{fmt.Errorf("proxy: %w", err)}
	}
	return nil
}

func checkIssuer(p Profile) []error {
	if p.Issuer == "" {
		if on(p.Discover) || on(p.IssParameter) || p.AssertionAudience == audienceIssuer || p.GrantAudience == audienceIssuer {
			return []error{errors.New("issuer: missing; discover, iss_parameter or an audience needs it")}
		}
		return nil
	}
	u, err := url.Parse(p.Issuer)
	loopback := err == nil && u.Scheme == "http" && p.InsecureLoopback && loopbackLiteral(u.Hostname())
	switch {
	case err != nil || u.Scheme != "https" && !loopback || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return []error{errors.New("issuer: must be an https URL without user, query and fragment (RFC 8414 §2)")}
	case strings.ContainsAny(p.Issuer, "{}"):
		return []error{errors.New("issuer: names a part in braces that the profile does not declare")}
	}
	if err := checkHost(p, u); err != nil {
		return []error{fmt.Errorf("issuer: %w", err)}
	}
	return nil
}
