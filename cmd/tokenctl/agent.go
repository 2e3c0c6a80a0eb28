package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/harden"
)

const agentLong = `Serves tokens to the jobs of this host, over a Unix socket: HTTP, and the same gRPC TokenService as the broker's. However many
jobs ask and subscribe, the broker sees one client, this one, with the certificate that the environment or the flags name.

Who connects is who the kernel says. Without a config file only the agent's own user may ask, for whatever the broker gives the agent; a
config file gives users and groups credentials, see docs/agent.md. SIGHUP reads its rules again. SIGTERM ends the agent in order.

Jobs set TOKENBROKER_ADDR=unix:///PATH, and need no certificate: package client, tokenctl, grpcurl -unix -plaintext, and curl:

  curl --unix-socket PATH http://localhost/v1/token/example/reports?format=header

Where only TCP will do there are --http, on a loopback port, with a secret that is written to --bearer-file, and --metadata, which is to
Google's SDKs what the metadata server is on Google's machines (GCE_METADATA_HOST). Each answer is recorded before it leaves: --audit.`

func (c *cli) agentCommand() *cobra.Command {
	var s agentSettings
	cmd := &cobra.Command{Use: "agent", Short: "Serve tokens to the jobs of this host", Args: takes(), Long: agentLong,
		Example: `  tokenctl agent
  tokenctl agent --config /etc/tokenbroker/agent.yaml --socket /run/tokenbroker/agent.sock
  tokenctl agent --metadata 127.0.0.1:8174 --metadata-credential example/drive`}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		if err := harden.Process(); err != nil {
			return &failure{exit: exitFix, what: err.Error(), err: err}
		}
		cfg, err := s.load()
		if err != nil {
			return err
		}
		cl, err := c.upstream()
		if err != nil {
			return err
		}
		defer func() { _ = cl.Close() }()
		cfg.Client, cfg.Log = cl, slog.New(slog.NewJSONHandler(c.errs, nil))
		return c.serveAgent(ctx, cfg, &s)
	})
	s.flags(cmd)
	return cmd
}

// upstream is the client of the broker, which serves all jobs.
func (c *cli) upstream() (*client.Client, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	cl, err := client.New(cfg)
	if err != nil {
		return nil, badFiles(cfg, err)
	}
	return cl, nil
}

// serveAgent runs an agent until ctx ends.
func (c *cli) serveAgent(ctx context.Context, cfg agent.Config, s *agentSettings) error {
	a, err := agent.Open(ctx, cfg)
	if err != nil {
		return s.refused(cfg, err)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		for {
			select {
			case <-hup:
				reloadAgent(life, a, cfg, s)
			case <-life.Done():
				return
			}
		}
	})
	_, _ = fmt.Fprintln(c.errs, "READY", readyWords(a))
	if err := notify("READY=1"); err != nil {
		cfg.Log.Warn("the service manager was not told", "error", err)
	}
	if err := a.Run(ctx); err != nil {
		return &failure{exit: exitOther, what: err.Error(), err: err}
	}
	cfg.Log.Info("stopped")
	return nil
}

// readyWords say where an agent serves.
func readyWords(a *agent.Agent) string {
	var words []string
	for _, at := range a.Addrs() {
		words = append(words, at.Name+"="+at.URL)
	}
	return strings.Join(words, " ")
}

// reloadAgent takes up other rules, or leaves all as it is.
func reloadAgent(ctx context.Context, a *agent.Agent, running agent.Config, s *agentSettings) {
	cfg, err := s.load()
	if err == nil {
		err = sameButRules(running, cfg)
	}
	if err == nil {
		err = a.SetRules(ctx, cfg.Rules)
	}
	if err != nil {
		running.Log.Error("the config is not taken up: all stays as it was", "error", err)
		return
	}
	running.Log.Info("the rules of the config are in force")
}

// notify tells the service manager, if there is one that wants to know (sd_notify(3)).
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if rest, abstract := strings.CutPrefix(path, "@"); abstract {
		path = "\x00" + rest
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
