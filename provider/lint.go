package provider

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/tokenbroker/tokenbroker"
)

// Severity says how much a finding matters.
type Severity string

// The severities.
const (
	SeverityError  Severity = "error"  // the broker refuses the profile
	SeverityAdvice Severity = "advice" // it works, and could tell people more
)

// Finding is one thing that [Lint] has to say of a profile.
type Finding struct {
	Provider string   // the profile's name; "" for the file itself
	Severity Severity // errors come first
	Text     string   // what is wrong and what to do
}

// Lint judges a file of profiles as [New] would, and gives advice on top. The file is either a map of provider name to profile, alone or
// under "providers" as in a configuration file, or one profile as the built-in ones are written, which is then called name. A part that
// is required and has no value is judged with its example.
func Lint(name string, data []byte) []Finding {
	profiles, err := readAny(name, data)
	if err != nil {
		return []Finding{{Severity: SeverityError, Text: err.Error()}}
	}
	var findings []Finding
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		findings = append(findings, LintProfile(name, profiles[name])...)
	}
	return findings
}

// LintProfile is [Lint] for one profile, as it is before it is merged.
func LintProfile(name string, p Profile) []Finding {
	lib, err := builtins()
	if err != nil {
		return []Finding{{Severity: SeverityError, Text: err.Error()}}
	}
	own := p
	for _, part := range openParts(p.over(lib.bases[p.baseName()])) {
		p.With = clone(p.With)
		p.With[part] = p.over(lib.bases[p.baseName()]).Parts[part].Example
	}
	merged, err := resolve(name, p, lib.bases)
	if err != nil {
		return errorsOf(name, err)
	}
	var findings []Finding
	for _, text := range append(warnings(merged), advice(own, merged)...) {
		findings = append(findings, Finding{Provider: name, Severity: SeverityAdvice, Text: text})
	}
	return findings
}

func (p Profile) baseName() string {
	if p.Base == "" {
		return genericName
	}
	return p.Base
}

func errorsOf(name string, err error) (findings []Finding) {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, e := range list {
		text := strings.TrimPrefix(e.Error(), fmt.Sprintf("provider %q: ", name))
		findings = append(findings, Finding{Provider: name, Severity: SeverityError, Text: text})
	}
	return findings
}

// readAny reads any of the forms that Lint takes.
func readAny(name string, data []byte) (map[string]Profile, error) {
	var top map[string]any
	if err := decode(data, &top); err != nil {
		return nil, err
	}
	if inner, ok := top["providers"]; ok {
		data, err := yaml.Marshal(inner)
		if err != nil {
			return nil, err
		}
		return Parse(data)
	}
	for field := range reflect.TypeFor[Profile]().Fields() {
		if _, single := top[field.Tag.Get("yaml")]; single {
			var p Profile
			err := decode(data, &p)
			return map[string]Profile{name: p}, err
		}
	}
	return Parse(data)
}

// advice is what a profile could say besides. Own is the profile before it was merged.
func advice(own, p Profile) (list []string) {
	add := func(when bool, text string) {
		if when {
			list = append(list, text)
		}
	}
	consents := p.AuthorizationEndpoint != "" || p.DeviceAuthorizationEndpoint != ""
	add(p.Notes == "", "notes: none: say where to register an app, with which redirect URI, and what is odd")
	add(len(p.Sources) == 0, "sources: none: give the documents that this was made from")
	add(consents && own.Rotates == nil && p.Base == genericName,
		"rotates: not said, so each refresh token is taken to be spent by its use; say false if a refresh brings none")
	add(consents && len(p.Scopes) == 0, "scopes: none has a meaning; a consent page can then only show their names")
	add(consents && p.RevocationEndpoint == "", "revocation_endpoint: none: tokens that are handed out live until they end by themselves")
	add(p.TestEndpoint == "" && p.IntrospectionEndpoint == "", "test_endpoint: none: tokenctl credential check can judge a token only if it is a JWT")
	for _, at := range p.endpoints() {
		if other := site(*at.value); p.TokenEndpoint != "" && other != "" && other != site(p.TokenEndpoint) && at.field != "test_endpoint" {
			list = append(list, fmt.Sprintf("%s: is on %s, the token endpoint on %s; make sure that both belong to the provider", at.field, other, site(p.TokenEndpoint)))
		}
	}
	for _, s := range p.ConsentScopes {
		add(p.ScopeMeaning(s) == "", fmt.Sprintf("scopes: %s is asked for with each consent and has no meaning", s))
	}
	return append(list, partAdvice(p.Parts)...)
}

// partAdvice finds patterns that let through what the check of values would stop.
func partAdvice(parts map[string]Part) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		part := parts[name]
		if part.About == "" || part.Example == "" {
			list = append(list, fmt.Sprintf("parts.%s: say in about and example what it is", name))
		}
		re, err := regexp.Compile(`^(?:` + part.Pattern + `)$`)
		if err == nil && slices.ContainsFunc([]string{"a/b", "a@b", "a:1", "a?b", "a#b", "a b", "a%2fb"}, re.MatchString) {
			list = append(list, fmt.Sprintf("parts.%s.pattern: lets through what no value may hold; name the characters that there can be", name))
		}
	}
	return list
}

// site returns the part of a URL's host that somebody registered, about: what matters is that it differs where people should look.
func site(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	labels := strings.Split(strings.ToLower(u.Hostname()), ".")
	keep := 2
	if n := len(labels); n > 2 && len(labels[n-1]) == 2 && slices.Contains([]string{"co", "com", "net", "org", "gov", "edu", "ac"}, labels[n-2]) {
		keep = 3
	}
	return strings.Join(labels[max(0, len(labels)-keep):], ".")
}

// Public reports whether the provider takes clients that have nothing to authenticate with.
func (p Profile) Public() bool { return slices.Contains(p.AuthMethods, tokenbroker.AuthNone) }
