package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	_ "embed"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

//go:embed templates/dev.txt
var devTemplate string

// dev is a broker with providers, credentials and workers of its own, to look at.
type dev struct {
	starter
	Addr, Ops string // where it listens

	out     io.Writer
	sandbox *sandbox.Server
	events  chan broker.Event
	verdict chan string // what workers have to say
}

func devCommand() *cobra.Command {
	d := dev{starter: starter{TrustDomain: "tokenbroker.local"}}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a broker with sandbox providers, credentials and workers, to look at. Not for production", Args: cobra.NoArgs,
		Long: `Runs, in one process and without any network but loopback: a broker on a throwaway store with a development CA, a sandbox
provider with three issuers (fast, rotating, flaky), four credentials, and three workers that subscribe over mTLS and use each
token. It prints what happens, and how to join in with grpcurl. Ctrl-C ends it and removes what it made, unless --dir was given.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = cmd.OutOrStdout()
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.Dir, "dir", "", "folder for its files, which stay (default: a temporary one)")
	cmd.Flags().StringVar(&d.Addr, "listen", "127.0.0.1:0", "address for gRPC; port 0 takes any free one")
	return cmd
}

// run makes everything, says so, and shows what happens until ctx ends.
func (d *dev) run(ctx context.Context) error {
	remove, err := d.folder()
	if err != nil {
		return err
	}
	defer remove()
	if d.sandbox, err = devSandbox(); err != nil {
		return err
	}
	d.events, d.verdict = make(chan broker.Event, 1024), make(chan string, 1024)
	running, err := daemon.Open(ctx, d.config())
	if err != nil {
		return err
	}
	d.Addr, d.Ops = running.Addr().String(), running.OpsAddr().String()
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	failed := make(chan error, 1)
	wg.Go(func() {
		failed <- running.Run(life)
		end()
	})
	if err := d.populate(life, &wg); err != nil {
		return err
	}
	d.show(life)
	end()
	return <-failed
}

// folder makes the files, or takes those that are there from an earlier run. The store is always a new one, since the
// sandbox forgets its refresh tokens.
func (d *dev) folder() (remove func(), err error) {
	remove = func() {}
	if d.Dir == "" {
		if d.Dir, err = os.MkdirTemp("", "tokenbroker-dev-"); err != nil {
			return remove, err
		}
		made := d.Dir
		remove = func() { _ = os.RemoveAll(made) }
	}
	if d.Dir, err = filepath.Abs(d.Dir); err != nil {
		return remove, err
	}
	if _, err := os.Stat(d.path("ca.pem")); err != nil {
		if err := d.make(); err != nil {
			remove()
			return func() {}, err
		}
	}
	if err := os.Remove(d.path("dev.db")); err != nil && !errors.Is(err, os.ErrNotExist) {
		remove()
		return func() {}, err
	}
	return remove, nil
}

func (d *dev) config() daemon.Config {
	return daemon.Config{
		Listen: d.Addr, OpsListen: "127.0.0.1:0",
		TLS:       mtls.Files{Cert: d.path("server.pem"), Key: d.path("server.key"), CA: d.path("ca.pem")},
		StorePath: d.path("dev.db"), KEKFile: d.path("kek.key"), PolicyFile: d.path("policy.yaml"), AuditFile: d.path("audit.jsonl"),
		Providers: devProviders(), Transport: func(string) http.RoundTripper { return d.sandbox },
		DrainFor: 5 * time.Second, Log: slog.New(slog.DiscardHandler), Version: version(),
		Observe: func(ev broker.Event) {
			select {
			case d.events <- ev:
			default: // nobody waits for a line
			}
		},
	}
}

// populate adds clients, credentials and workers, and then says what there is.
func (d *dev) populate(ctx context.Context, wg *sync.WaitGroup) error {
	if err := d.seed(ctx); err != nil {
		return err
	}
	for n := range 3 {
		wg.Go(func() { d.work(ctx, n+1) })
	}
	if err := d.writeEnv(); err != nil {
		return err
	}
	if err := template.Must(template.New("dev").Parse(devTemplate)).Execute(d.out, d); err != nil {
		return err
	}
	_, err := fmt.Fprintln(d.out, "ready")
	return err
}

// writeEnv writes what a shell needs to be the operator.
func (d *dev) writeEnv() error {
	var b strings.Builder
	for name, value := range map[string]string{"ADDR": d.Addr, "CA": d.path("ca.pem"), "CERT": d.path("operator.pem"), "KEY": d.path("operator.key")} {
		fmt.Fprintf(&b, "export TOKENBROKER_%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	return os.WriteFile(d.path("env"), []byte(b.String()), 0o600)
}

// show prints what happens until ctx ends.
func (d *dev) show(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-d.events:
			d.line(eventLine(ev))
		case text := <-d.verdict:
			d.line(text)
		}
	}
}

func (d *dev) line(text string) {
	if text != "" {
		_, _ = fmt.Fprintln(d.out, time.Now().Format(time.TimeOnly), text)
	}
}

// served says for whom an exchange was made.
func served(waiters int) string {
	if waiters == 0 {
		return "refreshed ahead of expiry"
	}
	return fmt.Sprintf("1 exchange served %d waiters", waiters)
}

// eventLine tells an event in a line; "" for those that would only be noise.
func eventLine(ev broker.Event) string {
	switch ev.Kind {
	case broker.EventExchange:
		if ev.Class != "" {
			return fmt.Sprintf("%-18s  exchange failed: %s (%s)", ev.Credential, ev.Code, ev.Class)
		}
		return fmt.Sprintf("%-18s  generation %d, %s to live: %s", ev.Credential, ev.Order.Generation,
			time.Until(ev.Expiry).Round(time.Second), served(ev.Waiters))
	case broker.EventState:
		return fmt.Sprintf("%-18s  is %s %s", ev.Credential, ev.State, ev.Code)
	case broker.EventOrphan, broker.EventCommitErr, broker.EventTampered, broker.EventExpiring, broker.EventForgotten:
		return fmt.Sprintf("%-18s  %s", ev.Credential, ev.Kind)
	case broker.EventReport:
		return fmt.Sprintf("%-18s  a worker reported HTTP %d", ev.Credential, ev.HTTPStatus)
	case broker.EventIntent, broker.EventDeliver:
	}
	return ""
}
