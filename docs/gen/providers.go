package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/explain"
	"github.com/tokenbroker/tokenbroker/provider"
)

const providersIntro = `# Providers

<!-- Written by make docs from the profiles in provider/profiles. Change those. -->

The broker comes with a profile for each of these authorization servers. One that needs nothing in the column *with* can be named at once:
` + "`tokenctl connect NAME --provider google`" + `. For the others, and to change anything, put an entry into the [configuration file](configuration.md#providers):

` + "```yaml\nproviders:\n  acme-okta:\n    profile: okta\n    with: {domain: acme.okta.com}\n```" + `

` + "`tokenctl provider list`" + ` and ` + "`tokenctl provider show NAME`" + ` show the same; ` + "`tokenctl provider lint FILE`" + ` judges a profile of your own. Which grant suits which job:
[choosing-a-grant.md](choosing-a-grant.md). What the causes mean: [errors.md](errors.md#causes).

*Refresh tokens* says what a refresh does: *stay*, or *rotate*, that is, each may be replaced by its use; *forgiven* is how long the one before still works;
*idle* and *from consent* are when they end. Where a vendor does not say, the profile takes the strict reading.

`

// providerPages is the whole of providers.md.
func providerPages() string {
	var b strings.Builder
	b.WriteString(providersIntro)
	b.WriteString("| provider | name | grants | with | refresh tokens |\n|---|---|---|---|---|\n")
	for _, name := range provider.Builtins() {
		p, _ := provider.Builtin(name)
		fmt.Fprintf(&b, "| [%s](#%s) | `%s` | %s | %s | %s |\n", cell(p.Title), name, name, words(p.Grants), code(p.Needs()), lives(p))
	}
	for _, name := range provider.Builtins() {
		p, _ := provider.Builtin(name)
		b.WriteString(page(name, p))
	}
	return b.String()
}

func page(name string, p provider.Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n<a id=\"%s\"></a>\n\n## %s\n\n`%s`", name, p.Title, name)
	if p.TestOf != "" {
		fmt.Fprintf(&b, ", the test environment of [`%s`](#%s)", p.TestOf, p.TestOf)
	}
	fmt.Fprintf(&b, "\n\n%s\n", strings.TrimSpace(p.Notes))
	for _, part := range slices.Sorted(maps.Keys(p.Parts)) {
		is := p.Parts[part]
		fmt.Fprintf(&b, "\n- `with: {%s: …}`: %s, %s `%s`", part, is.About, either(is.Default != "", "by default", "e.g."), cmp.Or(is.Default, is.Example))
	}
	b.WriteString(facts(p))
	if len(p.Scopes) > 0 {
		b.WriteString("\n| scope | lets the holder |\n|---|---|\n")
		for _, s := range p.Scopes {
			fmt.Fprintf(&b, "| `%s` | %s |\n", s.Name, cell(s.Meaning))
		}
	}
	b.WriteString(rules(p.Errors))
	b.WriteString("\nSources: ")
	for i, s := range p.Sources {
		fmt.Fprintf(&b, "%s<%s>", either(i > 0, ", ", ""), s)
	}
	b.WriteString("\n")
	return b.String()
}

// facts are what one looks up of a profile.
func facts(p provider.Profile) string {
	list := [][2]string{
		{"Token endpoint", cmp.Or(p.TokenEndpoint, either(p.Discover != nil, "from the issuer's metadata", ""))},
		{"Client authentication", words(p.AuthMethods)},
		{"Redirect for `tokenctl connect`", redirect(p)},
		{"PKCE", either(p.PKCE == "off" && p.AuthorizationEndpoint != "", "off", "")},
		{"Asked for with each consent", code(p.ConsentScopes)},
		{"Refresh tokens", lives(p)},
		{"Handed on to workers", code(p.Metadata)},
		{"Revocation", either(p.RevocationEndpoint != "", "by the broker", either(consents(p), "none that the broker could ask for", ""))},
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, row := range list {
		if row[1] != "" {
			fmt.Fprintf(&b, "\n- %s: %s", row[0], row[1])
		}
	}
	b.WriteString("\n")
	return b.String()
}

func consents(p provider.Profile) bool {
	return slices.ContainsFunc(p.Grants, tokenbroker.GrantType.Consents)
}

func redirect(p provider.Profile) string {
	switch {
	case !slices.Contains(p.Grants, tokenbroker.GrantAuthorizationCode):
		return ""
	case p.LoopbackRedirect == "none":
		return "none; use `--link`, or paste the redirect with `--no-browser`"
	}
	return "`" + strings.Replace(p.LoopbackRedirect, "{port}", "PORT", 1) + "`" + either(strings.Contains(p.LoopbackRedirect, "{port}"), ", any port", "")
}

// lives says how refresh tokens live.
func lives(p provider.Profile) string {
	if !slices.ContainsFunc(p.Grants, tokenbroker.GrantType.Refreshes) {
		return "none"
	}
	if !slices.Contains(p.Grants, tokenbroker.GrantRefreshToken) {
		return "none come"
	}
	t := p.Traits()
	list := []string{either(t.Rotates, "rotate", "stay")}
	if t.Rotates && t.Grace > 0 {
		list = append(list, "forgiven "+long(t.Grace))
	}
	if t.KillsOld {
		list = append(list, "a refresh ends the access token before it")
	}
	if t.IdleLife > 0 {
		list = append(list, "idle "+long(t.IdleLife))
	}
	if t.AbsoluteLife > 0 {
		list = append(list, "from consent "+long(t.AbsoluteLife))
	}
	return strings.Join(list, ", ")
}

func long(d time.Duration) string {
	s := provider.Duration(d).String()
	if short := strings.TrimSuffix(s, "0s"); strings.HasSuffix(short, "m") {
		s = short
	}
	if short := strings.TrimSuffix(s, "0m"); strings.HasSuffix(short, "h") {
		s = short
	}
	return s
}

// rules are the errors that mean something of their own.
func rules(list []provider.ErrorRule) string {
	var b strings.Builder
	for _, r := range list {
		e, known := explain.Lookup(string(r.Cause))
		if !known || r.Cause == "" {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| error | text has | cause |\n|---|---|---|\n")
		}
		given := cmp.Or(r.Code, "any")
		if r.Status != 0 {
			given += fmt.Sprintf(" (%d)", r.Status)
		}
		text := either(r.Description == "", "", "`"+cell(strings.TrimPrefix(r.Description, "(?i)"))+"`")
		fmt.Fprintf(&b, "| `%s` | %s | `%s`: %s |\n", given, text, r.Cause, cell(e.Title))
	}
	return b.String()
}

func words[S ~string](list []S) string {
	var all []string
	for _, s := range list {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

func code(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "`" + strings.Join(list, "`, `") + "`"
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
