package grant_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// mint makes a self-signed server certificate and writes it to a file.
func mint(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: replyCanary},
		NotBefore:    time.Now().Add(-2 * time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestS28ServersThatAreNotTrustedGetNothing(t *testing.T) {
	plain := func(*x509.Certificate) {}
	_, otherCA := mint(t, plain)
	for _, tt := range []struct {
		name   string
		cert   func(*x509.Certificate)
		ca     string // "own" = the server's, "" = the system's
		config *tls.Config
		code   string // "" = it is trusted
	}{
		{name: "its own CA", cert: plain, ca: "own"},
		{name: "its own CA, TLS 1.2", cert: plain, ca: "own", config: &tls.Config{MaxVersion: tls.VersionTLS12}},
		{name: "TLS 1.1", cert: plain, ca: "own", config: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, code: "connection_failed"},
		{name: "another CA", cert: plain, ca: otherCA, code: "tls_unknown_authority"},
		{name: "self-signed", cert: plain, code: "tls_unknown_authority"},
		{name: "expired", cert: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, ca: "own", code: "tls_certificate_expired"},
		{name: "another host", cert: func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{replyCanary} }, ca: "own", code: "tls_wrong_host"},
		{name: "for clients only", cert: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, ca: "own", code: "tls_bad_certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, own := mint(t, tt.cert)
			s := serve(t, reply(200, "", plainReply), func(s *httptest.Server) {
				s.TLS = tt.config.Clone()
				if s.TLS == nil {
					s.TLS = &tls.Config{}
				}
				s.TLS.Certificates = []tls.Certificate{cert}
			})
			if tt.ca == "own" {
				tt.ca = own
			}
			c := newClient(t, provider.Profile{TokenEndpoint: s.URL, AllowPrivate: true, CAFile: tt.ca})
			_, err := c.Exchange(t.Context(), refreshRequest())
			if tt.code == "" {
				if err != nil || len(s.requests()) != 1 {
					t.Errorf("got %v after %d requests, want one that works", err, len(s.requests()))
				}
				return
			}
			if f := failureOf(t, err); f.Sent || f.Class != transient || f.Code != tt.code {
				t.Errorf("got %+v, want unsent %s", f, tt.code)
			}
			if got := len(s.requests()); got != 0 {
				t.Errorf("the server read %d requests", got)
			}
		})
	}
}

func TestS28AServerWithoutTLSGetsNothing(t *testing.T) {
	s := serveRaw(t, func(c net.Conn, s *rawServer) {
		text := make([]byte, 4096)
		n, _ := c.Read(text)
		s.mu.Lock()
		s.read.Write(text[:n])
		s.mu.Unlock()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	})
	_, err := newClient(t, provider.Profile{TokenEndpoint: "https://" + s.addr, AllowPrivate: true}).Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Sent || f.Class != transient {
		t.Errorf("got %+v, want it unsent", f)
	}
	if s.spent() != 0 {
		t.Error("the refresh token arrived in the clear")
	}
}

func TestProxyOfTheProfile(t *testing.T) {
	s := serve(t, reply(200, "", plainReply))
	for _, tt := range []struct {
		name   string
		status int
		sent   bool
	}{{"connects", 200, true}, {"refuses", 403, false}} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Value
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r.Method + " " + r.Host)
				if tt.status != 200 {
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, replyCanary)
					return
				}
				tunnel(t, w, r.Host)
			}))
			defer proxy.Close()
			p := trusting(t, s)
			p.Proxy = proxy.URL
			_, err := newClient(t, p).Exchange(t.Context(), refreshRequest())
			if got, want := asked.Load(), "CONNECT "+strings.TrimPrefix(s.URL, "https://"); got != want {
				t.Errorf("proxy was asked %q, want %q", got, want)
			}
			if tt.sent {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := failureOf(t, err); f.Sent || f.Class != transient {
				t.Errorf("got %+v, want it unsent", f)
			}
		})
	}
	if got := len(s.requests()); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
}

// tunnel joins a hijacked connection with a server until either ends.
func tunnel(t *testing.T, w http.ResponseWriter, host string) {
	up, err := net.Dial("tcp", host)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = up.Close() }()
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = down.Close() }()
	_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, down)
		_ = up.Close()
	}()
	_, _ = io.Copy(down, up)
	_ = down.Close()
	<-done
}

func TestNewReportsBadCAFiles(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	cat, err := provider.New(map[string]provider.Profile{
		"a": {TokenEndpoint: "https://login.example.com/a", CAFile: junk},
		"b": {TokenEndpoint: "https://login.example.com/b", CAFile: junk + ".none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = grant.New(grant.Config{Catalogue: cat})
	if err == nil || !strings.Contains(err.Error(), `provider "a": ca_file`) || !strings.Contains(err.Error(), `provider "b": ca_file`) {
		t.Errorf("got error %v, want both files named", err)
	}
	if _, err := grant.New(grant.Config{}); err == nil {
		t.Error("got no error without a catalogue")
	}
}
