package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What Diff says at most.
const (
	maxDiffLines = 50
	maxDiffItems = 10 // added, and as many removed, of one key
)

// Diff says in a line for each rule how one policy differs from another, for a log: which rules came, went and changed, and what they
// give more and less. Of many lines it returns the first 50 and how many more there are. A nil Policy has no rules.
func Diff(old, now *Policy) []string {
	var lines []string
	before, after := old.byName(), now.byName()
	for _, r := range now.list() {
		was := before[r.name]
		changes := strings.Join(changes(was, r), "; ")
		switch {
		case was == nil:
			lines = append(lines, fmt.Sprintf("rule %s: added; %s", r.name, changes))
		case changes != "":
			lines = append(lines, fmt.Sprintf("rule %s: %s", r.name, changes))
		}
	}
	for _, r := range old.list() {
		if after[r.name] == nil {
			lines = append(lines, fmt.Sprintf("rule %s: removed; %s", r.name, strings.Join(changes(r, nil), "; ")))
		}
	}
	if !slices.Equal(shared(old, after), shared(now, before)) {
		lines = append(lines, "rules: in another order")
	}
	if more := len(lines) - maxDiffLines; more > 0 {
		lines = append(lines[:maxDiffLines], fmt.Sprintf("and %d lines more", more))
	}
	return lines
}

func (p *Policy) list() []*rule {
	all := make([]*rule, p.Len())
	for i := range all {
		all[i] = &p.rules[i]
	}
	return all
}

func (p *Policy) byName() map[string]*rule {
	all := make(map[string]*rule, p.Len())
	for _, r := range p.list() {
		all[r.name] = r
	}
	return all
}

// shared are the names of the rules that another policy has as well, in order.
func shared(p *Policy, other map[string]*rule) []string {
	var names []string
	for _, r := range p.list() {
		if other[r.name] != nil {
			names = append(names, r.name)
		}
	}
	return names
}

// changes says key by key how a rule differs from what it was. A rule that was not, or is not any more, is nil.
func changes(was, now *rule) []string {
	both, a, b := was != nil && now != nil, cmp.Or(was, &rule{}), cmp.Or(now, &rule{})
	var all []string
	switch there := cmp.Or(now, was); {
	case !both && there.mode == ModeAudit:
		all = append(all, "mode "+there.mode.String(), "until "+end(there))
	case both && a.mode != b.mode:
		all = append(all, fmt.Sprintf("mode %s -> %s", a.mode, b.mode))
	}
	if both && !a.until.Equal(b.until) {
		all = append(all, fmt.Sprintf("until %s -> %s", end(a), end(b)))
	}
	before := a.keys()
	for i, key := range b.keys() {
		more, less := without(key.items, before[i].items), without(before[i].items, key.items)
		if len(more)+len(less) == 0 {
			continue
		}
		text := key.name + " " + strings.Join(append(signed("+", more), signed("-", less)...), ", ")
		switch {
		case both && len(before[i].items) == 0:
			text += " (was left out)"
		case both && len(key.items) == 0:
			text += " (is left out)"
		}
		all = append(all, text)
	}
	return all
}

// list is one list of a rule, as it is written.
type list struct {
	name  string
	items []string
}

// keys are the lists of a rule, always all of them.
func (r *rule) keys() []list {
	var actions []string
	for _, a := range r.actions {
		actions = append(actions, string(a))
	}
	return []list{
		{"identities", texts(r.identities)}, {"actions", actions}, {"credentials", texts(r.credentials)}, {"oauth_clients", texts(r.oauthClients)},
		{"scopes", texts(r.scopes)}, {"subjects", texts(r.subjects)}, {"audiences", texts(r.audiences)},
	}
}

func end(r *rule) string {
	if r.mode != ModeAudit {
		return "no end"
	}
	return r.until.Format(time.RFC3339)
}

// without are the items that others does not have, sorted.
func without(items, others []string) []string {
	has := make(map[string]bool, len(others))
	for _, o := range others {
		has[o] = true
	}
	rest := slices.DeleteFunc(slices.Clone(items), func(s string) bool { return has[s] })
	slices.Sort(rest)
	return rest
}

// signed puts a sign before each item, and counts those that are too many.
func signed(sign string, items []string) []string {
	var out []string
	for i, s := range items {
		if i == maxDiffItems {
			return append(out, fmt.Sprintf("%s%d more", sign, len(items)-i))
		}
		out = append(out, sign+s)
	}
	return out
}
