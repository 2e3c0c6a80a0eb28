package agent_test

import (
	"slices"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
)

func TestWhomANamespaceDoesNotKnowIsNobodyOfItsUsers(t *testing.T) {
	const unmapped, unmappedGroup = 65534, 65533
	for _, tc := range []struct {
		name    string
		partial bool
		uid     uint32
		groups  []uint32 // wanted; nil = refused
	}{
		{"everybody is known", false, unmapped, []uint32{7, unmappedGroup}},
		{"a user who is known", true, 1000, []uint32{7}},
		{"a user who is not", true, unmapped, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := agent.InNamespace(tc.partial, unmapped, unmappedGroup, agent.Peer{UID: tc.uid, Groups: []uint32{7, unmappedGroup}})
			if (err != nil) != (tc.groups == nil) || err == nil && !slices.Equal(got.Groups, tc.groups) {
				t.Errorf("got %+v, %v, want groups %v", got, err, tc.groups)
			}
		})
	}
}
