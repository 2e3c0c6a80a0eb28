package policy

import "time"

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

// Lint returns what is doubtful in a policy: first of the rules, in the order of the file, then of the credentials, in order of names.
func (p *Policy) Lint(f Facts) []Finding {
	if p == nil {
		return nil
	}
	var all []Finding
	for i := range p.rules {
		r := &p.rules[i]
		all = append(all, r.lintMode(f.Now)...)
	}
	return all
}

// lintMode says that a rule is in audit mode, or was.
func (r *rule) lintMode(now time.Time) []Finding {
	if r.mode != ModeAudit {
		return nil
	}
	return []Finding{{Check: CheckAuditMode, Rule: r.name, Message: "lets pass what it names " + r.lasts()}}
}
