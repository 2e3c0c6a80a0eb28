package policy

import (
	"slices"
	"time"
)

// Policy is a parsed policy file. It does not change, so any number of goroutines may use it. A nil Policy denies.
type Policy struct {
	revision string
	rules    []rule
	byAction map[Action]*index
}

// rule is one rule, compiled. A nil list allows nothing of its kind, but nil scopes allow a token with the credential's own.
type rule struct {
	name         string
	mode         Mode
	until        time.Time // of a rule in audit mode: it allows nothing from then on
	actions      []Action
	identities   []pattern
	credentials  []pattern
	oauthClients []pattern
	scopes       []pattern
	subjects     []pattern
	audiences    []pattern
}

// Request is what is to be decided. What it carries is judged, whatever the action is; a token action without a credential, and
// so on for the other families, is denied.
type Request struct {
	Identity    string    // of the caller, from its certificate
	Action      Action    // what it wants to do
	Credential  string    // name, "" if the action has none
	OAuthClient string    // name, "" if the action has none
	Scopes      []string  // what the token would carry; for a token action, none means the credential's own
	Own         []string  // the credential's own scopes: all that a token may have by a rule without scopes
	AnyScope    bool      // scopes that nobody knows yet would come along: only a rule that takes any scope whatever, by "**", allows that
	Subject     string    // the one that the caller chose; "" when it left, or named, the credential's default
	Audience    string    // the one that the caller chose; "" when it left, or named, the credential's default
	Time        time.Time // when; zero: rules in audit mode allow nothing
}

// Reason says why a request was denied: the last hurdle that the rule that came furthest did not take.
type Reason string

// The reasons. ReasonRule, ReasonAction, ReasonCredential, ReasonOAuthClient and ReasonExpired must look to the caller like an unknown
// name; the others may be told, as the caller may use the credential.
const (
	ReasonAllowed     Reason = ""             // it was not denied
	ReasonRule        Reason = "no_rule"      // no rule gives the identity this action at all; of a Decision only
	ReasonAction      Reason = "action"       // the rule does not give this action; of a Verdict only
	ReasonCredential  Reason = "credential"   // no such rule covers the credential
	ReasonOAuthClient Reason = "oauth_client" // no such rule covers the OAuth client
	ReasonScope       Reason = "scope"        // no such rule covers all the scopes; see Decision.DeniedScope
	ReasonSubject     Reason = "subject"      // no such rule lets the caller choose the subject
	ReasonAudience    Reason = "audience"     // no such rule lets the caller choose the audience
	ReasonExpired     Reason = "expired"      // a rule in audit mode would have allowed it until its date
)

// Decision is the answer to a Request.
type Decision struct {
	Allowed     bool
	Rule        string    // name of the rule that allowed it: the first in the file that is enforced, else the first; "" if denied
	Reason      Reason    // why it was denied
	DeniedScope string    // for ReasonScope: the first one that the nearest rule does not cover; "" if there was none to judge
	Mode        Mode      // of the rule that allowed it; its caller should count what passes by ModeAudit
	Until       time.Time // for ModeAudit: the same request is denied from then on
}

// Decide answers a request.
func (p *Policy) Decide(r Request) Decision {
	best, at, family := verdict{}, -1, r.Action.family()
	p.each(r.Identity, r.Action, func(i int) bool {
		if best.hurdle == hurdleNone && i >= at {
			return true // no later rule can do better
		}
		v := p.rules[i].judge(&r, family)
		if at < 0 || v.closer(best) || !best.closer(v) && i < at {
			best, at = v, i
		}
		return true
	})
	switch {
	case at < 0:
		return Decision{Reason: ReasonRule}
	case best.hurdle.reason() == ReasonAllowed:
		r := &p.rules[at]
		return Decision{Allowed: true, Rule: r.name, Mode: r.mode, Until: r.until}
	}
	return Decision{Reason: best.hurdle.reason(), DeniedScope: best.scope}
}

// Grants reports whether any rule gives the identity the action, on whatever. A caller for whom it does not may be told so
// without giving away what exists.
func (p *Policy) Grants(identity string, action Action) bool {
	granted := false
	p.each(identity, action, func(int) bool { granted = true; return false })
	return granted
}

// Revision identifies the content of the policy: the first 16 hex digits of the SHA-256 of the file, so that
// "sha256sum policy.yaml" shows whether it is in force. It is "" for a nil Policy.
func (p *Policy) Revision() string {
	if p == nil {
		return ""
	}
	return p.revision
}

// Identities returns the identity patterns of all rules, sorted, each once.
func (p *Policy) Identities() []string {
	if p == nil {
		return nil
	}
	var all []string
	for i := range p.rules {
		all = append(all, texts(p.rules[i].identities)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Len is the number of rules.
func (p *Policy) Len() int {
	if p == nil {
		return 0
	}
	return len(p.rules)
}

// each calls visit for rules with the action and the identity until it returns false. A rule may come more than once, and
// they come in no order.
func (p *Policy) each(identity string, action Action, visit func(int) bool) {
	if p == nil || identity == "" || climbs(identity) {
		return
	}
	if ix := p.byAction[action]; ix != nil {
		ix.each(identity, visit)
	}
}

// add puts rule number i into the index under each of its actions.
func (p *Policy) add(i int) {
	r := &p.rules[i]
	for _, a := range r.actions {
		ix := p.byAction[a]
		if ix == nil {
			ix = newIndex()
			p.byAction[a] = ix
		}
		ix.add(i, r.identities)
	}
}
