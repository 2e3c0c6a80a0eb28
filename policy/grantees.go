package policy

import (
	"slices"
	"time"
)

// Grantee is what one rule gives on a credential.
type Grantee struct {
	Rule       string
	Identities []string // patterns
	Actions    []Action
	Scopes     []string  // patterns of the scopes that a token may have; nil: the credential's own
	Subjects   []string  // patterns of the subjects that the caller may choose; nil: the credential's own
	Audiences  []string  // patterns of the audiences that the caller may choose; nil: the credential's own
	Until      time.Time // when it ends, as the rule is in audit mode; zero: it does not
}

// Grantees returns what the rules give on a credential, in the order of the file. Rules in audit mode that are over by now are left out.
func (p *Policy) Grantees(credential string, now time.Time) []Grantee {
	if p == nil {
		return nil
	}
	var all []Grantee
	for i := range p.rules {
		r := &p.rules[i]
		if !covers(r.credentials, credential) || r.over(now) {
			continue
		}
		all = append(all, Grantee{Rule: r.name, Identities: texts(r.identities), Actions: slices.Clone(r.actions), Scopes: texts(r.scopes),
			Subjects: texts(r.subjects), Audiences: texts(r.audiences), Until: r.until})
	}
	return all
}

// Who returns the identity patterns of the rules that give an action on a credential, sorted, each once. What scopes, subjects and audiences
// they allow is another question.
func (p *Policy) Who(action Action, credential string) []string {
	if p == nil {
		return nil
	}
	var all []string
	for i := range p.rules {
		r := &p.rules[i]
		if !slices.Contains(r.actions, action) || !covers(r.credentials, credential) {
			continue
		}
		all = append(all, texts(r.identities)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// texts are patterns as they are written.
func texts(patterns []pattern) []string {
	var all []string
	for i := range patterns {
		all = append(all, patterns[i].text)
	}
	return all
}
