package examples_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/brokertest"
)

// Google's library is asked for nothing but its own: it finds a metadata server, as on Google's machines, and that is the agent's.
func TestGooglesOwnLibraryGetsItsTokensFromTheAgent(t *testing.T) {
	t.Parallel()
	google := language{"TypeScript", compiled, []string{"node", "typescript/dist/google.js"}}
	s := setUp(t, google, func(t *testing.T, b *brokertest.Broker) []string {
		b.Add(of("hasty", "example/drive"))
		_, metadata := startAgent(t, b, agent.Config{Metadata: agent.Metadata{Listen: "127.0.0.1:0", Credential: "example/drive",
			Email: "reports@project.example", Project: "project"}})
		return []string{"GCE_METADATA_HOST=" + strings.TrimPrefix(metadata, "http://"), "SCOPES=files.read"}
	})
	get := func() {
		t.Helper()
		if got := s.worker.do(s.api.URL + "/files"); !strings.HasPrefix(got, "done 200 ") {
			t.Fatalf("the worker says %q, want done 200", got)
		}
	}
	get()
	s.renew("example/drive")
	get()
	s.Shutdown()
	get() // the agent has the last good token
	var tokens []string
	for _, call := range s.api.seen() {
		tokens = append(tokens, call.token)
	}
	if len(tokens) != 3 || tokens[0] == tokens[1] || tokens[1] != tokens[2] {
		t.Errorf("got %d calls, the first two with the same token: %t, the last two: %t, want 3, false, true", len(tokens),
			len(tokens) > 1 && tokens[0] == tokens[1], len(tokens) > 2 && tokens[1] == tokens[2])
	}
	if got := s.exchanges("hasty"); got != 2 {
		t.Errorf("got %d exchanges, want one per generation", got)
	}
}
