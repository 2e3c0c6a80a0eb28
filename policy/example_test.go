package policy_test

import (
	"fmt"

	"github.com/tokenbroker/tokenbroker/policy"
)

func ExampleParse() {
	p, err := policy.Parse([]byte(`
version: 1
rules:
  - name: reports
    identities: ["spiffe://example.org/job/reports-*"]
    actions: [token.get, token.subscribe]
    credentials: ["google/reports"]
    scopes: ["drive.readonly"]
`))
	if err != nil {
		panic(err)
	}
	r := policy.Request{
		Identity: "spiffe://example.org/job/reports-nightly", Action: policy.TokenGet,
		Credential: "google/reports", Scopes: []string{"drive.readonly"},
	}
	say := func(d policy.Decision) { fmt.Printf("%v %q %q %q\n", d.Allowed, d.Rule, d.Reason, d.DeniedScope) }
	say(p.Decide(r))
	r.Scopes = []string{"drive.readonly", "drive"}
	say(p.Decide(r))
	r.Identity = "spiffe://example.org/job/other"
	say(p.Decide(r))
	// Output:
	// true "reports" "" ""
	// false "" "scope" "drive"
	// false "" "no_rule" ""
}

// Each thing that is wrong with a policy is said at once, with its place.
func ExampleParse_problems() {
	_, err := policy.Parse([]byte(`version: 1
rules:
  - name: reports
    identities: ["spiffe://*/job/reports"]
    actions: [token.got]
`))
	fmt.Println(err.Error()[:76])
	// Output:
	// line 4, column 18: identities: identity "spiffe://*/job/reports" leaves the
}
