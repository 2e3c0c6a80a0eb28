package policy

import (
	"slices"
	"time"
)

// Verdict is what one rule says of a request.
type Verdict struct {
	Rule        string
	Reason      Reason    // the hurdle that it did not take; "": it allows the request
	DeniedScope string    // for ReasonScope: the first one that it does not cover; "" if there was none to judge
	Mode        Mode      // of the rule
	Until       time.Time // for ModeAudit: when it ends
}

// Explain returns what each rule that names the identity says of a request, in the order of the file. [Policy.Decide] allows what one of
// them allows, by the first of those, the enforced ones before those in audit mode.
func (p *Policy) Explain(r Request) []Verdict {
	if p == nil || climbs(r.Identity) {
		return nil
	}
	var all []Verdict
	for i := range p.rules {
		rule := &p.rules[i]
		if !covers(rule.identities, r.Identity) {
			continue
		}
		v := Verdict{Rule: rule.name, Reason: ReasonAction, Mode: rule.mode, Until: rule.until}
		if slices.Contains(rule.actions, r.Action) {
			found := rule.judge(&r, r.Action.family())
			v.Reason, v.DeniedScope = found.hurdle.reason(), found.scope
		}
		all = append(all, v)
	}
	return all
}
