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

// The parser takes minutes for these, or the whole stack, which nothing recovers from.
func TestAttackListsWithoutEndAreRefusedUnread(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":       strings.Repeat("[", policy.MaxFileBytes),
		"brackets below": strings.Repeat("[\n", policy.MaxFileBytes/2),
		"braces":         strings.Repeat("{a: ", policy.MaxFileBytes/4),
		"dashes":         strings.Repeat("- ", policy.MaxFileBytes/2),
		"tabs":           strings.Repeat("-\t", policy.MaxFileBytes/2),
	} {
		if _, err := policy.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "more than 1000 deep") {
			t.Errorf("%s: got %.200v, want it refused for its depth", name, err)
		}
	}
	flat := `["spiffe://example.org/worker/a-b"` + strings.Repeat(`, "spiffe://example.org/worker/a-b - c"`, 900) + "]"
	_, err := policy.Parse([]byte("version: 1\nrules:\n  - name: a\n    identities: " + flat + "\n    actions: [\"token.*\"]\n    credentials: [\"x\"]\n"))
	if err != nil && strings.Contains(err.Error(), "deep") {
		t.Errorf("got %v for a list that is long and not deep", err)
	}
}
