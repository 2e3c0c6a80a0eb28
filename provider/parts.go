package provider

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// partName is how a part may be called. "port" is the loopback redirect's own.
var partName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// slot is a field that may hold parts.
type slot struct {
	field string // as YAML has it
	value *string
}

// endpoints returns the fields that hold the URL of an endpoint.
func (p *Profile) endpoints() []slot {
	return []slot{
		{"token_endpoint", &p.TokenEndpoint}, {"refresh_endpoint", &p.RefreshEndpoint},
		{"authorization_endpoint", &p.AuthorizationEndpoint}, {"device_authorization_endpoint", &p.DeviceAuthorizationEndpoint},
		{"revocation_endpoint", &p.RevocationEndpoint}, {"introspection_endpoint", &p.IntrospectionEndpoint},
		{"userinfo_endpoint", &p.UserinfoEndpoint}, {"test_endpoint", &p.TestEndpoint}, {"jwks_uri", &p.JWKSURI},
	}
}

// fill puts the values of a profile's parts in their places. Nothing else in braces is touched; in a URL the check finds it.
func fill(p Profile) Profile {
	var pairs []string
	for name := range p.Parts {
		pairs = append(pairs, "{"+name+"}", p.part(name))
	}
	if len(pairs) == 0 {
		return p
	}
	values := strings.NewReplacer(pairs...)
	for _, at := range append(p.endpoints(), slot{"issuer", &p.Issuer}, slot{"assertion_audience", &p.AssertionAudience},
		slot{"grant_audience", &p.GrantAudience}) {
		*at.value = values.Replace(*at.value)
	}
	for _, params := range []map[string]string{p.TokenParams, p.AuthorizationParams, p.AssertionClaims} {
		for key, value := range params {
			params[key] = values.Replace(value)
		}
	}
	return p
}

// part returns the value of a part, "" if it has none.
func (p Profile) part(name string) string { return cmp.Or(p.With[name], p.Parts[name].Default) }

// openParts returns the names of the parts that have no value yet, sorted.
func openParts(p Profile) (open []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Parts)) {
		if p.part(name) == "" {
			open = append(open, name)
		}
	}
	return open
}

// Needs returns the parts that a configured profile has to give a value to if it starts from this one, sorted.
func (p Profile) Needs() []string { return openParts(p) }

// checkParts judges the parts and their values, before these go anywhere.
func checkParts(p Profile) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(p.With)) {
		if _, ok := p.Parts[name]; !ok {
			problems = append(problems, fmt.Errorf("with.%s: the profile has no such part; it has %s", name,
				cmp.Or(strings.Join(slices.Sorted(maps.Keys(p.Parts)), ", "), "none")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Parts)) {
		if err := checkPart(name, p.Parts[name], p.part(name)); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

func checkPart(name string, part Part, value string) error {
	re, err := regexp.Compile(`^(?:` + part.Pattern + `)$`)
	switch {
	case !partName.MatchString(name) || name == "port":
		return fmt.Errorf("parts: %q is not a name for a part", name)
	case err != nil:
		return fmt.Errorf("parts.%s.pattern: %w", name, err)
	case part.Pattern == "":
		return fmt.Errorf("parts.%s.pattern: missing", name)
	case value == "":
		return fmt.Errorf("with.%s: missing: %s, e.g. %s", name, cmp.Or(part.About, "no default"), part.Example)
	case strings.ContainsAny(value, `/@:?#%\`) || strings.ContainsFunc(value, breaks):
		return fmt.Errorf(`with.%s: must not hold a blank or any of / @ : ? # %% \`, name)
	case !re.MatchString(value):
		return fmt.Errorf("with.%s: %q is not of the form %s, e.g. %s", name, value, part.Pattern, part.Example)
	}
	return nil
}

func breaks(r rune) bool {
	return r > unicode.MaxASCII || unicode.IsSpace(r) || unicode.IsControl(r) || r == '{' || r == '}'
}
