package brokertest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestABrokerInOneLine(t *testing.T) {
	for name, cfg := range map[string]brokertest.Config{"in memory": {}, "over TCP": {TCP: true, Ops: true}} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.Start(t, cfg)
			b.AddClientCredentials("example/api", "files.read")
			tok := b.Token("example/api")
			if !b.Sandbox.Valid(tok.GetAccessToken()) {
				t.Errorf("the sandbox does not know the token that the broker gave")
			}
			if got := b.Sandbox.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}); got != 1 {
				t.Errorf("got %d token requests, want 1", got)
			}
		})
	}
}

func TestABrokerKeepsItsTokensOverARestart(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	before := b.Token("example/drive")
	b.Restart()
	after := b.Token("example/drive")
	if before.GetAccessToken() != after.GetAccessToken() || before.GetGeneration() != after.GetGeneration() {
		t.Errorf("got generation %d after the restart, want the token of before, %d", after.GetGeneration(), before.GetGeneration())
	}
}

func TestABrokerOverTCPKeepsItsAddressOverARestart(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	before := b.Daemon.Addr().String()
	b.Restart()
	if after := b.Daemon.Addr().String(); after != before {
		t.Errorf("got %s after the restart, want %s", after, before)
	}
}

func TestABrokerLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		first := b.Token("example/drive")
		time.Sleep(59 * time.Minute)
		second := b.Token("example/drive")
		if second.GetGeneration() <= first.GetGeneration() {
			t.Errorf("got generation %d after an hour, want one after %d", second.GetGeneration(), first.GetGeneration())
		}
	})
}
