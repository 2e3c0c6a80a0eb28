package daemon_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// shown has the broker of a config show another certificate, and adds a listener for operators.
func shown(t *testing.T, cfg *daemon.Config, tmpl mtls.Template) {
	t.Helper()
	dir := filepath.Dir(cfg.TLS.Cert)
	ca, err := mtls.NewCA("another", time.Hour)
	must(t, err)
	cert, key, err := ca.Issue(tmpl)
	must(t, err)
	for path, data := range map[string][]byte{cfg.TLS.Cert: cert, cfg.TLS.Key: key, filepath.Join(dir, "operators.pem"): ca.CertPEM()} {
		must(t, os.WriteFile(path, data, 0o600))
	}
	cfg.Admin = daemon.Admin{Listen: "127.0.0.1:0", TLS: mtls.Files{CA: filepath.Join(dir, "operators.pem")}}
}

// A start says what "config validate" does: who starts the broker has not always asked that first.
func TestAStartWarnsOfCAsThatVouchForAll(t *testing.T) {
	cfg := config(t)
	log := &logged{}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	open := func() {
		d, err := daemon.Open(t.Context(), cfg)
		must(t, err)
		d.Close()
	}
	open()
	if got := log.lines("trust domain"); len(got) != 0 {
		t.Errorf("with a SPIFFE ID: got %q, want no warning", got)
	}
	shown(t, &cfg, mtls.Template{DNSNames: []string{"localhost"}, Server: true})
	open()
	warnings, err := daemon.Check(cfg)
	must(t, err)
	for _, key := range []string{" tls.client_ca_file vouch for every trust domain", "admin_tls.client_ca_file vouch for every trust domain"} {
		if got := log.lines("level=WARN", key); len(got) != 1 || !strings.Contains(strings.Join(warnings, "\n"), key) {
			t.Errorf("%s: got log lines %q, warnings %q, want one each", key, got, warnings)
		}
	}
}

// No client takes such a certificate, so it is better refused by whoever can say why.
func TestACertificateOfAClientIsNotServed(t *testing.T) {
	cfg := config(t)
	shown(t, &cfg, mtls.Template{SPIFFEID: "spiffe://test.local/broker", Client: true})
	if _, err := daemon.Check(cfg); err == nil || !strings.Contains(err.Error(), "serverAuth") || !strings.Contains(err.Error(), cfg.TLS.Cert) {
		t.Errorf("check: got %v", err)
	}
	if _, err := daemon.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "serverAuth") {
		t.Errorf("open: got %v", err)
	}
}
