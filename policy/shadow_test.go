package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

// shadowed are the rules that lint says can never decide.
func shadowed(p *policy.Policy) []string {
	var names []string
	for _, f := range p.Lint(policy.Facts{}) {
		if f.Check == policy.CheckShadowedRule {
			names = append(names, f.Rule)
		}
	}
	return names
}

func TestARuleIsShadowedByAnEarlierOneThatAllowsAllOfIt(t *testing.T) {
	wide := []string{`identities: ["spiffe://example.org/job/**"]`, `actions: [token.get, token.subscribe]`, `credentials: ["files/*"]`}
	narrow := []string{anyJob, get, files}
	until := func(day string) string { return "mode: audit, until: " + day }
	for _, tt := range []struct {
		name         string
		first, later []string
		want         bool
	}{
		{"all is wider", wide, narrow, true},
		{"all is the same, but for one more action", []string{anyJob, "actions: [token.get, token.report]", files}, narrow, true},
		{"the later one is wider", narrow, wide, false},
		{"an identity more", wide, []string{`identities: ["spiffe://example.org/job/a", "spiffe://example.org/cron/a"]`, get, files}, false},
		{"an action more", wide, []string{anyJob, "actions: [token.get, token.report]", files}, false},
		{"a credential more", wide, []string{anyJob, get, `credentials: ["files/x", "mail/x"]`}, false},
		{"a folder deeper", wide, []string{anyJob, get, `credentials: ["files/**"]`}, false},
		{"own scopes below any", append(slices.Clone(wide), `scopes: ["**"]`), narrow, true},
		{"own scopes below some", append(slices.Clone(wide), `scopes: [read]`), narrow, false},
		{"some scopes below own", wide, append(slices.Clone(narrow), `scopes: [read]`), false},
		{"some scopes below more", append(slices.Clone(wide), `scopes: [read, "mail.*"]`), append(slices.Clone(narrow), `scopes: [mail.send]`), true},
		{"some scopes below less", append(slices.Clone(wide), `scopes: [read]`), append(slices.Clone(narrow), `scopes: [read, write]`), false},
		{"a subject that the earlier one does not give", wide, append(slices.Clone(narrow), `subjects: [x]`), false},
		{"a subject that it gives", append(slices.Clone(wide), `subjects: ["*"]`), append(slices.Clone(narrow), `subjects: [x]`), true},
		{"no subject below some", append(slices.Clone(wide), `subjects: ["*"]`), narrow, true},
		{"an audience that the earlier one does not give", wide, append(slices.Clone(narrow), `audiences: [x]`), false},
		{"an OAuth client that the earlier one does not give", wide, append(slices.Clone(narrow), `oauth_clients: [x]`), false},
		{"no scopes of a credential that is configured", []string{anyJob, "actions: [credential.update, credential.get]", files, "scopes: [read]"}, []string{anyJob, "actions: [credential.update]", files}, true},
		{"audit mode below an enforced rule", wide, append([]string{until("2026-12-31")}, narrow...), true},
		{"an enforced rule below audit mode", append([]string{until("2026-12-31")}, wide...), narrow, false},
		{"audit mode below the same for longer", append([]string{until("2027-12-31")}, wide...), append([]string{until("2026-12-31")}, narrow...), true},
		{"audit mode below the same for as long", append([]string{until("2026-12-31")}, wide...), append([]string{until("2026-12-31")}, narrow...), true},
		{"audit mode below the same for less long", append([]string{until("2026-12-30")}, wide...), append([]string{until("2026-12-31")}, narrow...), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := shadowed(parse(t, head+ruleOf("first", tt.first...)+ruleOf("later", tt.later...)))
			if slices.Contains(got, "later") != tt.want || slices.Contains(got, "first") {
				t.Errorf("got %v, want later: %v", got, tt.want)
			}
		})
	}
}

func TestAuditModeIsShadowedByAnEnforcedRuleThatComesLater(t *testing.T) {
	p := parse(t, head+ruleOf("seen", "mode: audit, until: 2026-12-31", anyJob, get, files)+ruleOf("ruled", anyJob, get, files))
	if got := shadowed(p); !slices.Equal(got, []string{"seen"}) {
		t.Errorf("got %v, want seen", got)
	}
}

// TestAShadowedRuleNeverDecides asks what lint says of random policies against what they decide.
func TestAShadowedRuleNeverDecides(t *testing.T) {
	shadows, decided := 0, 0
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		p, _, text := drawPolicy(t, rnd)
		if p == nil {
			continue
		}
		never := shadowed(p)
		shadows += len(never)
		for range 60 {
			q := drawRequest(rnd)
			d := p.Decide(q)
			if slices.Contains(never, d.Rule) {
				t.Fatalf("seed %d: rule %s is said to be shadowed, and decided on %+v in\n%s", seed, d.Rule, q, text)
			}
			if d.Allowed && len(never) > 0 {
				decided++
			}
		}
	}
	if shadows < 20 || decided < 100 {
		t.Errorf("got %d shadowed rules and %d decisions beside them: too few to prove anything", shadows, decided)
	}
}

// TestLintOfManyRulesEnds has as many rules as a large policy, half of which share their identity.
func TestLintOfManyRulesEnds(t *testing.T) {
	text := many(300)
	if got := shadowed(parse(t, text)); got != nil {
		t.Errorf("got %v", got)
	}
	last := "  - {name: last, identities: [\"spiffe://example.org/shared\"], actions: [token.get], credentials: [t7/x], scopes: [s]}\n"
	if got := shadowed(parse(t, text+last)); !slices.Equal(got, []string{"last"}) {
		t.Errorf("got %v, want the last rule", got)
	}
}

func BenchmarkLint(b *testing.B) {
	p := parse(b, many(10000))
	for b.Loop() {
		p.Lint(policy.Facts{})
	}
}
