package policy_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

func TestAttackARuleOnConsentsThatAllowsNothingIsRefused(t *testing.T) {
	_, err := policy.Parse([]byte("version: 1\nrules:\n  - name: a\n    identities: [\"spiffe://example.org/operator/*\"]\n    actions: [\"consent.*\"]\n    scopes: [\"**\"]\n"))
	if err == nil || !strings.Contains(err.Error(), "credentials missing") {
		t.Errorf("got %v, want it said that credentials are missing", err)
	}
}
