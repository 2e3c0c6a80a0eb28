package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/policy"
)

func TestGranteesAreTheRulesThatCoverACredential(t *testing.T) {
	p := parse(t, audited)
	first, second := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 3, 1, 10, 0, 0, 0, time.UTC)
	seen := policy.Grantee{Rule: "seen", Identities: []string{"spiffe://example.org/**"}, Actions: []policy.Action{"token.get", "token.subscribe"}, Until: first}
	ruled := policy.Grantee{Rule: "ruled", Identities: []string{job}, Actions: []policy.Action{"token.get"}, Scopes: []string{"read"}, Subjects: []string{"*@example.org"}}
	longer := policy.Grantee{Rule: "seen-longer", Identities: []string{"spiffe://example.org/job/*"}, Actions: []policy.Action{"token.get"}, Until: second}
	for _, tt := range []struct {
		name, credential string
		now              time.Time
		want             []policy.Grantee
	}{
		{"before all ends", "files/x", first.Add(-time.Second), []policy.Grantee{seen, ruled, longer}},
		{"at the first end", "files/x", first, []policy.Grantee{ruled, longer}},
		{"at the second end", "files/x", second, []policy.Grantee{ruled}},
		{"another credential", "mail/x", first.Add(-time.Second), []policy.Grantee{seen}},
		{"another credential, later", "mail/x", second, nil},
		{"no name", "", first.Add(-time.Second), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, p.Grantees(tt.credential, tt.now)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got := (*policy.Policy)(nil).Grantees("files/x", first); got != nil {
		t.Errorf("of no policy: %v", got)
	}
}

func TestWhatAGranteeSaysDoesNotChangeThePolicy(t *testing.T) {
	p := parse(t, audited)
	for _, g := range p.Grantees("files/x", time.Time{}) {
		g.Identities[0], g.Actions[0] = "spiffe://evil.example/x", policy.CredentialDelete
	}
	if got := p.Who(policy.TokenGet, "files/x"); strings.Contains(strings.Join(got, " "), "evil") {
		t.Errorf("got %q", got)
	}
	if p.Grants("spiffe://example.org/job/a", policy.CredentialDelete) || len(p.Who(policy.CredentialDelete, "files/x")) > 0 {
		t.Error("an action came into the policy")
	}
}

func TestAPatternForOthers(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"spiffe://example.org/job/*", "spiffe://example.org/job/a", true},
		{"spiffe://example.org/job/*", "spiffe://example.org/job/a/b", false},
		{"**", "", true},
		{"google/**", "google/a/b", true},
		{"google/x", "google/xy", false},
	} {
		p, err := policy.ParsePattern(tt.pattern)
		if err != nil || p.Match(tt.text) != tt.want || p.String() != tt.pattern {
			t.Errorf("%s, which prints as %s, of %s: got %v and %v, want %v", tt.pattern, p, tt.text, p.Match(tt.text), err, tt.want)
		}
	}
	for _, bad := range []string{"", " a", "a\x00", "a***", strings.Repeat("a", 2049), "\xff"} {
		if p, err := policy.ParsePattern(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, p)
		}
	}
	if (policy.Pattern{}).Match("a") {
		t.Error("the zero pattern fits something")
	}
}
