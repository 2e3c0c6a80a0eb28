package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

const caseFile = `version: 1
cases:
  - name: reports may read
    identity: spiffe://example.org/job/reports
    action: token.get
    credential: google/reports-drive
    own_scopes: [drive.readonly]
    scopes: [drive.readonly]
    subject: ann@example.org
    audience: https://api.example.org/x
    time: 2026-12-31T18:00:00+01:00
    want: allow
    rule: reports-read
  - identity: spiffe://example.org/job/reports
    action: token.get
    credential: google/reports-drive
    scopes: [admin]
    time: 2026-12-31
    want: deny
    reason: scope
  - {identity: "dns:a.jobs.example.org", action: credential.list, credential: team-a/x, want: allow}
  - {identity: "spiffe://example.org/operator/ann", action: oauth_client.get, oauth_client: acme, want: allow}
  - {identity: "spiffe://example.org/operator/ann", action: reflection.use, want: allow}
`

func cases(t *testing.T, text string) []policy.Case {
	t.Helper()
	all, err := policy.ParseCases([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCasesAreRead(t *testing.T) {
	all := cases(t, caseFile)
	want := []policy.Case{{
		Name: "reports may read", Line: 3, Allow: true, Rule: "reports-read",
		Request: policy.Request{
			Identity: reports, Action: policy.TokenGet, Credential: "google/reports-drive", Own: []string{"drive.readonly"}, Scopes: []string{"drive.readonly"},
			Subject: "ann@example.org", Audience: "https://api.example.org/x", Time: time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC),
		},
	}, {
		Line: 14, Reason: policy.ReasonScope,
		Request: policy.Request{
			Identity: reports, Action: policy.TokenGet, Credential: "google/reports-drive", Scopes: []string{"admin"}, Time: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC),
		},
	}}
	if diff := cmp.Diff(want, all[:2]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(all) != 5 || all[3].Request.OAuthClient != "acme" || all[4].Line != 23 {
		t.Errorf("got %d cases, the last %+v", len(all), all[len(all)-1])
	}
	if got := parse(t, example).Test(all); got != nil {
		t.Errorf("got %v, want all as expected", got)
	}
}

func TestCasesThatAreDecidedOtherwiseAreExplained(t *testing.T) {
	p := parse(t, example)
	for _, tt := range []struct{ name, old, new, says string }{
		{"denied", "scopes: [drive.readonly]\n    subject", "scopes: [admin]\n    subject", "got deny for scope admin, want allow by rule reports-read"},
		{"denied for no scope in particular", "    own_scopes: [drive.readonly]\n    scopes: [drive.readonly]\n", "", "got deny for scope, want allow by rule reports-read"},
		{"allowed", "scopes: [admin]", "scopes: [drive.readonly]", "got allow by rule reports-read, want deny for scope"},
		{"allowed by another rule", "rule: reports-read", "rule: reports-write", "got allow by rule reports-read, want allow by rule reports-write"},
		{"denied for another reason", "reason: scope", "reason: subject", "got deny for scope admin, want deny for subject"},
		{"denied for any reason", "scopes: [admin]\n    time: 2026-12-31\n    want: deny\n    reason: scope", "scopes: [drive]\n    want: deny", "got allow by rule reports-write, want deny"},
		{"unknown", "job/reports\n    action: token.get\n    credential: google/reports-drive\n    own", "job/nobody\n    action: token.get\n    credential: google/reports-drive\n    own", "got deny for no_rule, want allow by rule reports-read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spoiled := strings.Replace(caseFile, tt.old, tt.new, 1)
			got := p.Test(cases(t, spoiled))
			if spoiled == caseFile || len(got) != 1 || got[0].String() != tt.says {
				t.Fatalf("got %v, want %s", got, tt.says)
			}
			if diff := cmp.Diff(p.Explain(got[0].Case.Request), got[0].Verdicts); diff != "" {
				t.Errorf("verdicts (-want +got)\n%s", diff)
			}
		})
	}
}

func TestACaseInAuditModeNeedsATime(t *testing.T) {
	text := `version: 1
cases:
  - {identity: "spiffe://example.org/job/b", action: token.get, credential: x, want: allow, rule: seen, time: 2026-12-31}
  - {identity: "spiffe://example.org/job/b", action: token.get, credential: x, want: deny, reason: expired, time: 2027-01-01}
  - {identity: "spiffe://example.org/job/b", action: token.get, credential: x, want: deny, reason: expired}
  - {identity: "spiffe://example.org/job/b", action: token.get, credential: x, own_scopes: [read], scopes: [write], time: 2026-12-31, want: deny, reason: scope}
`
	if got := parse(t, audited).Test(cases(t, text)); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestNoPolicyDeniesEachCase(t *testing.T) {
	if got := (*policy.Policy)(nil).Test(cases(t, caseFile)); len(got) != 5 { // the case that wants a denial wants it for another reason
		t.Errorf("got %v, want all five", got)
	}
}

func TestParseCasesRefuses(t *testing.T) {
	one := "version: 1\ncases:\n  - identity: spiffe://example.org/a\n    action: token.get\n    credential: a\n    want: allow\n"
	cases(t, one)
	for _, tt := range []struct{ name, old, new, want string }{
		{"nothing", one, "", "test file is empty; it would test nothing"},
		{"no cases", one, "version: 1\n", "line 1, column 1: cases are missing"},
		{"an empty list", one, "version: 1\ncases: []\n", "line 2, column 8: cases must be a list of at least one case"},
		{"no version", "version: 1\n", "", "version is missing"},
		{"another version", "version: 1", "version: 2", "line 1, column 10: version must be 1"},
		{"a policy", "cases", "rules", `line 2, column 1: unknown key "rules"; known are version, cases`},
		{"a case that is a string", one, "version: 1\ncases: [a]\n", "line 2, column 9: a case must be a mapping"},
		{"an unknown key", "credential:", "credentials:", `line 5, column 5: unknown key "credentials"`},
		{"a key twice", "    want", "    action: token.get\n    want", `line 6, column 5: key "action" is there twice`},
		{"no identity", "identity: spiffe://example.org/a\n    ", "", "line 3, column 5: identity missing"},
		{"no action", "    action: token.get\n", "", "line 3, column 5: action missing"},
		{"no credential", "    credential: a\n", "", "line 3, column 5: credential missing"},
		{"no OAuth client", "token.get", "oauth_client.get", "line 3, column 5: oauth_client missing"},
		{"no decision", "    want: allow\n", "", "line 3, column 5: want missing"},
		{"a decision in other words", "allow", "yes", `line 6, column 11: want: "yes" must be allow or deny`},
		{"a decision that is no string", "allow", "true", "line 6, column 11: want: must be a plain string"},
		{"a pattern for an identity", "org/a", "org/*", `line 3, column 15: identity: "spiffe://example.org/*" is a pattern; give one identity`},
		{"no identity at all", "spiffe://example.org/a", "ann", `line 3, column 15: identity: identity "ann" must be spiffe://`},
		{"a family of actions", "token.get", `"token.*"`, `line 4, column 13: action: unknown action "token.*"; a case is about one of token.get, `},
		{"a name that climbs", "credential: a", "credential: a/../b", "line 5, column 17: credential: "},
		{"a list for a string", "credential: a", "credential: [a]", "line 5, column 17: credential: must be a plain string"},
		{"a bad scope", "    want", "    scopes: [\"a b\"]\n    want", "line 6, column 14: scopes: "},
		{"an empty list of scopes", "    want", "    own_scopes: []\n    want", "line 6, column 17: own_scopes must be a list of at least one item"},
		{"a bad time", "    want", "    time: now\n    want", "line 6, column 11: time must be a day"},
		{"an unknown reason", "allow", "deny\n    reason: why", `line 7, column 13: reason: unknown reason "why"; known are no_rule credential oauth_client scope subject audience expired`},
		{"a reason that only a verdict has", "allow", "deny\n    reason: action", `line 7, column 13: reason: unknown reason "action"`},
		{"a reason to allow", "allow", "allow\n    reason: scope", "line 7, column 13: reason is for want: deny"},
		{"a rule that denies", "allow", "deny\n    rule: a", "line 7, column 11: rule is for want: allow; no rule denies"},
		{"a control character in a name", "    want", "    name: \"a\\x01\"\n    want", "line 6, column 11: name: contains a control character"},
		{"not YAML", one, "cases: [", "line 1, column 8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := policy.ParseCases([]byte(strings.Replace(one, tt.old, tt.new, 1)))
			if got != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v and %v\nwant %s", got, err, tt.want)
			}
		})
	}
}

func TestCasesOfOneNameAreRefused(t *testing.T) {
	one := "  - {name: x, identity: spiffe://example.org/a, action: token.get, credential: a, want: allow}\n"
	_, err := policy.ParseCases([]byte("version: 1\ncases:\n" + one + one))
	if want := `line 4, column 5: case "x": the name is taken by the case at line 3`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestProblemsOfCasesAreReportedAtOnce(t *testing.T) {
	_, err := policy.ParseCases([]byte("version: 2\ncases:\n  - action: fly\n    want: no\n  - {}\n"))
	if err == nil || strings.Count(err.Error(), "\n") < 5 || !strings.HasPrefix(err.Error(), "line 1, ") {
		t.Errorf("got %v, want six problems or more in order", err)
	}
}

func FuzzParseCases(f *testing.F) {
	f.Add([]byte(caseFile))
	f.Add([]byte("version: 1\ncases: [{want: *x}]\n"))
	f.Add([]byte("cases:\n- ? {"))
	p, err := policy.Parse([]byte(example))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := policy.ParseCases(data)
		if (len(all) == 0) == (err == nil) {
			t.Fatalf("ParseCases(%q) = %v, %v: want either", data, all, err)
		}
		for _, m := range p.Test(all) {
			if strings.ContainsAny(m.String(), "\n\x1b") || m.Got.Allowed == m.Case.Allow && m.Case.Rule == "" && m.Case.Reason == "" {
				t.Errorf("ParseCases(%q): got %q", data, m.String())
			}
		}
	})
}
