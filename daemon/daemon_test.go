package daemon_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const policyText = `version: 1
rules:
  - name: operators
    identities: ["spiffe://test.local/operator/*"]
    actions: ["credential.*"]
    credentials: ["**"]
`

// config is of a broker that opens, in a folder of its own.
func config(t *testing.T) daemon.Config {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	ca, err := mtls.NewCA("daemon test", time.Hour, "test.local")
	must(t, err)
	cert, key, err := ca.Issue(mtls.Template{SPIFFEID: "spiffe://test.local/broker", Server: true, NotAfter: time.Now().Add(time.Hour)})
	must(t, err)
	must(t, keyring.GenerateFileKEK(in("kek.key")))
	for name, data := range map[string][]byte{"ca.pem": ca.CertPEM(), "server.pem": cert, "server.key": key, "policy.yaml": []byte(policyText)} {
		must(t, os.WriteFile(in(name), data, 0o600))
	}
	return daemon.Config{
		Listen: "127.0.0.1:0", OpsListen: "127.0.0.1:0", TLS: mtls.Files{Cert: in("server.pem"), Key: in("server.key"), CA: in("ca.pem")},
		StorePath: in("tokenbroker.db"), KEKFile: in("kek.key"), PolicyFile: in("policy.yaml"), AuditFile: in("audit.jsonl"),
		Providers: map[string]provider.Profile{"acme": {TokenEndpoint: "https://auth.example/token"}},
		Log:       slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// taken is an address that somebody listens on.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// TestOpenThatFailsLeavesNothingBehind breaks each step of Open: what the steps before it opened is closed again.
func TestOpenThatFailsLeavesNothingBehind(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, c *daemon.Config)
		says string
	}{
		"provider":           {func(_ *testing.T, c *daemon.Config) { c.Providers = map[string]provider.Profile{"acme": {}} }, "token_endpoint: missing"},
		"policy":             {func(_ *testing.T, c *daemon.Config) { c.PolicyFile += ".gone" }, "policy.yaml.gone"},
		"certificate":        {func(_ *testing.T, c *daemon.Config) { c.TLS.Cert = c.TLS.CA }, "ca.pem"},
		"key encryption key": {func(_ *testing.T, c *daemon.Config) { c.KEKFile += ".gone" }, "put the one back"},
		"gRPC listener":      {func(t *testing.T, c *daemon.Config) { c.Listen = taken(t) }, "listen for gRPC"},
		"ops listener":       {func(t *testing.T, c *daemon.Config) { c.OpsListen = taken(t) }, "listen for probes and metrics"},
		"store file":         {func(t *testing.T, c *daemon.Config) { c.StorePath = t.TempDir() }, "not a regular file"},
		"store of another key": {func(t *testing.T, c *daemon.Config) {
			other := config(t)
			d, err := daemon.Open(t.Context(), other)
			must(t, err)
			d.Close()
			c.StorePath = other.StorePath
		}, "open the store"},
		"audit log": {func(t *testing.T, c *daemon.Config) { c.AuditFile = t.TempDir() }, "audit.file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			listen, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			cfg.Listener = listen
			c.harm(t, &cfg)
			if strings.Contains(name, "gRPC") {
				cfg.Listener = nil
				must(t, listen.Close())
			}
			d, err := daemon.Open(t.Context(), cfg)
			if err == nil {
				d.Close()
				t.Fatal("got a broker, want an error")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, want %q in it", err, c.says)
			}
			free(t, cfg)
		})
	}
}

// free wants that nobody holds the store, and that no goroutine is left.
func free(t *testing.T, cfg daemon.Config) {
	t.Helper()
	if info, err := os.Stat(cfg.StorePath); err == nil && info.Mode().IsRegular() {
		e, err := bolt.Open(cfg.StorePath, bolt.Options{Timeout: time.Second})
		must(t, err)
		must(t, e.Close())
	}
	goleak.VerifyNone(t)
}

func TestOpenAndClose(t *testing.T) {
	cfg := config(t)
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	if d.Addr() == nil || d.OpsAddr() == nil {
		t.Errorf("got no addresses")
	}
	d.Close()
	d.Close()
	free(t, cfg)
}

func TestWithoutAnOpsListener(t *testing.T) {
	cfg := config(t)
	cfg.OpsListen = ""
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	defer d.Close()
	if got := d.OpsAddr(); got != nil {
		t.Errorf("got ops address %v, want none", got)
	}
}

// TestRunEndsWhenAListenerFails: a broker that nobody can reach must not look alive.
func TestRunEndsWhenAListenerFails(t *testing.T) {
	cfg := config(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg.Listener = l
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	must(t, l.Close())
	if err := d.Run(t.Context()); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "gRPC: ") {
		t.Errorf("got %v, want that the gRPC listener is closed", err)
	}
	free(t, cfg)
}

// TestRunRefusesWithoutAnAuditLog: the start itself is a record.
func TestRunRefusesWithoutAnAuditLog(t *testing.T) {
	cfg := config(t)
	cfg.AuditFile = "/dev/full"
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "audit log") {
		t.Errorf("got %v, want that the audit log can't be written", err)
	}
	free(t, cfg)
}

// TestTwoBrokersDoNotShareAnAuditLog: their lines would be mixed for good.
func TestTwoBrokersDoNotShareAnAuditLog(t *testing.T) {
	one, other := config(t), config(t)
	other.AuditFile = one.AuditFile
	d, err := daemon.Open(t.Context(), one)
	must(t, err)
	if _, err := daemon.Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "in use by another broker") {
		t.Errorf("got %v, want that the log is in use", err)
	}
	d.Close()
	again, err := daemon.Open(t.Context(), other)
	must(t, err)
	again.Close()
}

// TestStopBeforeItServes ends in order however soon it is asked to.
func TestStopBeforeItServes(t *testing.T) {
	cfg := config(t)
	d, err := daemon.Open(t.Context(), cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	log, err := os.ReadFile(cfg.AuditFile)
	must(t, err)
	if !strings.Contains(string(log), `"start"`) || !strings.Contains(string(log), `"stop"`) {
		t.Errorf("got audit log %s, want start and stop", log)
	}
	free(t, cfg)
}

func TestCheck(t *testing.T) {
	cfg := config(t)
	warnings, err := daemon.Check(cfg)
	if len(warnings) != 0 || err != nil {
		t.Errorf("got %v, %v, want nothing wrong", warnings, err)
	}
	cfg.Providers["plain"] = provider.Profile{TokenEndpoint: "http://127.0.0.1:9/token", AllowPrivate: true, InsecureLoopback: true}
	warnings, err = daemon.Check(cfg)
	if all := strings.Join(warnings, "\n"); len(warnings) != 2 || !strings.Contains(all, "insecure_loopback") || !strings.Contains(all, "allow_private") || err != nil {
		t.Errorf("got %q, %v, want a warning of insecure_loopback and one of allow_private", warnings, err)
	}
	cfg.KEKFile, cfg.PolicyFile, cfg.TLS.Key, cfg.DenyFile = "no.key", "no.yaml", "no.pem", "no.txt"
	cfg.Providers["bad"] = provider.Profile{TokenEndpoint: "ftp://auth.example"}
	_, err = daemon.Check(cfg)
	for _, piece := range []string{"no.key", "no.yaml", "no.pem", "no.txt", `provider "bad"`} {
		if err == nil || !strings.Contains(err.Error(), piece) {
			t.Errorf("got %v, want %q in it, as all else that is wrong", err, piece)
		}
	}
	for _, path := range []string{cfg.StorePath, cfg.AuditFile} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
	free(t, cfg)
}
