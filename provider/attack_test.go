package provider_test

import (
	"slices"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// Accounts are compared to tell one from another. A name that its owner writes as he likes is no account: anybody can take that of the one
// that is expected.
func TestAttackNoAccountIsANameThatItsOwnerChoosesFreely(t *testing.T) {
	free := map[string][]string{
		"clickup":  {"userinfo.user.username"},
		"facebook": {"userinfo.name"},
		"figma":    {"userinfo.handle"},
		"miro":     {"userinfo.user.name"},
		"notion":   {"workspace_name"},
		"slack":    {"team.name"},
		"spotify":  {"userinfo.email"}, // which it does not verify
		"square":   {"userinfo.merchant.business_name"},
		"tiktok":   {"userinfo.data.user.display_name"},
	}
	free["slack-user"] = free["slack"]
	for name, paths := range free {
		p, ok := provider.Builtin(name)
		if !ok {
			t.Fatalf("no built-in profile %s", name)
		}
		for _, path := range p.Account {
			if slices.Contains(paths, path) {
				t.Errorf("%s: the account is %s", name, path)
			}
		}
	}
}
