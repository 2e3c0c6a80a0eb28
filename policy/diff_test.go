package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

const ann = `  - name: reports-read
    identities: ["spiffe://example.org/job/reports"]
    actions: [token.get]
    credentials: ["google/*"]
`

// trial is a rule in audit mode.
const trial = `  - name: trial
    identities: ["spiffe://example.org/job/reports"]
    actions: [token.get]
    credentials: ["google/*"]
    mode: audit
    until: 2026-12-31
`

func TestDiffNamesRulesKeysAndItems(t *testing.T) {
	base := head + ann + `  - name: other
    identities: ["spiffe://example.org/job/other"]
    actions: [token.get]
    credentials: ["a", "b"]
    scopes: ["s"]
    subjects: ["*@example.org"]
`
	for _, tt := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing but a comment", "version: 1\n", "# checked\nversion: 1\n", nil},
		{"items in another order", `["a", "b"]`, `["b", "a"]`, nil},
		{
			"identities", `["spiffe://example.org/job/reports"]`, `["spiffe://example.org/job/new", "spiffe://example.org/job/also"]`,
			[]string{"rule reports-read: identities +spiffe://example.org/job/also, +spiffe://example.org/job/new, -spiffe://example.org/job/reports"},
		},
		{"a family for an action", "[token.get]\n    credentials: [\"google", "[\"token.*\"]\n    credentials: [\"google", []string{"rule reports-read: actions +token.report, +token.subscribe"}},
		{"a ceiling that comes", "    credentials: [\"google/*\"]\n", "    credentials: [\"google/*\"]\n    scopes: [\"**\"]\n", []string{"rule reports-read: scopes +** (was left out)"}},
		{"a ceiling that goes", "    scopes: [\"s\"]\n", "", []string{"rule other: scopes -s (is left out)"}},
		{"two keys", "    scopes: [\"s\"]\n    subjects: [\"*@example.org\"]\n", "    scopes: [\"t\"]\n    audiences: [\"x\"]\n", []string{
			"rule other: scopes +t, -s; subjects -*@example.org (is left out); audiences +x (was left out)",
		}},
		{"a mode", "name: reports-read\n", "name: reports-read\n    mode: audit\n    until: 2026-12-31\n", []string{
			"rule reports-read: mode enforce -> audit; until no end -> 2027-01-01T00:00:00Z",
		}},
		{"a rule that goes", ann, "", []string{
			"rule reports-read: removed; identities -spiffe://example.org/job/reports; actions -token.get; credentials -google/*",
		}},
		{"a rule that comes", "  - name: other\n", replace(replace(ann, "reports-read", "new"), "google/*", "new/*") + "  - name: other\n", []string{
			"rule new: added; identities +spiffe://example.org/job/reports; actions +token.get; credentials +new/*",
		}},
		{"a rule in audit mode that comes", "  - name: other\n", replace(trial, "google/*", "new/*") + "  - name: other\n", []string{
			"rule trial: added; mode audit; until 2027-01-01T00:00:00Z; identities +spiffe://example.org/job/reports; actions +token.get; credentials +new/*",
		}},
		{"another name", "name: other", "name: another", []string{
			"rule another: added; identities +spiffe://example.org/job/other; actions +token.get; credentials +a, +b; scopes +s; subjects +*@example.org",
			"rule other: removed; identities -spiffe://example.org/job/other; actions -token.get; credentials -a, -b; scopes -s; subjects -*@example.org",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spoiled := strings.Replace(base, tt.old, tt.new, 1)
			if spoiled == base {
				t.Fatal("the change changed nothing")
			}
			if diff := cmp.Diff(tt.want, policy.Diff(parse(t, base), parse(t, spoiled))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDiffSaysOfARuleInAuditModeThatGoesWhatItWas(t *testing.T) {
	got := policy.Diff(parse(t, head+ann+trial), parse(t, head+ann))
	want := []string{"rule trial: removed; mode audit; until 2027-01-01T00:00:00Z; identities -spiffe://example.org/job/reports; actions -token.get; credentials -google/*"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestDiffSaysThatTheOrderIsAnother(t *testing.T) {
	a, b := replace(ann, "reports-read", "a"), replace(replace(ann, "reports-read", "b"), "google", "acme")
	if diff := cmp.Diff([]string{"rules: in another order"}, policy.Diff(parse(t, head+a+b), parse(t, head+b+a))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestDiffWithNoPolicyHasAllRules(t *testing.T) {
	p := parse(t, head+ann)
	for _, tt := range []struct {
		old, new *policy.Policy
		want     string
	}{{nil, p, "rule reports-read: added; "}, {p, nil, "rule reports-read: removed; "}} {
		if got := policy.Diff(tt.old, tt.new); len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if got := policy.Diff(nil, nil); got != nil {
		t.Errorf("got %q of nothing", got)
	}
}

func TestDiffIsBounded(t *testing.T) {
	one, more := parse(t, many(30)), parse(t, head+ann)
	got := policy.Diff(more, one)
	if len(got) != 51 || got[50] != "and 11 lines more" {
		t.Errorf("got %d lines, the last %q", len(got), got[len(got)-1])
	}
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("spiffe://example.org/job/%02d", i))
	}
	wide := parse(t, head+replace(ann, `["spiffe://example.org/job/reports"]`, quote(ids)))
	got = policy.Diff(more, wide)
	if len(got) != 1 || !strings.Contains(got[0], "/09, +15 more, -spiffe://example.org/job/reports") || strings.Contains(got[0], "/10") {
		t.Errorf("got %q, want ten of 25 items", got)
	}
}

func TestDiffIsTheSameEachTime(t *testing.T) {
	a, b := parse(t, many(20)), parse(t, replace(many(25), "scopes: [s]", "scopes: [t, s, u]"))
	first := policy.Diff(a, b)
	for range 20 {
		if diff := cmp.Diff(first, policy.Diff(a, b)); diff != "" {
			t.Fatalf("(-first +again)\n%s", diff)
		}
	}
}
