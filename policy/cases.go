package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tokenbroker/tokenbroker"
)

// Case is a decision that somebody expects of a policy.
type Case struct {
	Name    string // "" if it has none
	Line    int    // of the file, where it begins
	Request Request
	Allow   bool   // the decision
	Rule    string // that has to allow it; "": any
	Reason  Reason // for which it has to be denied; "": any
}

// Mismatch is a case that a policy decides otherwise.
type Mismatch struct {
	Case     Case
	Got      Decision
	Verdicts []Verdict // of the rules that name the identity
}

// String says in a line what was got and what was wanted.
func (m Mismatch) String() string {
	got := outcome(m.Got.Allowed, m.Got.Rule, m.Got.Reason)
	if m.Got.DeniedScope != "" {
		got += " " + m.Got.DeniedScope
	}
	return fmt.Sprintf("got %s, want %s", got, outcome(m.Case.Allow, m.Case.Rule, m.Case.Reason))
}

func outcome(allow bool, rule string, reason Reason) string {
	switch {
	case allow && rule != "":
		return "allow by rule " + rule
	case allow:
		return "allow"
	case reason != "":
		return "deny for " + string(reason)
	}
	return "deny"
}

// Test returns the cases that the policy decides otherwise than expected, in order.
func (p *Policy) Test(cases []Case) []Mismatch {
	var all []Mismatch
	for _, c := range cases {
		d := p.Decide(c.Request)
		if d.Allowed == c.Allow && (c.Rule == "" || d.Rule == c.Rule) && (c.Reason == "" || d.Reason == c.Reason) {
			continue
		}
		all = append(all, Mismatch{c, d, p.Explain(c.Request)})
	}
	return all
}

// ParseCases reads a file of expected decisions, as strictly as [Parse] reads a policy:
//
//	version: 1
//	cases:
//	  - identity: spiffe://example.org/job/reports
//	    action: token.get
//	    credential: google/reports-drive
//	    scopes: ["https://www.googleapis.com/auth/drive"]
//	    want: deny
//	    reason: scope
func ParseCases(data []byte) ([]Case, error) {
	d := newDocument("test file", "test nothing", data)
	root := d.open(data)
	if root == nil {
		return nil, d.err()
	}
	top := d.mapping(root, "the file", []string{"version", "cases"})
	d.version(top, root)
	cases := d.cases(root, top["cases"])
	if err := d.err(); err != nil {
		return nil, err
	}
	return cases, nil
}

// cases reads the list of cases.
func (d *document) cases(root, n ast.Node) []Case {
	if n == nil {
		d.bad(root, "cases are missing: a file without cases tests nothing")
		return nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		d.bad(n, "cases must be a list of at least one case")
		return nil
	}
	var all []Case
	names := map[string]int{} // name → line
	for _, v := range seq.Values {
		c := d.caseOf(v)
		if first := names[c.Name]; first > 0 {
			d.bad(v, "case %q: the name is taken by the case at line %d", c.Name, first)
		}
		if c.Name != "" {
			names[c.Name] = c.Line
		}
		all = append(all, c)
	}
	return all
}

// caseOf reads one case.
func (d *document) caseOf(n ast.Node) Case {
	keys := []string{"name", "identity", "action", "credential", "oauth_client", "own_scopes", "scopes", "subject", "audience", "time", "want",
		"rule", "reason"}
	m := d.mapping(n, "a case", keys)
	c := Case{Line: place(n).Line, Name: d.word(m, "name", checkLabel), Rule: d.word(m, "rule", checkLabel)}
	c.Request = Request{
		Identity: d.word(m, "identity", CheckIdentity), Action: Action(d.word(m, "action", checkOneAction)),
		Credential: d.word(m, "credential", tokenbroker.ValidateName), OAuthClient: d.word(m, "oauth_client", tokenbroker.ValidateName),
		Own: d.scopes(m, "own_scopes"), Scopes: d.scopes(m, "scopes"),
		Subject: d.word(m, "subject", tokenbroker.ValidateSubject), Audience: d.word(m, "audience", tokenbroker.ValidateAudience),
	}
	c.Request.Time, _ = d.moment(m["time"], "time")
	want := d.word(m, "want", checkWant)
	c.Allow, c.Reason = want == "allow", Reason(d.word(m, "reason", checkReason))
	if _, ok := n.(*ast.MappingNode); ok {
		d.coherent(n, m, c)
	}
	return c
}

// coherent refuses a case that lacks what a decision is made of, or expects what no decision can be: it would pass or fail for no reason.
func (d *document) coherent(n ast.Node, m map[string]ast.Node, c Case) {
	need := []string{"identity", "action", "want"}
	switch c.Request.Action.family() {
	case familyToken, familyCredential, familyConsent:
		need = append(need, "credential")
	case familyOAuthClient:
		need = append(need, "oauth_client")
	}
	for _, key := range need {
		if m[key] == nil {
			d.bad(n, "%s missing", key)
		}
	}
	if m["want"] == nil {
		return
	}
	if c.Allow && m["reason"] != nil {
		d.bad(m["reason"], "reason is for want: deny")
	}
	if !c.Allow && m["rule"] != nil {
		d.bad(m["rule"], "rule is for want: allow; no rule denies")
	}
}

// word reads one string, "" if it is left out.
func (d *document) word(m map[string]ast.Node, key string, check func(string) error) string {
	n := m[key]
	if n == nil {
		return ""
	}
	text, ok := d.text(n, key)
	if !ok {
		return ""
	}
	if err := check(text); err != nil {
		d.bad(n, "%s: %w", key, err)
		return ""
	}
	return text
}

// scopes reads a list of scopes.
func (d *document) scopes(m map[string]ast.Node, key string) []string {
	var all []string
	for _, it := range d.list(m[key], key) {
		if err := tokenbroker.ValidateScopes([]string{it.text}); err != nil {
			d.bad(it.node, "%s: %w", key, err)
		}
		all = append(all, it.text)
	}
	return all
}

func checkOneAction(text string) error {
	if !slices.Contains(Actions(), Action(text)) {
		return fmt.Errorf("unknown action %q; a case is about one of %s", text, joinActions(Actions()))
	}
	return nil
}

func checkWant(text string) error {
	if text != "allow" && text != "deny" {
		return fmt.Errorf("%q must be allow or deny", text)
	}
	return nil
}

func checkReason(text string) error {
	known := []Reason{ReasonRule, ReasonCredential, ReasonOAuthClient, ReasonScope, ReasonSubject, ReasonAudience, ReasonExpired}
	if !slices.Contains(known, Reason(text)) {
		return fmt.Errorf("unknown reason %q; known are %s", text, strings.Trim(fmt.Sprint(known), "[]"))
	}
	return nil
}
