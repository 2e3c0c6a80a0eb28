package policy

import (
	"slices"
	"strings"
)

// includes reports whether p provably fits all that q fits. Where it reports false, p may do so all the same.
func (p *pattern) includes(q *pattern) bool {
	switch {
	case p.text == q.text:
		return true
	case q.exact():
		return p.match(q.text)
	case len(p.parts) != 1 || p.parts[0].literal != "":
		return false
	}
	rest, ok := strings.CutPrefix(q.start, p.start)
	return ok && (p.parts[0].deep || q.shallow(rest))
}

// shallow reports whether what the pattern fits has no "/" behind its start, of which rest is the end.
func (p *pattern) shallow(rest string) bool {
	return !strings.Contains(rest, "/") && !slices.ContainsFunc(p.parts, func(pt part) bool { return pt.deep || strings.Contains(pt.literal, "/") })
}

// includesAll reports whether each pattern of small is provably included in one of large.
func includesAll(large, small []pattern) bool {
	for i := range small {
		if !slices.ContainsFunc(large, func(p pattern) bool { return p.includes(&small[i]) }) {
			return false
		}
	}
	return true
}

// fewEnough are rules that are compared faster than others are looked for.
const fewEnough = 64

// shadows finds, for rules by number, another rule that takes every request which the rule allows, so that the rule itself never decides.
type shadows struct {
	policy *Policy
	byWho  *index // identities → rules
	byWhat *index // credentials → rules
}

func newShadows(p *Policy) shadows {
	s := shadows{p, newIndex(), newIndex()}
	for i := range p.rules {
		s.byWho.add(i, p.rules[i].identities)
		s.byWhat.add(i, p.rules[i].credentials)
	}
	return s
}

// of returns the first rule that shadows rule number i, or nil. That rule includes each identity and each credential, so it is looked for
// where there are fewer: many rules may share an identity, or a credential, but few share both.
func (s shadows) of(i int) *rule {
	small := &s.policy.rules[i]
	var near []int
	if len(small.credentials) > 0 {
		near = s.byWhat.wider(&small.credentials[0])
	}
	if len(small.credentials) == 0 || len(near) > fewEnough {
		if also := s.byWho.wider(&small.identities[0]); len(small.credentials) == 0 || len(also) < len(near) {
			near = also
		}
	}
	slices.Sort(near)
	for _, k := range near {
		if k != i && s.before(k, i) && s.policy.rules[k].includes(small) {
			return &s.policy.rules[k]
		}
	}
	return nil
}

// before reports whether rule k decides where rule i would allow as well.
func (s shadows) before(k, i int) bool {
	a, b := &s.policy.rules[k], &s.policy.rules[i]
	switch {
	case a.mode != b.mode:
		return b.mode == ModeAudit
	case a.mode == ModeAudit:
		return k < i && !a.until.Before(b.until)
	}
	return k < i
}

// includes reports whether r provably allows all that small allows.
func (r *rule) includes(small *rule) bool {
	for _, a := range small.actions {
		if _, ok := slices.BinarySearch(r.actions, a); !ok {
			return false
		}
	}
	return includesAll(r.credentials, small.credentials) && includesAll(r.identities, small.identities) &&
		includesAll(r.oauthClients, small.oauthClients) && r.includesScopes(small) &&
		includesAll(r.subjects, small.subjects) && includesAll(r.audiences, small.audiences)
}

// includesScopes is includes of scopes: those of the credential, which nobody knows here, are covered by a rule that has none either, or by
// one that takes all.
func (r *rule) includesScopes(small *rule) bool {
	if small.scopes == nil && small.gives(familyToken) {
		return r.scopes == nil || open(r.scopes)
	}
	return includesAll(r.scopes, small.scopes)
}

// gives reports whether the rule has an action of a family.
func (r *rule) gives(family string) bool {
	return slices.ContainsFunc(r.actions, func(a Action) bool { return a.family() == family })
}
