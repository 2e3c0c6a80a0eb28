package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// found lists findings in short: check, and what it is about.
func found(t *testing.T, text string, f policy.Facts) []string {
	t.Helper()
	var short []string
	for _, x := range parse(t, text).Lint(f) {
		if x.Message == "" || (x.Rule == "") == (x.Credential == "") {
			t.Errorf("%+v has no message, or not one thing that it is about", x)
		}
		short = append(short, x.Check+" "+x.Rule+x.Credential)
	}
	return short
}

// ruleOf is a rule with further keys.
func ruleOf(name string, keys ...string) string {
	return fmt.Sprintf("  - {name: %s, %s}\n", name, strings.Join(keys, ", "))
}

// anyJob is what a narrow rule has.
const (
	anyJob = `identities: ["spiffe://example.org/job/a"]`
	get    = "actions: [token.get]"
	files  = `credentials: ["files/x"]`
)

func TestLintOfAFileAlone(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		want        []string
	}{
		{"a narrow rule", ruleOf("a", anyJob, get, files), nil},
		{"a narrow rule of ceilings", ruleOf("a", anyJob, get, files, `scopes: [read]`, `subjects: ["*@example.org"]`, `audiences: ["https://api.example.org/**"]`), nil},
		{"all credentials", ruleOf("a", anyJob, get, `credentials: ["**"]`), []string{"wide_credential a"}},
		{"all credentials without a folder", ruleOf("a", anyJob, get, `credentials: ["files/x", "*"]`), []string{"wide_credential a"}},
		{"all credentials, for reading their state", ruleOf("a", anyJob, "actions: [credential.list]", `credentials: ["**"]`), nil},
		{"all in a folder", ruleOf("a", anyJob, get, `credentials: ["files/**"]`), nil},
		{"all scopes", ruleOf("a", anyJob, get, files, `scopes: ["**"]`), []string{"wide_scopes a"}},
		{"all scopes without a slash", ruleOf("a", anyJob, get, files, `scopes: ["*", "read"]`), []string{"wide_scopes a"}},
		{"all scopes, for configuring", ruleOf("a", anyJob, "actions: [credential.update]", files, `scopes: ["**"]`), nil},
		{"any subject", ruleOf("a", anyJob, get, files, `subjects: ["**"]`), []string{"wide_subjects a"}},
		{"two widths at once", ruleOf("a", anyJob, get, `credentials: ["**"]`, `scopes: ["**"]`), []string{"wide_credential a", "wide_scopes a"}},
		{"two trust domains", ruleOf("a", `identities: ["spiffe://example.org/job/a", "spiffe://example.net/job/a"]`, get, files), []string{"unrelated_identities a"}},
		{"two trust domains, for reading state", ruleOf("a", `identities: ["spiffe://example.org/job/a", "spiffe://example.net/job/a"]`, "actions: [credential.get]", files), nil},
		{"two trust domains in two rules", ruleOf("a", anyJob, get, files) + ruleOf("b", `identities: ["spiffe://example.net/job/a"]`, get, files), []string{"unrelated_identities files/x"}},
		{"two trust domains on two credentials", ruleOf("a", anyJob, get, files) + ruleOf("b", `identities: ["spiffe://example.net/job/a"]`, get, `credentials: ["mail/x"]`), nil},
		{"two trust domains by a pattern", ruleOf("a", anyJob, get, files) + ruleOf("b", `identities: ["spiffe://example.net/job/a"]`, get, `credentials: ["files/*"]`), []string{"unrelated_identities files/x"}},
		{"a rule to blame alone", ruleOf("a", `identities: ["spiffe://example.org/**"]`, get, files) + ruleOf("b", `identities: ["spiffe://example.net/job/a"]`, get, files), []string{"unrelated_identities a"}},
		{"audit mode", ruleOf("a", "mode: audit, until: 2020-01-01", anyJob, get, files), []string{"audit_mode a"}},
		{"the same rule, but for the name of an earlier one, within", ruleOf("a", anyJob, get, `credentials: ["files/*"]`) + ruleOf("b", anyJob, get, files), []string{"shadowed_rule b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, found(t, head+tt.rules, policy.Facts{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got := (*policy.Policy)(nil).Lint(policy.Facts{}); got != nil {
		t.Errorf("of no policy: %v", got)
	}
}

func TestLintKnowsSubjectsThatCrossDomains(t *testing.T) {
	for subject, wide := range map[string]bool{
		"ann@example.org": false, "*@example.org": false, "**@example.org": false, "svc-*@example.org": false, "*@*.example.org": false, "ann": false,
		"*": true, "**": true, "*@*": true, "*@": true, "ann@*": true, "ann@example.org*": true, "*@*.org": true, "*.example.org": true, "svc-*": true, "*@example.*": true,
	} {
		got := found(t, head+ruleOf("a", anyJob, get, files, fmt.Sprintf("subjects: [%q]", subject)), policy.Facts{})
		if (len(got) == 1 && got[0] == "wide_subjects a") != wide || len(got) > 1 {
			t.Errorf("%s: got %v, want wide %v", subject, got, wide)
		}
	}
}

func TestLintKnowsIdentitiesThatDoNotBelongTogether(t *testing.T) {
	numbered := func(n int, format string) []string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(format, i))
		}
		return all
	}
	for _, tt := range []struct {
		name       string
		identities []string
		says       string // "" = nothing
	}{
		{"twenty jobs", numbered(20, "spiffe://example.org/job/%d"), ""},
		{"more than twenty jobs", numbered(21, "spiffe://example.org/job/%d"), "21 identity patterns may have its tokens"},
		{"five branches", numbered(5, "spiffe://example.org/b%d/x"), ""},
		{"six branches", numbered(6, "spiffe://example.org/b%d/x"), "6 branches: b0, b1, b2, b3, b4 and more may have"},
		{"six services in a namespace", numbered(6, "spiffe://example.org/ns/a/sa/%d"), ""},
		{"six namespaces", numbered(6, "spiffe://example.org/ns/a%d/sa/x"), "6 branches: ns/a0, ns/a1"},
		{"one service of all namespaces", []string{"spiffe://example.org/ns/*/sa/reports"}, ""},
		{"all services of a namespace", []string{"spiffe://example.org/ns/a/sa/*"}, ""},
		{"everybody", []string{"spiffe://example.org/**"}, `everybody in example.org, by "spiffe://example.org/**", may have`},
		{"everybody of one segment", []string{"spiffe://example.org/*"}, "everybody in example.org"},
		{"everybody in Kubernetes", []string{"spiffe://example.org/ns/*/sa/*"}, "everybody in example.org"},
		{"everybody in namespaces", []string{"spiffe://example.org/ns/**"}, "everybody in example.org"},
		{"a workload called ns", []string{"spiffe://example.org/ns"}, ""},
		{"a folder", []string{"spiffe://example.org/job/**"}, ""},
		{"a DNS name and its SPIFFE ID", []string{"dns:a.jobs.example.org", "spiffe://example.org/job/a"}, ""},
		{"DNS names of one domain", []string{"dns:a.example.org", "dns:*.b.example.org"}, ""},
		{"DNS names of two domains", []string{"dns:a.example.org", "dns:a.example.net"}, "identities of 2 trust domains: example.net, example.org may have"},
		{"all DNS names of a domain", []string{"dns:*.example.org"}, `everybody in example.org, by "dns:*.example.org"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parse(t, head+ruleOf("a", "identities: "+quote(tt.identities), get, files)).Lint(policy.Facts{})
			switch {
			case tt.says == "" && len(got) > 0:
				t.Errorf("got %v, want nothing", got)
			case tt.says != "" && (len(got) != 1 || got[0].Check != policy.CheckUnrelatedIdentities || !strings.Contains(got[0].Message, tt.says)):
				t.Errorf("got %v, want it said that %s", got, tt.says)
			}
		})
	}
}

func TestLintOfCredentials(t *testing.T) {
	text := head + ruleOf("own", anyJob, get, `credentials: ["own/*"]`) + ruleOf("read", anyJob, get, `credentials: ["read/*"]`, "scopes: [read]") +
		ruleOf("admin", anyJob, "actions: [credential.update]", `credentials: ["**"]`, `scopes: ["**"]`) +
		ruleOf("seen", "mode: audit, until: 2026-11-28", anyJob, get, `credentials: ["seen/*"]`)
	rw := []string{"read", "write"}
	f := policy.Facts{Now: now, Credentials: []policy.CredentialFacts{
		{Name: "read/wide", Scopes: []string{"read"}, Granted: rw},
		{Name: "own/as-granted", Scopes: rw, Granted: rw},
		{Name: "own/wide", Scopes: []string{"read"}, Granted: rw},
		{Name: "read/narrow", Scopes: []string{"read"}, Granted: []string{"read"}},
		{Name: "read/not-granted-yet", Scopes: rw},
		{Name: "own/default"},
		{Name: "nobody/x", Scopes: rw, Granted: rw},
		{Name: "seen/x", Scopes: rw},
	}}
	audit := "audit_mode seen"
	want := []string{audit, "scope_without_rule nobody/x", "scope_without_rule own/wide", "scope_without_rule read/not-granted-yet", "scope_without_rule read/wide"}
	if diff := cmp.Diff(want, found(t, text, f)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	f.Now = time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	want[0] = "audit_mode_over seen"
	if diff := cmp.Diff(append(want, "scope_without_rule seen/x"), found(t, text, f)); diff != "" {
		t.Errorf("when the rule in audit mode is over (-want +got)\n%s", diff)
	}
	for _, x := range parse(t, text).Lint(f) {
		if x.Credential == "read/wide" && !strings.Contains(x.Message, "scope write that no rule gives anybody") || x.Credential == "nobody/x" && !strings.Contains(x.Message, "no rule lets anybody have its tokens") {
			t.Errorf("%s: got %q", x.Credential, x.Message)
		}
	}
}

func TestLintCallsARuleUnusedAfterAMonthOfCounting(t *testing.T) {
	day := 24 * time.Hour
	text := head + ruleOf("a", anyJob, get, files)
	for _, tt := range []struct {
		name            string
		now, since, use time.Time
		says            string // "" = nothing
	}{
		{"never, in 30 days", now, now.Add(-30 * day), time.Time{}, "nothing since uses are counted, 2026-10-29:"},
		{"never, in less", now, now.Add(-30*day + 1), time.Time{}, ""},
		{"not counted", now, time.Time{}, time.Time{}, ""},
		{"no present", time.Time{}, now, time.Time{}, ""},
		{"used lately", now, now.Add(-90 * day), now.Add(-30*day + 1), ""},
		{"used long ago", now, now.Add(-90 * day), now.Add(-30 * day), "nothing since 2026-10-29:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := policy.Facts{Now: tt.now, Since: tt.since, Used: map[string]time.Time{"a": tt.use, "other": now}}
			got := parse(t, text).Lint(f)
			switch {
			case tt.says == "" && len(got) > 0:
				t.Errorf("got %v, want nothing", got)
			case tt.says != "" && (len(got) != 1 || got[0].Check != policy.CheckUnusedRule || got[0].Rule != "a" || !strings.Contains(got[0].Message, tt.says)):
				t.Errorf("got %v, want it said: %s", got, tt.says)
			}
		})
	}
}

func TestLintSaysWhenAuditModeEnds(t *testing.T) {
	text := head + ruleOf("a", "mode: audit, until: 2026-12-31", anyJob, get, files)
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name        string
		now         time.Time
		check, says string
	}{
		{"nobody knows what time it is", time.Time{}, policy.CheckAuditMode, "until 2027-01-01T00:00:00Z: enforce what is needed by then"},
		{"before", end.Add(-1), policy.CheckAuditMode, "until 2027-01-01T00:00:00Z: enforce what is needed by then"},
		{"a year before", end.Add(-366 * 24 * time.Hour), policy.CheckAuditMode, "enforce what is needed by then"},
		{"more than a year before", end.Add(-366*24*time.Hour - 1), policy.CheckAuditMode, "more than a year ahead: choose an earlier day"},
		{"at its end", end, policy.CheckAuditModeOver, "it has allowed nothing since 2027-01-01T00:00:00Z: delete it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parse(t, text).Lint(policy.Facts{Now: tt.now})
			if len(got) != 1 || got[0].Check != tt.check || got[0].Rule != "a" || !strings.Contains(got[0].Message, tt.says) {
				t.Errorf("got %v, want %s: %s", got, tt.check, tt.says)
			}
		})
	}
}
