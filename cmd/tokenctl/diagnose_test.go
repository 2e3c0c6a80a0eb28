package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// peer is something that listens where a broker should, with a CA and a client that trusts it.
type peer struct {
	t     *testing.T
	ca    *mtls.CA
	files mtls.Files
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	ca, err := mtls.NewCA("test", time.Hour, "example.org")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, ca: ca}
	dir := t.TempDir()
	p.files = mtls.Files{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key"), CA: filepath.Join(dir, "ca.pem")}
	cert, key, err := ca.Issue(mtls.Template{SPIFFEID: "spiffe://example.org/me", Client: true, NotAfter: time.Now().Add(30 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{p.files.Cert: cert, p.files.Key: key, p.files.CA: ca.CertPEM()} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// certificate is one of the CA for 127.0.0.1, which ends then.
func (p *peer) certificate(end time.Time) tls.Certificate {
	p.t.Helper()
	cert, key, err := p.ca.Issue(mtls.Template{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, NotBefore: end.Add(-time.Hour), NotAfter: end})
	if err != nil {
		p.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return pair
}

// listen serves connections until the test ends.
func (p *peer) listen(serve func(net.Conn)) (addr string) {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				serve(conn)
			})
		}
	})
	p.t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// over serves TLS and closes after the handshake, which reads what the client says.
func over(cfg *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		c := tls.Server(conn, cfg)
		if c.HandshakeContext(context.Background()) == nil {
			_, _ = c.Read(make([]byte, 1))
		}
	}
}

func TestAFailedConnectionIsExplained(t *testing.T) {
	p := newPeer(t)
	strange := newPeer(t)
	now := time.Now()
	good := &tls.Config{Certificates: []tls.Certificate{p.certificate(now.Add(time.Hour))}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
	with := func(change func(*tls.Config)) *tls.Config {
		c := good.Clone()
		change(c)
		return c
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(strange.ca.CertPEM())
	for name, row := range map[string]struct {
		serve func(net.Conn)
		what  string
		exit  int
	}{
		"a certificate that has ended": {over(with(func(c *tls.Config) { c.Certificates = []tls.Certificate{p.certificate(now.Add(-time.Minute))} })),
			"the broker's certificate is not valid now: it is for ", exitFix},
		"a certificate that is not valid yet": {over(with(func(c *tls.Config) { c.Certificates = []tls.Certificate{p.certificate(now.Add(30 * time.Hour))} })),
			"the broker's certificate is not valid now: it is for ", exitFix},
		"another CA": {over(with(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{strange.certificate(now.Add(time.Hour))}
		})), "the broker's certificate was not issued by the CA in ", exitFix},
		"a broker of another CA": {over(with(func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool })),
			"its CA is not one of the broker's", exitDenied},
		"a broker that does not like us": {over(with(func(c *tls.Config) {
			c.ClientAuth = tls.RequireAnyClientCert
			c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
		})), "(bad certificate)", exitDenied},
		"HTTPS without HTTP/2": {over(with(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} })),
			"refuses the connection: no application protocol", exitFix},
		"old TLS": {over(with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })),
			"protocol version", exitFix},
		"plain HTTP":         {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "does not speak TLS", exitFix},
		"a door that closes": {func(net.Conn) {}, "closed the connection in the handshake", exitLater},
		"silence":            {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "takes connections and says nothing", exitLater},
		"silence after the handshake": {func(c net.Conn) {
			s := tls.Server(c, good)
			_ = s.HandshakeContext(context.Background())
			_, _ = io.Copy(io.Discard, s)
		}, "takes connections and says nothing", exitLater},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := client.Config{Addr: p.listen(row.serve), Server: "127.0.0.1", Files: p.files}
			limit := patience
			if strings.HasPrefix(name, "silence") {
				limit = 3 * time.Second // passes in any case: nothing comes
			}
			f := diagnose(t.Context(), cfg, limit)
			if f == nil || !strings.Contains(f.what, row.what) || f.exit != row.exit || f.action == "" {
				t.Fatalf("got %+v, want %q with exit status %d and what to do", f, row.what, row.exit)
			}
			for _, noise := range []string{"x509:", "tls:", "rpc error", "127.0.0.1:0->", "connection error"} {
				if strings.Contains(f.text(), noise) {
					t.Errorf("got %q, want words", f.text())
				}
			}
		})
	}
}

func TestAHostThatCanNotBeReachedIsExplained(t *testing.T) {
	for _, row := range []struct {
		err  error
		what string
		exit int
	}{
		{&net.DNSError{Name: "nowhere.example", IsNotFound: true}, `there is no host "nowhere.example"`, exitLater},
		{&net.DNSError{Name: "broker.example", IsTemporary: true}, `the name "broker.example" can't be looked up`, exitLater},
		{&net.DNSError{Name: "tcp/port", IsNotFound: true}, "no such port", exitUsage},
		{&net.OpError{Op: "dial", Err: &os.SyscallError{Err: syscall.ECONNREFUSED}}, "nothing listens there", exitLater},
		{&net.OpError{Op: "dial", Err: &os.SyscallError{Err: syscall.EHOSTUNREACH}}, "no way to that host", exitLater},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "no answer", exitLater},
		{&net.OpError{Op: "dial", Err: &net.AddrError{Err: "missing port in address", Addr: "broker"}}, "missing port", exitUsage},
	} {
		f := unreachable("broker:8443", row.err)
		if !strings.Contains(f.what, row.what) || f.exit != row.exit || !strings.Contains(f.what, "broker:8443") {
			t.Errorf("%v: got %q with %d, want %q with %d", row.err, f.what, f.exit, row.what, row.exit)
		}
	}
}

func TestAnErrorOfACallIsExplainedEvenWhenTheConnectionIsGood(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for name, value := range w.env() {
		t.Setenv(name, value)
	}
	c := &cli{timeout: patience}
	s, err := c.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, row := range []struct {
		err  error
		what string
		exit int
	}{
		{status.Error(codes.Unavailable, "the transport is closing"), "was lost", exitLater},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), "no answer within 1m0s", exitLater},
		{status.Error(codes.Unimplemented, "unknown service"), "answered Unimplemented: unknown service", exitOther},
		{status.Error(codes.ResourceExhausted, "too large"), "answered ResourceExhausted", exitLater},
	} {
		err := s.explain(t.Context(), row.err, target{})
		f, ok := errors.AsType[*failure](err)
		if !ok || !strings.Contains(f.what, row.what) || f.exit != row.exit {
			t.Errorf("%v: got %v, want %q with %d", row.err, err, row.what, row.exit)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.explain(ctx, status.Error(codes.Canceled, "canceled"), target{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}

func TestTheHostOfAnAddressIsWhatTheCertificateHasToHold(t *testing.T) {
	for addr, want := range map[string]string{"broker:8443": "broker", "127.0.0.1:1": "127.0.0.1", "[::1]:8443": "::1", "dns:///broker:8443": "broker",
		"passthrough:///10.0.0.1:1": "10.0.0.1", "broker": "broker"} {
		if got := hostOf(addr); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

func TestAnAnswerThatMeansTheRequestIsNoReasonToTryAgain(t *testing.T) {
	b := newStandIn(t)
	for name, tt := range map[string]struct {
		err  error
		exit int
		want string
	}{
		"too large":      {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (200000 vs. 131072)"), exitUsage, "limits.request_bytes"},
		"wrong listener": {refuse(codes.Unimplemented, "UNKNOWN_METHOD", "no such method"), exitFix, "the address is the one for operators"},
	} {
		t.Run(name, func(t *testing.T) {
			b.mu.Lock()
			b.fails["GetCredentialRequest"] = tt.err
			b.mu.Unlock()
			r := b.run(t, "", nil, "credential", "describe", "example/api")
			if r.exit != tt.exit || !strings.Contains(r.errs, tt.want) || strings.Contains(r.errs, "is it a tokenbroker") {
				t.Errorf("got status %d, want %d and %q\n%s", r.exit, tt.exit, tt.want, r.errs)
			}
		})
	}
}
