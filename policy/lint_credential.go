package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// How much is too much to belong together.
const (
	maxKin      = 20 // identity patterns
	maxBranches = 5  // branches of a trust domain
	maxNamed    = 5  // of a list in a message
)

// lintCredentials looks at what all rules together give on each credential. Without facts, it takes the credentials that rules name.
func (p *Policy) lintCredentials(f Facts) []Finding {
	ix := newIndex()
	for i := range p.rules {
		if r := &p.rules[i]; r.givesTokens() && !r.over(f.Now) {
			ix.add(i, r.credentials)
		}
	}
	known := slices.SortedFunc(slices.Values(f.Credentials), func(a, b CredentialFacts) int { return cmp.Compare(a.Name, b.Name) })
	if len(known) == 0 {
		for _, name := range slices.Sorted(maps.Keys(ix.exact)) {
			known = append(known, CredentialFacts{Name: name})
		}
	}
	var all []Finding
	for _, c := range known {
		var rules []*rule
		for _, i := range ix.find(c.Name) {
			rules = append(rules, &p.rules[i])
		}
		all = append(all, lintGroup(c, rules)...)
		all = append(all, lintGrant(c, rules)...)
	}
	return all
}

// over reports whether the rule is in audit mode, and its time has passed.
func (r *rule) over(now time.Time) bool { return r.mode == ModeAudit && !now.Before(r.until) }

// lintGroup says that those who may have a credential's tokens do not belong together. Where one rule alone is to blame, that was said of
// the rule.
func lintGroup(c CredentialFacts, rules []*rule) []Finding {
	var who []pattern
	var names []string
	for _, r := range rules {
		if unrelated(r.identities) != "" {
			return nil
		}
		who, names = append(who, r.identities...), append(names, r.name)
	}
	why := unrelated(who)
	if why == "" {
		return nil
	}
	return []Finding{{CheckUnrelatedIdentities, "", c.Name, fmt.Sprintf("%s may have its tokens, by %s: give each group that belongs together a credential of its own",
		why, some("rule", names))}}
}

// lintGrant says that a credential's grant is wider than what anybody may have of it.
func lintGrant(c CredentialFacts, rules []*rule) []Finding {
	if len(rules) == 0 {
		return []Finding{{CheckScopeWithoutRule, "", c.Name, "no rule lets anybody have its tokens: delete it, or write a rule"}}
	}
	granted := c.Granted
	if len(granted) == 0 {
		granted = c.Scopes
	}
	var idle []string
	for _, s := range granted {
		if !slices.ContainsFunc(rules, func(r *rule) bool { return r.givesScope(s, c.Scopes) }) {
			idle = append(idle, s)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	return []Finding{{CheckScopeWithoutRule, "", c.Name, fmt.Sprintf("its grant has %s that no rule gives anybody: have it granted anew without, or write a rule",
		some("scope", idle))}}
}

// givesScope reports whether a token by this rule may have a scope.
func (r *rule) givesScope(scope string, own []string) bool {
	if r.scopes == nil {
		return slices.Contains(own, scope)
	}
	return covers(r.scopes, scope)
}

// unrelated says why identities do not belong together: "" if they do.
func unrelated(identities []pattern) string {
	domains, branches, distinct := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range identities {
		domain, branch := kin(identities[i].text)
		if branch == "" {
			return fmt.Sprintf("everybody in %s, by %q,", domain, identities[i].text)
		}
		domains[domain], branches[branch], distinct[identities[i].text] = true, true, true
	}
	switch {
	case len(domains) > 1:
		return "identities of " + some("trust domain", slices.Sorted(maps.Keys(domains)))
	case len(branches) > maxBranches:
		return "identities of " + some("branch", slices.Sorted(maps.Keys(branches)))
	case len(distinct) > maxKin:
		return fmt.Sprintf("%d identity patterns", len(distinct))
	}
	return ""
}

// kin returns the domain of an identity pattern, and which branch of it the pattern is in: the first segment of a path, or with Kubernetes
// the namespace, too. The branch is "" if the pattern is open to the whole domain.
func kin(text string) (domain, branch string) {
	if name, ok := strings.CutPrefix(text, "dns:"); ok {
		labels := strings.Split(name, ".")
		domain = strings.Join(labels[max(0, len(labels)-2):], ".")
		if name == "*."+domain {
			return domain, ""
		}
		return domain, "dns:"
	}
	domain, path, _ := strings.Cut(strings.TrimPrefix(text, "spiffe://"), "/")
	segments := strings.Split(path, "/")
	branch = segments[0]
	if branch == "ns" && len(segments) > 1 {
		branch += "/" + segments[1]
	}
	named := slices.ContainsFunc(segments, func(s string) bool { return !anything(s) && s != "ns" && s != "sa" })
	if strings.Contains(path, "*") && !named {
		return domain, ""
	}
	return domain, branch
}

// some names the first few of many.
func some(noun string, items []string) string {
	if len(items) == 1 {
		return noun + " " + items[0]
	}
	plural := noun + "s"
	if strings.HasSuffix(noun, "ch") {
		plural = noun + "es"
	}
	text := fmt.Sprintf("%d %s: %s", len(items), plural, strings.Join(items[:min(len(items), maxNamed)], ", "))
	if len(items) > maxNamed {
		text += " and more"
	}
	return text
}
