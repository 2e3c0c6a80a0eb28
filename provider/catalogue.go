package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Catalogue holds the providers: the configured ones, and each built-in one that needs no configuration, unless one of its name is
// configured. It does not change after New, so any number of goroutines may use it.
type Catalogue struct {
	profiles   map[string]Profile // provider name → merged and checked profile
	configured []string           // names, sorted
	warnings   []string
}

// New merges each profile over the built-in one it names and checks the outcome. The error joins all problems of all
// profiles, each with the provider's name and the field.
func New(configured map[string]Profile) (*Catalogue, error) {
	lib, err := builtins()
	if err != nil {
		return nil, err
	}
	c := &Catalogue{profiles: maps.Clone(lib.usable), configured: slices.Sorted(maps.Keys(configured))}
	var problems []error
	for _, name := range c.configured {
		p, err := resolve(name, configured[name], lib.bases)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c.profiles[name] = p
		for _, w := range warnings(p) {
			c.warnings = append(c.warnings, fmt.Sprintf("provider %s: %s", name, w))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// resolve merges and checks one configured profile.
func resolve(name string, p Profile, bases map[string]Profile) (Profile, error) {
	base, ok := bases[cmp.Or(p.Base, genericName)]
	if !ok {
		return Profile{}, fmt.Errorf("provider %q: profile: no built-in profile %q; there are %s",
			name, p.Base, strings.Join(slices.Sorted(maps.Keys(bases)), ", "))
	}
	p.Base = cmp.Or(p.Base, genericName)
	return finish(name, p.over(base))
}

// finish puts the parts' values in their places and checks a merged profile.
func finish(name string, p Profile) (Profile, error) {
	problems := append(checkName(name), checkParts(p)...)
	if len(problems) == 0 {
		p = fill(p).complete(name)
		problems = check(&p)
	}
	for i, err := range problems {
		problems[i] = fmt.Errorf("provider %q: %w", name, err)
	}
	return p, errors.Join(problems...)
}

func checkName(name string) []error {
	if err := tokenbroker.ValidateName(name); err != nil || strings.Contains(name, "/") {
		return []error{errors.New("name must be of the form [a-z0-9][a-z0-9._-]*")}
	}
	return nil
}

// compile prepares the error rules of a profile of its own.
func compile(rules []ErrorRule) (problems []error) {
	for i := range rules {
		re, err := regexp.Compile(rules[i].Description)
		if err != nil {
			problems = append(problems, fmt.Errorf("errors[%d].description: %w", i, err))
			continue
		}
		if rules[i].Description != "" {
			rules[i].pattern = re
		}
	}
	return problems
}

// Profile returns the merged profile of a provider. The caller must not change what it refers to.
func (c *Catalogue) Profile(name string) (Profile, bool) {
	p, ok := c.profiles[name]
	return p, ok
}

// Traits returns what the engine has to know of a provider.
func (c *Catalogue) Traits(name string) (tokenbroker.Traits, bool) {
	p, ok := c.profiles[name]
	if !ok {
		return tokenbroker.Traits{}, false
	}
	return p.Traits(), true
}

// Names returns the names of all providers that a credential may name, sorted.
func (c *Catalogue) Names() []string { return slices.Sorted(maps.Keys(c.profiles)) }

// Configured returns the names of those that were configured, sorted.
func (c *Catalogue) Configured() []string { return slices.Clone(c.configured) }

// Builtins returns the names of those that came with the broker and were not configured, sorted.
func (c *Catalogue) Builtins() []string {
	return slices.DeleteFunc(c.Names(), func(name string) bool { return slices.Contains(c.configured, name) })
}

// Warnings returns what is allowed to the configured providers but should be known, one sentence each, for a check of the configuration to
// print.
func (c *Catalogue) Warnings() []string { return slices.Clone(c.warnings) }

func warnings(p Profile) (list []string) {
	if p.InsecureLoopback {
		list = append(list, "insecure_loopback: secrets may be sent without TLS, to this machine only; use it for development alone")
	}
	if p.AllowPrivate {
		list = append(list, "allow_private: the token endpoint may resolve to private and loopback addresses")
	}
	if p.ProxyResolves {
		list = append(list, "proxy_resolves: addresses behind the proxy can't be checked: it is trusted not to reach inside")
	}
	if p.Downscopes != nil && *p.Downscopes && p.TokenPath != "" {
		list = append(list, "downscopes: the reply must name the scopes inside token_path, else narrower tokens are refused")
	}
	if p.PKCE == pkceOff {
		list = append(list, "pkce: off: an authorization code that leaks can be used by whoever has it and the client's secret")
	}
	if slices.Contains(p.Grants, tokenbroker.GrantPassword) {
		list = append(list, "grants: password hands a person's password to the broker; RFC 9700 §2.4 forbids it where there is another way")
	}
	return list
}
