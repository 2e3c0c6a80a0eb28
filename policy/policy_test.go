package policy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

const example = `version: 1
rules:
  - name: reports-read
    identities: ["spiffe://example.org/job/reports", "spiffe://example.org/ns/*/job"]
    actions: [token.get, token.subscribe]
    credentials: ["google/reports-*"]
    scopes: ["drive.readonly", "mail.*"]
    subjects: ["*@example.org"]
    audiences: ["https://api.example.org/**"]
  - name: reports-write
    identities: ["spiffe://example.org/job/reports"]
    actions: [token.get]
    credentials: ["google/reports-*"]
    scopes: ["drive"]
  - name: operators
    identities: ["spiffe://example.org/operator/*"]
    actions: ["credential.*", "oauth_client.*", "token.*", "consent.*", "provider.read", "audit.*", "policy.*", "reflection.use"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
  - name: lister
    identities: ["dns:*.jobs.example.org"]
    actions: [credential.list]
    credentials: ["team-a/**"]
`

const reports, operator = "spiffe://example.org/job/reports", "spiffe://example.org/operator/ann"

func TestDecide(t *testing.T) {
	p := parse(t, example)
	get := func(edit func(*policy.Request)) policy.Request {
		r := policy.Request{Identity: reports, Action: policy.TokenGet, Credential: "google/reports-a", Scopes: []string{"drive.readonly"}}
		if edit != nil {
			edit(&r)
		}
		return r
	}
	for _, tt := range []struct {
		name    string
		request policy.Request
		want    policy.Decision
	}{
		{"what the rule says", get(nil), policy.Decision{Allowed: true, Rule: "reports-read"}},
		{"an identity by pattern", get(func(r *policy.Request) { r.Identity = "spiffe://example.org/ns/a/job" }), policy.Decision{Allowed: true, Rule: "reports-read"}},
		{"an identity a segment deeper", get(func(r *policy.Request) { r.Identity = "spiffe://example.org/ns/a/b/job" }), denied(policy.ReasonRule, "")},
		{"an identity in capitals", get(func(r *policy.Request) { r.Identity = strings.ToUpper(reports) }), denied(policy.ReasonRule, "")},
		{"another trust domain", get(func(r *policy.Request) { r.Identity = "spiffe://evil.example/job/reports" }), denied(policy.ReasonRule, "")},
		{"no identity", get(func(r *policy.Request) { r.Identity = "" }), denied(policy.ReasonRule, "")},
		{"another action", get(func(r *policy.Request) { r.Action = policy.TokenReport }), denied(policy.ReasonRule, "")},
		{"an unknown action", get(func(r *policy.Request) { r.Action = "token.*" }), denied(policy.ReasonRule, "")},
		{"another credential", get(func(r *policy.Request) { r.Credential = "google/other" }), denied(policy.ReasonCredential, "")},
		{"dots in the name", get(func(r *policy.Request) { r.Credential = "google/reports-a/../other" }), denied(policy.ReasonCredential, "")},
		{"a look-alike letter", get(func(r *policy.Request) { r.Credential = "gооgle/reports-a" }), denied(policy.ReasonCredential, "")},
		{"a wildcard in the name", get(func(r *policy.Request) { r.Credential = "**" }), denied(policy.ReasonCredential, "")},
		{"no credential", get(func(r *policy.Request) { r.Credential = "" }), denied(policy.ReasonCredential, "")},
		{"a scope of another rule", get(func(r *policy.Request) { r.Scopes = []string{"drive"} }), policy.Decision{Allowed: true, Rule: "reports-write"}},
		{"scopes that only two rules cover together", get(func(r *policy.Request) { r.Scopes = []string{"drive.readonly", "mail.send", "drive"} }), denied(policy.ReasonScope, "drive")},
		{"an unknown scope", get(func(r *policy.Request) { r.Scopes = []string{"admin"} }), denied(policy.ReasonScope, "admin")},
		{"no scope", get(func(r *policy.Request) { r.Scopes = nil }), denied(policy.ReasonScope, "")},
		{"an empty scope", get(func(r *policy.Request) { r.Scopes = []string{""} }), denied(policy.ReasonScope, "")},
		{"a subject", get(func(r *policy.Request) { r.Subject = "ann@example.org" }), policy.Decision{Allowed: true, Rule: "reports-read"}},
		{"another subject", get(func(r *policy.Request) { r.Subject = "ann@other.example" }), denied(policy.ReasonSubject, "")},
		{"a subject where the rule has none", get(func(r *policy.Request) { r.Scopes, r.Subject = []string{"drive"}, "ann@example.org" }), denied(policy.ReasonSubject, "")},
		{"an audience", get(func(r *policy.Request) { r.Audience = "https://api.example.org/a/b" }), policy.Decision{Allowed: true, Rule: "reports-read"}},
		{"another audience", get(func(r *policy.Request) { r.Audience = "https://api.example.org.evil.example/" }), denied(policy.ReasonAudience, "")},
		{"an operator without scopes", get(func(r *policy.Request) { r.Identity, r.Scopes = operator, nil }), policy.Decision{Allowed: true, Rule: "operators"}},
		{"an operator with a subject", get(func(r *policy.Request) { r.Identity, r.Subject = operator, "x" }), denied(policy.ReasonSubject, "")},
		{"reflection", policy.Request{Identity: operator, Action: policy.ReflectionUse}, policy.Decision{Allowed: true, Rule: "operators"}},
		{"a client", policy.Request{Identity: operator, Action: policy.OAuthClientGet, OAuthClient: "c"}, policy.Decision{Allowed: true, Rule: "operators"}},
		{"no client", policy.Request{Identity: operator, Action: policy.OAuthClientGet}, denied(policy.ReasonOAuthClient, "")},
		{"a credential action without one", policy.Request{Identity: operator, Action: policy.CredentialGet}, denied(policy.ReasonCredential, "")},
		{"a DNS name", policy.Request{Identity: "dns:a.jobs.example.org", Action: policy.CredentialList, Credential: "team-a/x/y"}, policy.Decision{Allowed: true, Rule: "lister"}},
		{"a client where the rule has none", policy.Request{Identity: "dns:a.jobs.example.org", Action: policy.CredentialList, Credential: "team-a/x", OAuthClient: "c"}, denied(policy.ReasonOAuthClient, "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, p.Decide(tt.request)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestOneRuleHasToAllowTheWholeRequest(t *testing.T) {
	p := parse(t, example)
	asked := []string{"drive", "drive.readonly"}
	r := policy.Request{Identity: reports, Action: policy.TokenGet, Credential: "google/reports-a"}
	for _, s := range asked {
		if r.Scopes = []string{s}; !p.Decide(r).Allowed {
			t.Fatalf("scope %q alone is denied", s)
		}
	}
	if r.Scopes = asked; p.Decide(r).Allowed {
		t.Error("two rules together allowed what none of them allows")
	}
}

func TestNilAndZeroPolicyDeny(t *testing.T) {
	for _, p := range []*policy.Policy{nil, {}} {
		for _, a := range policy.Actions() {
			r := policy.Request{Identity: reports, Action: a, Credential: "a", OAuthClient: "a", Scopes: []string{"s"}}
			if got := p.Decide(r); got != denied(policy.ReasonRule, "") || p.Grants(reports, a) {
				t.Errorf("%s: got %+v, want a denial", a, got)
			}
		}
		if p.Revision() != "" || p.Len() != 0 {
			t.Errorf("got revision %q and %d rules, want none", p.Revision(), p.Len())
		}
	}
}

func TestGrants(t *testing.T) {
	p := parse(t, example)
	for _, a := range policy.Actions() {
		if !p.Grants(operator, a) {
			t.Errorf("Grants(operator, %s) = false, want true", a)
		}
		want := a == policy.TokenGet || a == policy.TokenSubscribe
		if got := p.Grants(reports, a); got != want {
			t.Errorf("Grants(reports, %s) = %v, want %v", a, got, want)
		}
	}
}

func TestRevisionIsOfTheContent(t *testing.T) {
	sum := sha256.Sum256([]byte(example))
	if got, want := parse(t, example).Revision(), hex.EncodeToString(sum[:])[:16]; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if parse(t, example).Revision() == parse(t, example+"# more\n").Revision() {
		t.Error("another content has the same revision")
	}
}

// many is a policy of n rules, with one identity each, and as many that one identity shares.
func many(n int) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range n {
		fmt.Fprintf(&b, "  - {name: own-%d, identities: [\"spiffe://example.org/ns/n%d/*\"], actions: [token.get], credentials: [\"t%d/*\"], scopes: [s]}\n", i, i, i)
		fmt.Fprintf(&b, "  - {name: shared-%d, identities: [\"spiffe://example.org/shared\"], actions: [token.get], credentials: [\"t%d/*\"], scopes: [s]}\n", i, i)
	}
	return b.String()
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		p := parse(b, many(n))
		for _, id := range []string{"spiffe://example.org/ns/n7/job", "spiffe://example.org/shared"} {
			r := policy.Request{Identity: id, Action: policy.TokenGet, Credential: "t7/a", Scopes: []string{"s"}}
			b.Run(fmt.Sprintf("rules=%d/%s", 2*n, id[len("spiffe://example.org/"):][:2]), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !p.Decide(r).Allowed {
						b.Fatal("denied")
					}
				}
			})
		}
	}
}

func denied(reason policy.Reason, scope string) policy.Decision {
	return policy.Decision{Reason: reason, DeniedScope: scope}
}

func TestIdentitiesAreThePatternsOfAllRules(t *testing.T) {
	want := []string{"dns:*.jobs.example.org", "spiffe://example.org/job/reports", "spiffe://example.org/ns/*/job", "spiffe://example.org/operator/*"}
	if diff := cmp.Diff(want, parse(t, example).Identities()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := (*policy.Policy)(nil).Identities(); got != nil {
		t.Errorf("nil policy: got %q", got)
	}
}

func TestWhoNamesTheIdentitiesOfTheRulesThatCoverACredential(t *testing.T) {
	p, err := policy.Parse([]byte(`version: 1
rules:
  - name: b
    identities: ["spiffe://x.example/worker/b", "spiffe://x.example/worker/a"]
    actions: ["token.get"]
    credentials: ["acme/*"]
    scopes: ["**"]
  - name: a
    identities: ["spiffe://x.example/worker/a"]
    actions: ["token.*"]
    credentials: ["acme/reports"]
    scopes: ["**"]
  - name: other
    identities: ["spiffe://x.example/worker/c"]
    actions: ["credential.get"]
    credentials: ["**"]
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Who(policy.TokenGet, "acme/reports"), " "); got != "spiffe://x.example/worker/a spiffe://x.example/worker/b" {
		t.Errorf("got %q", got)
	}
	if got := p.Who(policy.TokenGet, "other/x"); len(got) != 0 {
		t.Errorf("of another credential: %v", got)
	}
	if got := (*policy.Policy)(nil).Who(policy.TokenGet, "acme/reports"); got != nil {
		t.Errorf("of no policy: %v", got)
	}
}
