package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

// TestTheDocumentationIsTrue reads docs/policy.md: its policies parse and are in no doubt, its cases come out, and it lists all that there is.
func TestTheDocumentationIsTrue(t *testing.T) {
	page, err := os.ReadFile("../docs/policy.md")
	must(t, err)
	var policies []*policy.Policy
	tested := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(block[1], "\ncases:") {
			all := cases(t, block[1])
			tested += len(all)
			for _, m := range policies[0].Test(all) {
				t.Errorf("line %d of the cases: %s", m.Case.Line, m)
			}
			continue
		}
		p := parse(t, block[1])
		policies = append(policies, p)
		for _, f := range p.Lint(policy.Facts{}) {
			if f.Check != policy.CheckAuditMode {
				t.Errorf("%+v", f)
			}
		}
	}
	if len(policies) != 3 || tested != 2 {
		t.Errorf("got %d policies and %d cases, want 3 and 2", len(policies), tested)
	}
	words := []string{
		policy.CheckWideCredential, policy.CheckWideScopes, policy.CheckWideSubjects, policy.CheckUnrelatedIdentities, policy.CheckScopeWithoutRule,
		policy.CheckShadowedRule, policy.CheckUnusedRule, policy.CheckAuditMode, policy.CheckAuditModeOver,
	}
	for _, a := range policy.Actions() {
		family, verb, _ := strings.Cut(string(a), ".")
		if !regexp.MustCompile("(?m)^\\| `" + family + "` \\|.*`" + verb + "`").Match(page) {
			t.Errorf("action %s is not in the table", a)
		}
	}
	for _, w := range words {
		if !strings.Contains(string(page), "\n| `"+w+"` | ") {
			t.Errorf("check %s is not in the table", w)
		}
	}
}
