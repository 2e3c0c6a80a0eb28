package provider

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

//go:embed profiles/*.yaml
var builtin embed.FS

// genericName is the profile that all others start from.
const genericName = "generic"

// Catalogue holds the configured providers. It does not change after New, so any number of goroutines may use it.
type Catalogue struct {
	profiles map[string]Profile // provider name → merged and checked profile
	warnings []string
}

// New merges each profile over the built-in one it names and checks the outcome. The error joins all problems of all
// profiles, each with the provider's name and the field.
func New(configured map[string]Profile) (*Catalogue, error) {
	bases, err := builtins()
	if err != nil {
		return nil, err
	}
	c := &Catalogue{profiles: map[string]Profile{}}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		p, err := resolve(name, configured[name], bases)
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

// builtins reads the embedded profiles: each file over the generic one, under its file name.
func builtins() (map[string]Profile, error) {
	files, err := builtin.ReadDir("profiles")
	if err != nil {
		return nil, fmt.Errorf("read built-in profiles: %w", err)
	}
	profiles := map[string]Profile{}
	for _, f := range files {
		data, err := builtin.ReadFile(path.Join("profiles", f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read built-in profiles: %w", err)
		}
		var p Profile
		if err := decode(data, &p); err != nil {
			return nil, fmt.Errorf("read built-in profile %s: %w", f.Name(), err)
		}
		profiles[strings.TrimSuffix(f.Name(), ".yaml")] = p
	}
	for name, p := range profiles {
		profiles[name] = p.over(profiles[genericName])
	}
	return profiles, nil
}

// resolve merges and checks one profile.
func resolve(name string, p Profile, bases map[string]Profile) (Profile, error) {
	base, ok := bases[cmp.Or(p.Base, genericName)]
	if !ok {
		return Profile{}, fmt.Errorf("provider %q: profile: no built-in profile %q; there are %s",
			name, p.Base, strings.Join(slices.Sorted(maps.Keys(bases)), ", "))
	}
	p.Base = cmp.Or(p.Base, genericName)
	p = p.over(base)
	var problems []error
	for _, err := range append(checkName(name), check(&p)...) {
		problems = append(problems, fmt.Errorf("provider %q: %w", name, err))
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

// Names returns the names of the providers, sorted.
func (c *Catalogue) Names() []string { return slices.Sorted(maps.Keys(c.profiles)) }

// Warnings returns what is allowed but should be known, one sentence each, for a check of the configuration to print.
func (c *Catalogue) Warnings() []string { return slices.Clone(c.warnings) }

func warnings(p Profile) (list []string) {
	if p.InsecureLoopback {
		list = append(list, "insecure_loopback: secrets may be sent without TLS, to this machine only; use it for development alone")
	}
	if p.AllowPrivate {
		list = append(list, "allow_private: the token endpoint may resolve to private and loopback addresses")
	}
	if p.Proxy != "" {
		list = append(list, "proxy: addresses behind the proxy can't be checked")
	}
	if p.Downscopes != nil && *p.Downscopes && p.TokenPath != "" {
		list = append(list, "downscopes: the reply must name the scopes inside token_path, else narrower tokens are refused")
	}
	return list
}
