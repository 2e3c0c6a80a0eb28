package policy

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Mode says how a rule is meant.
type Mode string

// The modes.
const (
	// ModeEnforce is that of a rule which says nothing of it: the rule is the policy.
	ModeEnforce Mode = ""
	// ModeAudit is that of a rule which lets pass, until a date, what is to be denied or ruled on later, so that it is seen who needs it.
	// It gives token.get and token.subscribe with the credential's own scopes, subject and audience, and nothing else.
	ModeAudit Mode = "audit"
)

// String returns the mode as a policy file has it.
func (m Mode) String() string {
	if m == ModeEnforce {
		return "enforce"
	}
	return string(m)
}

// mode reads the mode of a rule and when it ends, and checks that a rule in audit mode gives no more than it may.
func (d *document) mode(n ast.Node, m map[string]ast.Node, r *rule) {
	switch text := d.word(m, "mode", checkMode); {
	case text == string(ModeAudit):
		r.mode = ModeAudit
	case text == "" && m["mode"] != nil: // it was refused, and with it what goes with it can't be judged
		return
	}
	until := m["until"]
	switch {
	case r.mode != ModeAudit && until != nil:
		d.bad(until, "until is for a rule with mode: audit; one that is enforced has no end")
	case r.mode == ModeAudit && until == nil:
		d.bad(n, "rule %q: until missing: mode audit needs a last day, as in until: 2026-12-31", r.name)
	case r.mode == ModeAudit:
		at, day := d.moment(until, "until")
		if r.until = at; day { // the day itself is in it
			r.until = at.AddDate(0, 0, 1)
		}
	}
	if r.mode == ModeAudit {
		d.audited(m)
	}
}

func checkMode(text string) error {
	if text != ModeEnforce.String() && text != string(ModeAudit) {
		return fmt.Errorf("%q must be enforce or audit", text)
	}
	return nil
}

// moment reads a time, or a day, of which it returns the beginning in UTC; zero for a nil node.
func (d *document) moment(n ast.Node, key string) (at time.Time, day bool) {
	if n == nil {
		return time.Time{}, false
	}
	text, ok := d.text(n, key)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(time.DateOnly, text)
	if day = err == nil; !day {
		at, err = time.Parse(time.RFC3339, text)
	}
	if at = at.UTC(); err != nil || at.Year() < 2000 || at.Year() > 9998 { // far from what other formats can't hold
		d.bad(n, "%s must be a day, as in 2026-12-31, or a time, as in 2026-12-31T18:00:00Z", key)
		return time.Time{}, false
	}
	return at, day
}

// audited refuses what a rule in audit mode may not say: it must not become a way round the ceilings.
func (d *document) audited(m map[string]ast.Node) {
	for _, key := range []string{"scopes", "subjects", "audiences"} {
		if m[key] != nil {
			d.bad(m[key], "%s: a rule with mode: audit covers the credential's own only; leave the key out", key)
		}
	}
	seq, ok := m["actions"].(*ast.SequenceNode)
	if !ok {
		return
	}
	for _, v := range seq.Values {
		s, isText := v.(*ast.StringNode)
		if !isText {
			continue
		}
		if all, err := expandAction(s.Value); err == nil && !auditable(all) {
			d.bad(v, "actions: a rule with mode: audit may have %s and %s only, not %q", TokenGet, TokenSubscribe, s.Value)
		}
	}
}

func auditable(actions []Action) bool {
	for _, a := range actions {
		if a != TokenGet && a != TokenSubscribe {
			return false
		}
	}
	return true
}
