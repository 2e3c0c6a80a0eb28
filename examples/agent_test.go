package examples_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

// throughAgent is the way of a worker on a host that has an agent: a socket, and no certificate.
func throughAgent(t *testing.T, b *brokertest.Broker) []string {
	t.Helper()
	socket, _ := startAgent(t, b, agent.Config{})
	return []string{"TOKENBROKER_ADDR=" + socket}
}

// startAgent runs an agent until the test ends, and returns where it serves.
func startAgent(t *testing.T, b *brokertest.Broker, cfg agent.Config) (socket, metadata string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the name of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	cfg.Socket, cfg.AuditFile = filepath.Join(dir, "s"), filepath.Join(t.TempDir(), "agent.jsonl")
	if cfg.Client, err = client.New(client.Config{Addr: b.Daemon.Addr().String(), Files: files(b)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a, err := agent.Open(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		_ = cfg.Client.Close()
		_ = os.RemoveAll(dir)
	})
	for _, addr := range a.Addrs() {
		if addr.Name == "metadata" {
			metadata = addr.URL
		}
	}
	return "unix://" + cfg.Socket, metadata
}
