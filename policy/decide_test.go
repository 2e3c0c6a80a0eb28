package policy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

// plain is a rule as it is written, for a second, slow reading of the language.
type plain struct {
	name                                                        string
	identities, actions, credentials, scopes, subjects, clients []string
}

// yaml writes the rule as a line of a policy.
func (r plain) yaml() string {
	s := fmt.Sprintf("  - {name: %s, identities: %s, actions: %s, credentials: %s, scopes: %s", r.name,
		quote(r.identities), quote(r.actions), quote(r.credentials), quote(r.scopes))
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

// allows is the second reading: no index, no early end, regular expressions.
func (r plain) allows(q policy.Request) bool {
	action := slices.ContainsFunc(r.actions, func(a string) bool {
		return a == string(q.Action) || strings.HasSuffix(a, ".*") && strings.HasPrefix(string(q.Action), strings.TrimSuffix(a, "*"))
	})
	scopes := len(q.Scopes) > 0 || slices.Contains(r.scopes, "**") || !strings.HasPrefix(string(q.Action), "token.")
	for _, s := range q.Scopes {
		scopes = scopes && fits(r.scopes, s)
	}
	return action && scopes && fits(r.identities, q.Identity) && fits(r.credentials, q.Credential) &&
		(q.Subject == "" || fits(r.subjects, q.Subject)) && (q.OAuthClient == "" || fits(r.clients, q.OAuthClient))
}

func fits(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		p = strings.ReplaceAll(regexp.QuoteMeta(p), `\*\*`, `(?s:.*)`)
		return regexp.MustCompile(`\A` + strings.ReplaceAll(p, `\*`, `[^/]*`) + `\z`).MatchString(s)
	})
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
		scopes:      pick(rnd, "s", "t", "*", "**", "s/*"),
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
	if rnd.IntN(4) > 0 {
		q.Scopes = pick(rnd, "s", "t", "s/u", "v")
	}
	return q
}

func TestDecideAgreesWithASecondReading(t *testing.T) {
	allowed := 0
	for seed := range uint64(80) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var rules []plain
		text := head
		for i := range 1 + rnd.IntN(6) {
			rules = append(rules, drawRule(rnd, i))
			text += rules[i].yaml()
		}
		p, err := policy.Parse([]byte(text))
		if err != nil {
			if !strings.Contains(err.Error(), "says the same") {
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		for range 40 {
			q := drawRequest(rnd)
			i := slices.IndexFunc(rules, func(r plain) bool { return r.allows(q) })
			got := p.Decide(q)
			if got.Allowed != (i >= 0) || got.Allowed && got.Rule != rules[i].name || got.Allowed != (got.Reason == policy.ReasonAllowed) {
				t.Fatalf("seed %d: got %+v, want rule %d, for %+v and\n%s", seed, got, i, q, text)
			}
			if got.Allowed {
				allowed++
			}
		}
	}
	if allowed < 150 {
		t.Errorf("only %d requests were allowed; the test proves too little", allowed)
	}
}

func TestTheNearestRuleNamesTheScope(t *testing.T) {
	p := parse(t, head+
		plain{"far", []string{"spiffe://e.org/a"}, []string{"token.get"}, []string{"x"}, []string{"other"}, nil, nil}.yaml()+
		plain{"near", []string{"spiffe://e.org/a"}, []string{"token.get"}, []string{"x"}, []string{"s", "t"}, nil, nil}.yaml())
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
		one := head + plain{"r", []string{"spiffe://e.org/a"}, []string{family + ".*"}, []string{"**"}, []string{"**"}, nil, []string{"**"}}.yaml()
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
