package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/policy"
)

// plain is a rule as it is written, for a second, slow reading of the language.
type plain struct {
	name                                                        string
	identities, actions, credentials, scopes, subjects, clients []string
	until                                                       string // of a rule in audit mode
}

// yaml writes the rule as a line of a policy.
func (r plain) yaml() string {
	s := fmt.Sprintf("  - {name: %s, identities: %s, actions: %s, credentials: %s", r.name,
		quote(r.identities), quote(r.actions), quote(r.credentials))
	if r.scopes != nil {
		s += ", scopes: " + quote(r.scopes)
	}
	if r.until != "" {
		s += ", mode: audit, until: " + r.until
	}
	if r.subjects != nil {
		s += ", subjects: " + quote(r.subjects)
	}
	if r.clients != nil {
		s += ", oauth_clients: " + quote(r.clients)
	}
	return s + "}\n"
}

func quote(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = fmt.Sprintf("%q", s)
	}
	return "[" + strings.Join(q, ", ") + "]"
}

// allows is the second reading: no index, no early end, backtracking patterns.
func (r plain) allows(q policy.Request) bool {
	action := slices.ContainsFunc(r.actions, func(a string) bool {
		return a == string(q.Action) || strings.HasSuffix(a, ".*") && strings.HasPrefix(string(q.Action), strings.TrimSuffix(a, "*"))
	})
	return action && r.allowsScopes(q) && fits(r.identities, q.Identity) && fits(r.credentials, q.Credential) &&
		(q.Subject == "" || fits(r.subjects, q.Subject)) && (q.OAuthClient == "" || fits(r.clients, q.OAuthClient)) &&
		(r.until == "" || !q.Time.IsZero() && q.Time.UTC().Format(time.DateOnly) <= r.until)
}

func (r plain) allowsScopes(q policy.Request) bool {
	token, scopes := strings.HasPrefix(string(q.Action), "token."), q.Scopes
	if token && len(scopes) == 0 {
		scopes = q.Own
	}
	if len(scopes) == 0 {
		return !token || r.scopes == nil || slices.Contains(r.scopes, "**")
	}
	for _, s := range scopes {
		if own := token && r.scopes == nil; own && !slices.Contains(q.Own, s) || !own && !fits(r.scopes, s) {
			return false
		}
	}
	return true
}

func fits(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fitsOne(p, s) })
}

// fitsOne tries all that a wildcard may stand for. It is slow on long patterns.
func fitsOne(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case strings.HasPrefix(p, "**"):
		return fitsOne(p[2:], s) || s != "" && fitsOne(p, s[1:])
	case p[0] == '*':
		return fitsOne(p[1:], s) || s != "" && s[0] != '/' && fitsOne(p, s[1:])
	}
	return s != "" && s[0] == p[0] && fitsOne(p[1:], s[1:])
}

// pick returns 1 to 3 different items.
func pick(rnd *rand.Rand, from ...string) []string {
	rnd.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:1+rnd.IntN(min(3, len(from)))]
}

func drawRule(rnd *rand.Rand, i int) plain {
	r := plain{
		name: fmt.Sprintf("r%d", i),
		identities: pick(rnd, "spiffe://e.org/a", "spiffe://e.org/a/b", "spiffe://e.org/*", "spiffe://e.org/**", "spiffe://e.org/a/*",
			"spiffe://e.org/a*", "spiffe://e.org/*/b", "spiffe://f.org/a"),
		actions:     pick(rnd, "token.get", "token.*", "credential.get", "credential.*"),
		credentials: pick(rnd, "x", "x/y", "x/*", "**", "*", "*/y"),
	}
	if rnd.IntN(3) == 0 {
		r.actions, r.until = []string{"token.get"}, pick(rnd, "2026-12-31", "2027-06-30")[0]
		return r
	}
	if rnd.IntN(4) > 0 {
		r.scopes = pick(rnd, "s", "t", "*", "**", "s/*")
	}
	if rnd.IntN(2) == 0 {
		r.subjects = pick(rnd, "u", "*@e.org", "**")
	}
	if rnd.IntN(2) == 0 {
		r.clients = pick(rnd, "c", "c/*", "**")
	}
	return r
}

func drawRequest(rnd *rand.Rand) policy.Request {
	one := func(from ...string) string { return from[rnd.IntN(len(from))] }
	q := policy.Request{
		Identity:    one("spiffe://e.org/a", "spiffe://e.org/a/b", "spiffe://e.org/ab", "spiffe://e.org/a/b/c", "spiffe://f.org/a", "spiffe://g.org/a"),
		Action:      policy.Action(one("token.get", "token.report", "credential.get", "credential.delete")),
		Credential:  one("x", "x/y", "z/y", "x/y/z"),
		Subject:     one("", "", "u", "v@e.org"),
		OAuthClient: one("", "", "c", "c/d"),
	}
	if rnd.IntN(2) == 0 {
		q.Scopes = pick(rnd, "s", "t", "s/u", "v")
	}
	if rnd.IntN(3) > 0 {
		q.Own = pick(rnd, "s", "t", "s/u", "v")
	}
	if rnd.IntN(3) > 0 {
		q.Time = time.Date(2026, time.December, 31, 23, 59, 59, 0, time.UTC).Add(time.Duration(rnd.IntN(2)*4000) * time.Hour)
	}
	return q
}

// drawPolicy draws rules, of which p is nil if two say the same.
func drawPolicy(t *testing.T, rnd *rand.Rand) (p *policy.Policy, rules []plain, text string) {
	t.Helper()
	text = head
	for i := range 1 + rnd.IntN(6) {
		rules = append(rules, drawRule(rnd, i))
		text += rules[i].yaml()
	}
	p, err := policy.Parse([]byte(text))
	if err != nil && !strings.Contains(err.Error(), "says the same") {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p, rules, text
}

func TestDecideAgreesWithASecondReading(t *testing.T) {
	allowed, audited := 0, 0
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p, rules, text := drawPolicy(t, rnd)
		if p == nil {
			continue
		}
		for range 40 {
			q := drawRequest(rnd)
			i := slices.IndexFunc(rules, func(r plain) bool { return r.until == "" && r.allows(q) })
			if i < 0 {
				i = slices.IndexFunc(rules, func(r plain) bool { return r.allows(q) })
			}
			got := p.Decide(q)
			if got.Allowed != (i >= 0) || got.Allowed && got.Rule != rules[i].name || got.Allowed != (got.Reason == policy.ReasonAllowed) {
				t.Fatalf("seed %d: got %+v, want rule %d, for %+v and\n%s", seed, got, i, q, text)
			}
			if got.Allowed {
				allowed++
			}
			if got.Mode == policy.ModeAudit {
				audited++
			}
			if got.Allowed && (got.Mode == policy.ModeAudit) != (rules[i].until != "") || (got.Mode == policy.ModeAudit) == got.Until.IsZero() {
				t.Fatalf("seed %d: got %+v, want the mode and the end of rule %d", seed, got, i)
			}
		}
	}
	if allowed < 150 || audited < 20 {
		t.Errorf("only %d requests were allowed, and %d in audit mode; the test proves too little", allowed, audited)
	}
}

// TestExplainAgreesWithDecide holds what Explain promises: what one verdict allows is allowed, by the rule that Decide names.
func TestExplainAgreesWithDecide(t *testing.T) {
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		p, rules, text := drawPolicy(t, rnd)
		if p == nil {
			continue
		}
		for range 40 {
			q := drawRequest(rnd)
			checkVerdicts(t, p, q, rules, text)
		}
	}
}

func checkVerdicts(t *testing.T, p *policy.Policy, q policy.Request, rules []plain, text string) {
	t.Helper()
	verdicts, got := p.Explain(q), p.Decide(q)
	named := slices.DeleteFunc(slices.Clone(rules), func(r plain) bool { return !fits(r.identities, q.Identity) })
	if len(verdicts) != len(named) {
		t.Fatalf("got %d verdicts, want %d, for %+v and\n%s", len(verdicts), len(named), q, text)
	}
	allows := func(v policy.Verdict) bool { return v.Reason == policy.ReasonAllowed }
	i := slices.IndexFunc(verdicts, func(v policy.Verdict) bool { return allows(v) && v.Mode == policy.ModeEnforce })
	if i < 0 {
		i = slices.IndexFunc(verdicts, allows)
	}
	if got.Allowed != (i >= 0) || got.Allowed && (got.Rule != verdicts[i].Rule || got.Mode != verdicts[i].Mode || got.Until != verdicts[i].Until) {
		t.Fatalf("Decide says %+v, Explain %+v, for %+v and\n%s", got, verdicts, q, text)
	}
	for k, v := range verdicts {
		if v.Rule != named[k].name || (v.Reason == policy.ReasonAllowed) != named[k].allows(q) {
			t.Fatalf("verdict %+v of rule %+v, for %+v", v, named[k], q)
		}
	}
	reached := func(v policy.Verdict) bool { return v.Reason != policy.ReasonAction }
	if !got.Allowed && (got.Reason == policy.ReasonRule) == slices.ContainsFunc(verdicts, reached) {
		t.Fatalf("Decide says %+v, Explain %+v, for %+v", got, verdicts, q)
	}
	nearest := func(v policy.Verdict) bool { return v.Reason == got.Reason && v.DeniedScope == got.DeniedScope }
	if !got.Allowed && got.Reason != policy.ReasonRule && !slices.ContainsFunc(verdicts, nearest) {
		t.Fatalf("Decide says %+v, and no verdict does: %+v", got, verdicts)
	}
}

func TestTheNearestRuleNamesTheScope(t *testing.T) {
	p := parse(t, head+
		plain{"far", []string{"spiffe://e.org/a"}, []string{"token.get"}, []string{"x"}, []string{"other"}, nil, nil, ""}.yaml()+
		plain{"near", []string{"spiffe://e.org/a"}, []string{"token.get"}, []string{"x"}, []string{"s", "t"}, nil, nil, ""}.yaml())
	q := policy.Request{Identity: "spiffe://e.org/a", Action: policy.TokenGet, Credential: "x", Scopes: []string{"s", "v", "t"}}
	if got := p.Decide(q); got != denied(policy.ReasonScope, "v") {
		t.Errorf("got %+v, want scope v, the only one that rule near does not cover", got)
	}
}

func TestActions(t *testing.T) {
	all := policy.Actions()
	all[0] = "scribbled.on" // a copy, each time
	seen := map[policy.Action]bool{}
	for _, a := range policy.Actions() {
		family, verb, ok := strings.Cut(string(a), ".")
		if !ok || verb == "" || seen[a] {
			t.Errorf("action %q is not family.verb, or there twice", a)
		}
		seen[a] = true
		one := head + plain{"r", []string{"spiffe://e.org/a"}, []string{family + ".*"}, []string{"**"}, []string{"**"}, nil, []string{"**"}, ""}.yaml()
		if p := parse(t, one); !p.Grants("spiffe://e.org/a", a) {
			t.Errorf("%s.* does not give %s", family, a)
		}
	}
	if seen["scribbled.on"] {
		t.Error("Actions returns what a caller can change")
	}
}

func FuzzDecide(f *testing.F) {
	p, err := policy.Parse([]byte(example))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("spiffe://example.org/job/reports", "google/reports-a", "drive", "ann@example.org")
	f.Add("spiffe://example.org/ns//job", "google/reports-/", "mail.", "@example.org")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, identity, credential, scope, subject string) {
		q := policy.Request{Identity: identity, Action: policy.TokenGet, Credential: credential, Scopes: []string{scope}, Subject: subject}
		d := p.Decide(q)
		if d.Allowed && (!strings.HasPrefix(identity, "spiffe://example.org/") || credential == "" || scope == "") {
			t.Errorf("%+v was allowed by %s", q, d.Rule)
		}
		if d.Allowed && !p.Grants(identity, policy.TokenGet) {
			t.Errorf("%+v was allowed, and the action is not granted", q)
		}
	})
}
