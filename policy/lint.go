package policy

import (
	"fmt"
	"strings"
	"time"
)

// What lint takes as too long.
const (
	unusedAfter = 30 * 24 * time.Hour
	farAhead    = 366 * 24 * time.Hour
)

// Facts is what there is and what was used, for [Policy.Lint]. The zero Facts suit a policy file alone.
type Facts struct {
	Credentials []CredentialFacts
	Used        map[string]time.Time // name of a rule → when it last allowed something
	Since       time.Time            // since when uses are counted; zero: they are not
	Now         time.Time            // zero: nothing is called unused or over
}

// CredentialFacts is what lint needs to know of a credential.
type CredentialFacts struct {
	Name     string
	Scopes   []string // its own
	Granted  []string // what its grant gives, in the spelling of its own scopes; none: not known
	Subject  string   // its own
	Audience string   // its own
}

// The checks of lint.
const (
	CheckWideCredential      = "wide_credential"
	CheckUnrelatedIdentities = "unrelated_identities"
	CheckScopeWithoutRule    = "scope_without_rule"
	CheckUnusedRule          = "unused_rule"
	CheckAuditMode           = "audit_mode"
	CheckAuditModeOver       = "audit_mode_over"
	CheckWideScopes          = "wide_scopes"
	CheckWideSubjects        = "wide_subjects"
	CheckShadowedRule        = "shadowed_rule"
)

// Finding is one thing that is doubtful.
type Finding struct {
	Check      string // a word of the checks above
	Rule       string // that it is about; "" if none in particular
	Credential string // that it is about; "" if none in particular
	Message    string // what was found and what to do
}

// Lint returns what is doubtful in a policy: first of the rules, in the order of the file, then of the credentials, in the order of their
// names.
func (p *Policy) Lint(f Facts) []Finding {
	if p == nil {
		return nil
	}
	var all []Finding
	shadows := newShadows(p)
	for i := range p.rules {
		r := &p.rules[i]
		all = append(all, r.lintWidth()...)
		if by := shadows.of(i); by != nil {
			all = append(all, Finding{CheckShadowedRule, r.name, "", fmt.Sprintf("rule %s allows all that it allows, and goes first: delete one of them", by.name)})
		}
		all = append(all, r.lintUse(f)...)
		all = append(all, r.lintMode(f.Now)...)
	}
	return append(all, p.lintCredentials(f)...)
}

// lintWidth looks at patterns that take more than anybody can have had in mind.
func (r *rule) lintWidth() []Finding {
	var all []Finding
	if r.givesTokens() {
		for i := range r.credentials {
			if text := r.credentials[i].text; anything(text) {
				all = append(all, Finding{CheckWideCredential, r.name, "", fmt.Sprintf(
					"%q gives tokens of all credentials, also of those that are made later: name the credentials, or their folder", text)})
			}
		}
		for i := range r.scopes {
			if text := r.scopes[i].text; anything(text) {
				all = append(all, Finding{CheckWideScopes, r.name, "", fmt.Sprintf(
					"%q is no ceiling: name the scopes, or leave the key out, which allows the credential's own", text)})
			}
		}
		if why := unrelated(r.identities); why != "" {
			all = append(all, Finding{CheckUnrelatedIdentities, r.name, "", why + " may have its tokens: write a rule for each group that belongs together"})
		}
	}
	for i := range r.subjects {
		if s := &r.subjects[i]; s.crossesDomains() {
			all = append(all, Finding{CheckWideSubjects, r.name, "", fmt.Sprintf("%q lets callers act as people of any domain: end it in @ and the domain", s.text)})
		}
	}
	return all
}

// givesTokens reports whether the rule hands out tokens.
func (r *rule) givesTokens() bool {
	for _, a := range r.actions {
		if a == TokenGet || a == TokenSubscribe {
			return true
		}
	}
	return false
}

// anything reports whether a pattern is made of wildcards alone.
func anything(text string) bool { return strings.Trim(text, "*/") == "" }

// crossesDomains reports whether the pattern fits subjects of domains that it does not name. It names one by what is behind its last
// wildcard: "@" and a domain, or the end of one that has two labels at least.
func (p *pattern) crossesDomains() bool {
	if p.exact() {
		return false
	}
	tail := p.parts[len(p.parts)-1].literal
	if _, domain, ok := strings.Cut(tail, "@"); ok {
		return domain == ""
	}
	under := strings.HasPrefix(tail, ".") && strings.Contains(strings.Trim(tail, "."), ".")
	return !under || !strings.Contains(p.text, "@")
}

// lintUse says that a rule is not used. It takes a month of counting to say so.
func (r *rule) lintUse(f Facts) []Finding {
	last := f.Used[r.name]
	if f.Now.IsZero() || f.Since.IsZero() || f.Now.Sub(f.Since) < unusedAfter || f.Now.Sub(last) < unusedAfter {
		return nil
	}
	since := "since uses are counted, " + f.Since.UTC().Format(time.DateOnly)
	if !last.IsZero() {
		since = "since " + last.UTC().Format(time.DateOnly)
	}
	return []Finding{{CheckUnusedRule, r.name, "", "it has allowed nothing " + since + ": delete it if nobody needs it any more"}}
}

// lintMode says that a rule is in audit mode, or was.
func (r *rule) lintMode(now time.Time) []Finding {
	until := r.until.Format(time.RFC3339)
	switch {
	case r.mode != ModeAudit:
		return nil
	case !now.IsZero() && !now.Before(r.until):
		return []Finding{{CheckAuditModeOver, r.name, "", "it has allowed nothing since " + until + ": delete it"}}
	case !now.IsZero() && r.until.Sub(now) > farAhead:
		return []Finding{{CheckAuditMode, r.name, "", "it lets pass what no enforced rule allows until " + until + ", more than a year ahead: choose an earlier day"}}
	}
	return []Finding{{CheckAuditMode, r.name, "", "it lets pass what no enforced rule allows until " + until + ": enforce what is needed by then"}}
}
