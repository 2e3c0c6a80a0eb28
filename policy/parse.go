package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// MaxFileBytes is the size that a policy file may have.
const MaxFileBytes = 8 << 20

// Parse reads a policy. The error joins all problems that it has, each with line and column as far as it has a place.
func Parse(data []byte) (*Policy, error) {
	d := newDocument("policy", "deny everybody", data)
	root := d.open(data)
	if root == nil {
		return nil, d.err()
	}
	top := d.mapping(root, "the file", []string{"version", "rules"})
	d.version(top, root)
	sum := sha256.Sum256(data)
	p := &Policy{revision: hex.EncodeToString(sum[:8]), byAction: map[Action]*index{}}
	if rules, ok := top["rules"]; ok {
		p.rules = d.rules(rules)
	} else {
		d.bad(root, "rules are missing: a policy without rules would deny everybody")
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	for i := range p.rules {
		p.add(i)
	}
	return p, nil
}

// version checks the version.
func (d *document) version(top map[string]ast.Node, root ast.Node) {
	n, ok := top["version"]
	if !ok {
		d.bad(root, "version is missing: write \"version: 1\"")
		return
	}
	if i, ok := n.(*ast.IntegerNode); !ok || i.GetToken().Value != "1" {
		d.bad(n, "version must be 1")
	}
}

// rules reads the list of rules and refuses duplicates.
func (d *document) rules(n ast.Node) []rule {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		d.bad(n, "rules must be a list of at least one rule")
		return nil
	}
	rules := make([]rule, 0, len(seq.Values))
	names := map[string]int{}    // name → line
	contents := map[string]int{} // canonical content → line
	for _, v := range seq.Values {
		r := d.rule(v)
		line := place(v).Line
		if first := names[r.name]; first > 0 && r.name != "" {
			d.bad(v, "rule %q: the name is taken by the rule at line %d", r.name, first)
		}
		names[r.name] = cmp.Or(names[r.name], line)
		content := r.content()
		if first := contents[content]; first > 0 && len(r.actions) > 0 {
			d.bad(v, "rule %q says the same as the rule at line %d; delete one", r.name, first)
		}
		contents[content] = cmp.Or(contents[content], line)
		rules = append(rules, r)
	}
	return rules
}

// rule reads one rule.
func (d *document) rule(n ast.Node) rule {
	keys := []string{"name", "mode", "until", "identities", "actions", "credentials", "oauth_clients", "scopes", "subjects", "audiences"}
	m := d.mapping(n, "a rule", keys)
	r := rule{
		identities:   d.patterns(m["identities"], "identities", checkIdentity),
		credentials:  d.patterns(m["credentials"], "credentials", checkName),
		oauthClients: d.patterns(m["oauth_clients"], "oauth_clients", checkName),
		scopes:       d.patterns(m["scopes"], "scopes", checkScope),
		subjects:     d.patterns(m["subjects"], "subjects", checkSubject),
		audiences:    d.patterns(m["audiences"], "audiences", checkAudience),
		actions:      d.actions(m["actions"]),
	}
	r.name = d.word(m, "name", checkLabel)
	if _, ok := n.(*ast.MappingNode); ok {
		d.mode(n, m, &r)
		d.required(n, m, r)
	}
	return r
}

// required reports the keys that a rule with these actions must have.
func (d *document) required(n ast.Node, m map[string]ast.Node, r rule) {
	need := []string{"name", "identities", "actions"}
	for _, a := range r.actions {
		switch a.family() {
		case familyToken, familyCredential, familyConsent, familyAudit, familyPolicy:
			need = append(need, "credentials")
		case familyOAuthClient:
			need = append(need, "oauth_clients")
		}
	}
	slices.Sort(need)
	for _, key := range slices.Compact(need) {
		if m[key] == nil {
			d.bad(n, "rule %q: %s missing", r.name, key)
		}
	}
}

// actions reads the actions of a rule, sorted.
func (d *document) actions(n ast.Node) []Action {
	var all []Action
	for _, it := range d.list(n, "actions") {
		found, err := expandAction(it.text)
		if err != nil {
			d.bad(it.node, "%w", err)
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// patterns reads a list of patterns.
func (d *document) patterns(n ast.Node, key string, check func(string) error) []pattern {
	var out []pattern
	for _, it := range d.list(n, key) {
		if err := check(it.text); err != nil {
			d.bad(it.node, "%s: %w", key, err)
			continue
		}
		out = append(out, compile(it.text))
	}
	return out
}

// content is a form of the rule, but for its name, that is the same for rules that say the same.
func (r *rule) content() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %d %q", r.mode, r.until.Unix(), r.actions)
	for _, list := range [][]pattern{r.identities, r.credentials, r.oauthClients, r.scopes, r.subjects, r.audiences} {
		all := texts(list)
		slices.Sort(all)
		fmt.Fprintf(&b, "%q", all)
	}
	return b.String()
}
