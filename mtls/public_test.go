package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// publicFiles are a certificate for browsers and its key.
type publicFiles struct {
	t         *testing.T
	ca        *mtls.CA
	cert, key string
}

func newPublicFiles(t *testing.T) publicFiles {
	t.Helper()
	ca, err := mtls.NewCA("web", time.Hour, "example.org")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := publicFiles{t: t, ca: ca, cert: filepath.Join(dir, "web.pem"), key: filepath.Join(dir, "web.key")}
	f.write(0o600)
	return f
}

// write writes a new certificate, the key with a mode.
func (f publicFiles) write(mode os.FileMode) {
	f.t.Helper()
	cert, key, err := f.ca.Issue(mtls.Template{DNSNames: []string{"localhost"}, Server: true})
	if err != nil {
		f.t.Fatal(err)
	}
	for path, data := range map[string][]byte{f.cert: cert, f.key: key} {
		_ = os.Remove(path)
		if err := os.WriteFile(path, data, mode); err != nil {
			f.t.Fatal(err)
		}
	}
}

// visit does what a browser does, and returns the certificate that it is shown.
func (f publicFiles) visit(p *mtls.Public) *x509.Certificate {
	f.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.ca.CertPEM())
	a, b := net.Pipe()
	server := tls.Server(a, p.TLS())
	client := tls.Client(b, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		f.t.Fatal(err)
	}
	if err := <-done; err != nil {
		f.t.Fatal(err)
	}
	_, _ = a.Close(), b.Close()
	return client.ConnectionState().PeerCertificates[0]
}

func TestAPublicListenerAsksForNoCertificateAndTakesUpANewOne(t *testing.T) {
	f := newPublicFiles(t)
	p, err := mtls.OpenPublic(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	first := f.visit(p)
	if changed, err := p.Reload(); changed || err != nil {
		t.Errorf("the same files: changed %v (%v)", changed, err)
	}
	f.write(0o600)
	if changed, err := p.Reload(); !changed || err != nil {
		t.Errorf("new files: changed %v (%v)", changed, err)
	}
	if second := f.visit(p); second.Equal(first) || digestOf(second) != p.Fingerprint() || !second.NotAfter.Equal(p.Expiry()) {
		t.Error("the former certificate is still shown")
	}
}

func TestAPublicCertificateThatIsNoGoodIsRefusedAndTheGoodOneStays(t *testing.T) {
	f := newPublicFiles(t)
	p, err := mtls.OpenPublic(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	good := f.visit(p)
	f.write(0o644)
	if _, err := p.Reload(); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("a key that others may read: %v", err)
	}
	if err := os.WriteFile(f.cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mtls.OpenPublic(f.cert, f.key); err == nil {
		t.Error("a file without a certificate is taken")
	}
	if _, err := mtls.OpenPublic("", ""); err == nil || !strings.Contains(err.Error(), "no path is set") {
		t.Errorf("no files: %v", err)
	}
	ended := issue(t, newCA(t, "dev"), mtls.Template{DNSNames: []string{"localhost"}, Server: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err := errors.Join(os.WriteFile(f.cert, ended.cert, 0o600), os.WriteFile(f.key, ended.key, 0o600), os.Chmod(f.key, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Reload(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("certificate file %q: certificate 1 of the chain ended", f.cert)) {
		t.Errorf("an ended certificate: %v", err)
	}
	if !f.visit(p).Equal(good) {
		t.Error("the good one is gone")
	}
}
