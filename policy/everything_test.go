package policy_test

import (
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

func TestOnlyARuleForAllCredentialsGrantsAll(t *testing.T) {
	p, err := policy.Parse([]byte(`version: 1
rules:
  - name: auditors
    identities: ["spiffe://example.org/auditor/*"]
    actions: ["audit.*"]
    credentials: ["team/*", "**"]
  - name: teams
    identities: ["spiffe://example.org/team/*"]
    actions: ["audit.read", "credential.list"]
    credentials: ["team/**", "*"]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		identity string
		action   policy.Action
		want     bool
	}{
		{"spiffe://example.org/auditor/a", policy.AuditRead, true},
		{"spiffe://example.org/auditor/a", policy.AuditFind, true},
		{"spiffe://example.org/auditor/a", policy.CredentialList, false},
		{"spiffe://example.org/team/a", policy.AuditRead, false},
		{"spiffe://example.org/other", policy.AuditRead, false},
		{"", policy.AuditRead, false},
	} {
		if got := p.GrantsAll(c.identity, c.action); got != c.want {
			t.Errorf("%s %s: got %v, want %v", c.identity, c.action, got, c.want)
		}
	}
	if (*policy.Policy)(nil).GrantsAll("spiffe://example.org/auditor/a", policy.AuditRead) {
		t.Error("no policy grants nothing")
	}
}
