package provider

import (
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// ScopeMeaning returns the line that says what a scope lets its holder do, "" if the profile has none. Any spelling of the scope will do.
func (p Profile) ScopeMeaning(scope string) string {
	for _, name := range []string{scope, p.CanonicalScope(scope)} {
		if i := slices.IndexFunc(p.Scopes, func(s ScopeInfo) bool { return s.Name == name }); i >= 0 {
			return p.Scopes[i].Meaning
		}
	}
	return ""
}

// CanonicalScope returns the scope that a reply means by a spelling, as it is asked for.
func (p Profile) CanonicalScope(spelling string) string {
	if scope, ok := p.ScopeAliases[spelling]; ok {
		return scope
	}
	return spelling
}

// Meant reports whether a reply that names a scope means one that was asked for: by another spelling, or as one of all on a resource.
func (p Profile) Meant(given, asked string) bool {
	is, was := p.qualified(given), p.qualified(asked)
	resource, all := strings.CutSuffix(was, p.CatchAllScope)
	return is == was || all && p.CatchAllScope != "" && strings.HasPrefix(is, resource+"/")
}

// AsAsked returns the scopes that a reply or a check of a token names, in the spelling that they were asked for in, as a set.
func (p Profile) AsAsked(given, asked []string) []string {
	given = slices.Clone(given)
	for i, s := range given {
		at := slices.IndexFunc(asked, func(a string) bool { return p.Meant(s, a) })
		switch {
		case at < 0:
			given[i] = p.CanonicalScope(s)
		case !slices.Contains(asked, s):
			given[i] = asked[at]
		}
	}
	return tokenbroker.NewVariant(given, "", "").Scopes
}

// qualified is a scope with its resource.
func (p Profile) qualified(scope string) string {
	if scope = p.CanonicalScope(scope); strings.Contains(scope, "/") {
		return scope
	}
	return p.ScopeResource + scope
}

// Knows reports whether the provider knows a grant. A profile that names no grants knows all but password. A refresh token is known wherever
// a person can consent, and a token brought by hand everywhere.
func (p Profile) Knows(g tokenbroker.GrantType) bool {
	switch {
	case slices.Contains(p.Grants, g), g == tokenbroker.GrantStatic:
		return true
	case len(p.Grants) == 0:
		return g != tokenbroker.GrantPassword
	case g == tokenbroker.GrantRefreshToken:
		return slices.ContainsFunc(p.Grants, tokenbroker.GrantType.Refreshes)
	}
	return false
}
