package policy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

const job = "spiffe://example.org/job/a"

// oneRule is a policy of one rule for job, with token.get, credential.create and consent.begin on everything, and these further lines.
func oneRule(t *testing.T, more string) *policy.Policy {
	t.Helper()
	return parse(t, head+`  - name: a
    identities: ["`+job+`"]
    actions: [token.get, token.report, credential.create, credential.update, consent.begin]
    credentials: ["**"]
    oauth_clients: ["**"]
`+more)
}

func TestWithoutScopesARuleCoversTheOwnScopesOfTheCredential(t *testing.T) {
	absent, explicit, open := oneRule(t, ""), oneRule(t, "    scopes: [read, \"mail.*\"]\n"), oneRule(t, "    scopes: [\"**\"]\n")
	yes, no := policy.ReasonAllowed, policy.ReasonScope
	for _, tt := range []struct {
		name                   string
		action                 policy.Action
		own, asked             []string
		absent, explicit, open policy.Reason
	}{
		{"nothing is asked, and the credential has none", policy.TokenGet, nil, nil, yes, no, yes},
		{"nothing is asked", policy.TokenGet, []string{"read"}, nil, yes, yes, yes},
		{"nothing is asked, and the own scopes are wider than the ceiling", policy.TokenGet, []string{"read", "write"}, nil, yes, no, yes},
		{"the own scopes are asked", policy.TokenGet, []string{"read", "write"}, []string{"write", "read"}, yes, no, yes},
		{"some of the own scopes are asked", policy.TokenGet, []string{"read", "write"}, []string{"read"}, yes, yes, yes},
		{"one more than the own scopes", policy.TokenGet, []string{"read"}, []string{"read", "mail.send"}, no, yes, yes},
		{"a scope of a credential that has none", policy.TokenGet, nil, []string{"read"}, no, yes, yes},
		{"a scope in other letters", policy.TokenGet, []string{"read"}, []string{"READ"}, no, no, yes},
		{"an empty scope", policy.TokenGet, []string{""}, []string{""}, no, no, no},
		{"a report of a token", policy.TokenReport, []string{"read", "write"}, []string{"write"}, yes, no, yes},
		{"a new credential without scopes", policy.CredentialCreate, nil, nil, yes, yes, yes},
		{"a new credential with scopes", policy.CredentialCreate, nil, []string{"read"}, no, yes, yes},
		{"a credential that keeps its scopes", policy.CredentialUpdate, []string{"read"}, []string{"read"}, no, yes, yes},
		{"a consent to the own scopes", policy.ConsentBegin, []string{"read"}, []string{"read"}, no, yes, yes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := policy.Request{Identity: job, Action: tt.action, Credential: "x", Own: tt.own, Scopes: tt.asked}
			got := []policy.Reason{absent.Decide(r).Reason, explicit.Decide(r).Reason, open.Decide(r).Reason}
			if diff := cmp.Diff([]policy.Reason{tt.absent, tt.explicit, tt.open}, got); diff != "" {
				t.Errorf("without scopes, with some, with any (-want +got)\n%s", diff)
			}
		})
	}
}

func TestTheFirstScopeThatTheCredentialDoesNotHaveIsNamed(t *testing.T) {
	r := policy.Request{Identity: job, Action: policy.TokenGet, Credential: "x", Own: []string{"read"}, Scopes: []string{"read", "write", "admin"}}
	if got := oneRule(t, "").Decide(r); got != denied(policy.ReasonScope, "write") {
		t.Errorf("got %+v, want scope write", got)
	}
}

func TestWithoutSubjectsAndAudiencesARuleLetsNobodyChooseThem(t *testing.T) {
	p := oneRule(t, "")
	r := policy.Request{Identity: job, Action: policy.TokenGet, Credential: "x"}
	r.Subject = "ann@example.org"
	if got := p.Decide(r).Reason; got != policy.ReasonSubject {
		t.Errorf("a subject: got %q", got)
	}
	r.Subject, r.Audience = "", "https://api.example.org/"
	if got := p.Decide(r).Reason; got != policy.ReasonAudience {
		t.Errorf("an audience: got %q", got)
	}
}

const audited = head + `  - name: seen
    mode: audit
    until: 2026-12-31
    identities: ["spiffe://example.org/**"]
    actions: [token.get, token.subscribe]
    credentials: ["**"]
  - name: ruled
    identities: ["spiffe://example.org/job/a"]
    actions: [token.get]
    credentials: ["files/*"]
    scopes: [read]
    subjects: ["*@example.org"]
  - name: seen-longer
    mode: audit
    until: 2027-03-01T12:00:00+02:00
    identities: ["spiffe://example.org/job/*"]
    actions: [token.get]
    credentials: ["files/*"]
`

func TestARuleInAuditModeLetsPassUntilItsEnd(t *testing.T) {
	p := parse(t, audited)
	first, second := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 3, 1, 10, 0, 0, 0, time.UTC)
	seen := policy.Decision{Allowed: true, Rule: "seen", Mode: policy.ModeAudit, Until: first}
	longer := policy.Decision{Allowed: true, Rule: "seen-longer", Mode: policy.ModeAudit, Until: second}
	ruled := policy.Decision{Allowed: true, Rule: "ruled"}
	base := policy.Request{Identity: "spiffe://example.org/job/b", Action: policy.TokenGet, Credential: "files/x", Own: []string{"read", "write"},
		Time: time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		name string
		edit func(*policy.Request)
		want policy.Decision
	}{
		{"the default scopes", func(*policy.Request) {}, seen},
		{"some of them", func(r *policy.Request) { r.Scopes = []string{"write"} }, seen},
		{"another scope", func(r *policy.Request) { r.Scopes = []string{"admin"} }, denied(policy.ReasonScope, "admin")},
		{"a subject", func(r *policy.Request) { r.Subject = "ann@example.org" }, denied(policy.ReasonSubject, "")},
		{"an audience", func(r *policy.Request) { r.Audience = "https://api.example.org/" }, denied(policy.ReasonAudience, "")},
		{"another action", func(r *policy.Request) { r.Action = policy.TokenReport }, denied(policy.ReasonRule, "")},
		{"no credential", func(r *policy.Request) { r.Credential = "" }, denied(policy.ReasonCredential, "")},
		{"the last nanosecond", func(r *policy.Request) { r.Time = first.Add(-1) }, seen},
		{"the end, where another rule lasts longer", func(r *policy.Request) { r.Time = first }, longer},
		{"the end in another zone", func(r *policy.Request) { r.Time = second.Add(-1).In(time.FixedZone("", 7200)) }, longer},
		{"the end of both", func(r *policy.Request) { r.Time = second }, denied(policy.ReasonExpired, "")},
		{"the end, of a subscription", func(r *policy.Request) { r.Action, r.Time = policy.TokenSubscribe, first }, denied(policy.ReasonExpired, "")},
		{"no time", func(r *policy.Request) { r.Time = time.Time{} }, denied(policy.ReasonExpired, "")},
		{"an enforced rule that comes later and allows", func(r *policy.Request) { r.Identity, r.Scopes = job, []string{"read"} }, ruled},
		{"an enforced rule after the end", func(r *policy.Request) { r.Identity, r.Scopes, r.Time = job, []string{"read"}, second }, ruled},
		{"an enforced rule that does not allow", func(r *policy.Request) { r.Identity = job }, seen},
		{"an enforced rule and a subject", func(r *policy.Request) { r.Identity, r.Scopes, r.Subject = job, []string{"read"}, "ann@example.org" }, ruled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := base
			tt.edit(&r)
			if diff := cmp.Diff(tt.want, p.Decide(r)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestARuleInAuditModeHasAnEndAndNoWiderCeiling(t *testing.T) {
	rule := head + `  - name: a
    mode: audit
    until: 2026-12-31
    identities: ["spiffe://example.org/job/a"]
    actions: [token.get]
    credentials: ["**"]
`
	parse(t, rule)
	for _, tt := range []struct{ name, old, new, want string }{
		{"no end", "    until: 2026-12-31\n", "", `line 3, column 5: rule "a": until missing: mode audit needs a last day`},
		{"an empty end", "2026-12-31", `""`, "line 5, column 12: until: is empty"},
		{"no date", "2026-12-31", "soon", "line 5, column 12: until must be a day"},
		{"no day of the calendar", "2026-12-31", "2026-02-30", "line 5, column 12: until must be a day"},
		{"a time without a zone", "2026-12-31", "2026-12-31T10:00:00", "line 5, column 12: until must be a day"},
		{"a year alone", "2026-12-31", "2026", "line 5, column 12: until: must be a plain string"},
		{"a day before this century", "2026-12-31", "0001-01-01T00:00:00Z", "line 5, column 12: until must be a day"},
		{"a year that ends all", "2026-12-31", "9999-12-31", "line 5, column 12: until must be a day"},
		{"another mode", "mode: audit", "mode: permissive", `line 4, column 11: mode: "permissive" must be enforce or audit`},
		{"a mode in capitals", "mode: audit", "mode: Audit", `line 4, column 11: mode: "Audit" must be enforce or audit`},
		{"an end of an enforced rule", "mode: audit", "mode: enforce", "line 5, column 12: until is for a rule with mode: audit"},
		{"an end without a mode", "    mode: audit\n", "", "line 4, column 12: until is for a rule with mode: audit"},
		{"scopes", "    credentials", "    scopes: [\"read\"]\n    credentials", "line 8, column 13: scopes: a rule with mode: audit covers the credential's own only"},
		{"subjects", "    credentials", "    subjects: [\"*\"]\n    credentials", "line 8, column 15: subjects: a rule with mode: audit covers"},
		{"audiences", "    credentials", "    audiences: [\"*\"]\n    credentials", "line 8, column 16: audiences: a rule with mode: audit covers"},
		{"a report", "[token.get]", "[token.get, token.report]", `line 7, column 26: actions: a rule with mode: audit may have token.get and token.subscribe only, not "token.report"`},
		{"a family", "[token.get]", `["token.*"]`, `line 7, column 15: actions: a rule with mode: audit may have token.get and token.subscribe only, not "token.*"`},
		{"an action of operators", "[token.get]", "[credential.get]", `line 7, column 15: actions: a rule with mode: audit may have`},
		{"no credentials", "    credentials: [\"**\"]\n", "", `rule "a": credentials missing`},
	} {
		t.Run(tt.name, func(t *testing.T) { refusedOnce(t, rule, tt.old, tt.new, tt.want) })
	}
}

func TestRulesThatDifferInModeOrEndDoNotSayTheSame(t *testing.T) {
	rule := "  - {name: %, identities: [\"spiffe://example.org/a\"], actions: [token.get], credentials: [a]"
	text := head
	for _, r := range []struct{ name, more string }{{"a", "}"}, {"b", ", mode: audit, until: 2026-12-31}"}, {"c", ", mode: audit, until: 2026-12-30}"}} {
		text += replace(rule, "%", r.name) + r.more + "\n"
	}
	parse(t, text)
	refused(t, text+replace(rule, "%", "d")+", mode: enforce}\n", `rule "d" says the same as the rule at line 3`)
	refused(t, text+replace(rule, "%", "d")+", mode: audit, until: 2026-12-31T00:00:00Z}\n", `rule "d" says the same as the rule at line 5`)
}

func TestTheModesAreWrittenAsInAFile(t *testing.T) {
	if got := policy.ModeEnforce.String() + " " + policy.ModeAudit.String(); got != "enforce audit" {
		t.Errorf("got %q", got)
	}
}

func TestANameOfARuleFitsALineOfALog(t *testing.T) {
	for _, bad := range []string{`"a\nb"`, `"a\x1b[2J"`} {
		refused(t, replace(full(""), "name: a", "name: "+bad), "line 3, column 11: name: contains a control character")
	}
	long := string(make([]byte, 257))
	refused(t, replace(full(""), "name: a", "name: "+replace(long, "\x00", "a")), "name: has 257 bytes")
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := parse(t, audited)
	requests := []policy.Request{
		{Identity: job, Action: policy.TokenGet, Credential: "files/x", Own: []string{"read"}, Scopes: []string{"read"}, Time: time.Unix(1, 0)},
		{Identity: "spiffe://example.org/job/b", Action: policy.TokenGet, Credential: "files/x", Own: []string{"read", "write"}, Time: time.Unix(1, 0)},
		{Identity: "spiffe://example.org/job/b", Action: policy.TokenGet, Credential: "files/x", Scopes: []string{"admin"}},
		{Identity: "spiffe://example.net/job/b", Action: policy.TokenGet, Credential: "files/x"},
	}
	if got := testing.AllocsPerRun(100, func() {
		for _, r := range requests {
			p.Decide(r)
		}
	}); got != 0 {
		t.Errorf("got %v allocations", got)
	}
}

func TestOnlyARuleForAnyScopeCoversThoseThatNobodyKnows(t *testing.T) {
	for scopes, want := range map[string]bool{`["**"]`: true, `["a", "**"]`: true, `["*"]`: false, `["*/*"]`: false, `["*", "*/**"]`: false, `["**/*"]`: false} {
		p, err := policy.Parse([]byte(`version: 1
rules:
  - name: team
    identities: ["spiffe://example.org/team"]
    actions: ["credential.*"]
    credentials: ["team/*"]
    scopes: ` + scopes + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		d := p.Decide(policy.Request{Identity: "spiffe://example.org/team", Action: policy.CredentialUpdate, Credential: "team/a", AnyScope: true})
		if d.Allowed != want || !want && d.Reason != policy.ReasonScope {
			t.Errorf("%s: got %+v, want allowed %v", scopes, d, want)
		}
	}
}
