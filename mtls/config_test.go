package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

func TestHandshakeNamesThePeer(t *testing.T) {
	ca := newCA(t, "dev")
	s, p := source(t, broker(t, ca), ca.CertPEM()), worker(t, ca)
	c := source(t, p, ca.CertPEM())
	for _, expect := range []string{brokerID, "localhost", "LocalHost", "127.0.0.1"} {
		o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, expect))
		if o.server != nil || o.client != nil {
			t.Fatalf("handshake with %s: server %v, client %v", expect, o.server, o.client)
		}
		leaf := parse(t, p.cert)
		want := mtls.Peer{Identity: workerID, Fingerprint: c.Fingerprint(), Serial: leaf.SerialNumber.Text(16), Issuer: "CN=dev", NotAfter: leaf.NotAfter}
		if got, err := peerOf(s, o.state, false); got != want || err != nil {
			t.Errorf("peer: got %+v, %v, want %+v", got, err, want)
		}
		if o.state.Version != tls.VersionTLS13 || o.state.NegotiatedProtocol != "h2" {
			t.Errorf("connection: got version %x, protocol %q, want 0304 and h2", o.state.Version, o.state.NegotiatedProtocol)
		}
	}
}

func present(t testing.TB, p pair) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	t.Helper()
	cert, err := tls.X509KeyPair(p.cert, p.key)
	// A certificate that crypto/x509 can't parse is sent as it is: the server has to cope.
	if len(cert.Certificate) == 0 || cert.PrivateKey == nil {
		block, key := decode(t, p)
		cert, err = tls.Certificate{Certificate: [][]byte{block}, PrivateKey: key}, nil
	}
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, err }
}

func TestServerTakesADNSNameOnlyWhereAllowed(t *testing.T) {
	ca := newCA(t, "dev")
	s := source(t, broker(t, ca), ca.CertPEM())
	c := source(t, issue(t, ca, mtls.Template{DNSNames: []string{"worker"}, Client: true}), ca.CertPEM())
	o := handshake(t, s.ServerTLS(mtls.ServerOptions{AllowDNS: true}), clientTLS(t, c, brokerID))
	if o.server != nil || o.client != nil {
		t.Fatalf("handshake: server %v, client %v", o.server, o.client)
	}
	if got, err := peerOf(s, o.state, true); got.Identity != "dns:worker" || err != nil {
		t.Errorf("identity: got %q, %v, want dns:worker", got.Identity, err)
	}
	if _, err := peerOf(s, o.state, false); err == nil {
		t.Error("peer without DNS names allowed: got no error")
	}
}

func TestServerAsksAccept(t *testing.T) {
	ca := newCA(t, "dev")
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	denied := errors.New("serial is on the deny list")
	var asked []mtls.Peer
	opts := mtls.ServerOptions{Accept: func(p mtls.Peer) error { asked = append(asked, p); return denied }}
	if o := handshake(t, s.ServerTLS(opts), clientTLS(t, c, brokerID)); !errors.Is(o.server, denied) || o.client == nil {
		t.Errorf("handshake: server %v, client %v, want both refused", o.server, o.client)
	}
	if len(asked) != 1 || asked[0].Identity != workerID {
		t.Errorf("accept was asked about %+v, want the worker once", asked)
	}
	opts.Accept = func(mtls.Peer) error { return nil }
	if o := handshake(t, s.ServerTLS(opts), clientTLS(t, c, brokerID)); o.server != nil || o.client != nil {
		t.Errorf("handshake: server %v, client %v", o.server, o.client)
	}
}

func TestServerRefusesOldTLSAndForeignProtocols(t *testing.T) {
	ca := newCA(t, "dev")
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	old := clientTLS(t, c, brokerID)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), old); o.server == nil || o.client == nil {
		t.Errorf("TLS 1.2: server %v, client %v, want both refused", o.server, o.client)
	}
	web := clientTLS(t, c, brokerID)
	web.NextProtos = []string{"imap"}
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), web); o.server == nil || o.client == nil {
		t.Errorf("imap: server %v, client %v, want both refused", o.server, o.client)
	}
}

// A listener's configuration that somebody stripped of its hook must not become one that lets people in.
func TestStrippedServerConfigurationLetsNobodyIn(t *testing.T) {
	ca := newCA(t, "dev")
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	cfg := s.ServerTLS(mtls.ServerOptions{})
	cfg.GetConfigForClient = nil
	b := broker(t, ca)
	pair, err := tls.X509KeyPair(b.cert, b.key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	if o := handshake(t, cfg, clientTLS(t, c, brokerID)); o.server == nil {
		t.Error("a stripped configuration let the worker in")
	}
}

func TestClientRefusesTheWrongServer(t *testing.T) {
	ca, foreign := newCA(t, "dev"), newCA(t, "foreign")
	c := source(t, worker(t, ca), ca.CertPEM())
	local := []string{"localhost"}
	server := func(edit func(*x509.Certificate)) pair {
		return mint(t, ca, func(cert *x509.Certificate) {
			cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			cert.ExtraExtensions[0] = san(uri(brokerID), dns("localhost"))
			edit(cert)
		})
	}
	rows := []struct {
		name   string
		pair   pair
		expect string
		want   string // in the client's error
	}{
		{"another ID", broker(t, ca), "spiffe://example.org/other", "server is " + brokerID},
		{"another name", broker(t, ca), "broker.example.org", "not broker.example.org"},
		{"another address", broker(t, ca), "127.0.0.2", "127.0.0.2"},
		{"no ID where one is expected", issue(t, ca, mtls.Template{DNSNames: local, Server: true}), brokerID, "no URI SAN"},
		{"another CA, by ID", broker(t, foreign), brokerID, "unknown authority"},
		{"another CA, by name", broker(t, foreign), "localhost", "unknown authority"},
		{"client-auth only", issue(t, ca, mtls.Template{SPIFFEID: brokerID, Client: true}), brokerID, "incompatible key usage"},
		{"no extended key usage", server(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), brokerID, "serverAuth"},
		{"a CA as leaf", server(func(c *x509.Certificate) { c.IsCA = true }), "localhost", "CA:TRUE"},
		{"two IDs", server(func(c *x509.Certificate) { c.ExtraExtensions[0] = san(uri(brokerID), uri(workerID)) }), brokerID, "2 URI SANs"},
		{"ended", server(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "localhost", "expired"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cert, err := tls.X509KeyPair(row.pair.cert, row.pair.key)
			if err != nil {
				t.Fatal(err)
			}
			serve := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}}
			o := handshake(t, serve, clientTLS(t, c, row.expect))
			var verification *tls.CertificateVerificationError
			if !errors.As(o.client, &verification) || !strings.Contains(o.client.Error(), row.want) {
				t.Errorf("client: got %v, want a verification error with %q", o.client, row.want)
			}
			if o.server == nil {
				t.Error("server: was not told")
			}
		})
	}
}

func TestClientTakesAServerChain(t *testing.T) {
	ca := newCA(t, "dev")
	p := broker(t, ca)
	p.cert = append(p.cert, ca.CertPEM()...)
	s, c := source(t, p, ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID)); o.server != nil || o.client != nil {
		t.Errorf("handshake: server %v, client %v", o.server, o.client)
	}
}

func TestClientTLSWantsABareHostOrAnID(t *testing.T) {
	c := source(t, worker(t, newCA(t, "dev")), newCA(t, "dev").CertPEM())
	for _, expect := range []string{"", "localhost:8443", "https://localhost", "[::1]:8443", "spiffe://example.org", "spiffe:/x"} {
		if cfg, err := c.ClientTLS(expect); err == nil || cfg != nil {
			t.Errorf("client TLS for %q: got %v, %v, want an error", expect, cfg, err)
		}
	}
}

func TestGateRefusesWhatWasNotVerified(t *testing.T) {
	ca := newCA(t, "dev")
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID))
	unverified, resumed := o.state, o.state
	unverified.VerifiedChains = nil
	resumed.DidResume = true
	for name, cs := range map[string]tls.ConnectionState{
		"no certificate": {}, "not verified": unverified, "resumed": resumed, "a server": o.clientState,
	} {
		if p, err := peerOf(s, cs, true); err == nil {
			t.Errorf("%s: got %+v, want an error", name, p)
		}
	}
}

func TestPeerEndsWithItsChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short, err := mtls.NewCA("short", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		long := newCA(t, "dev")
		s := source(t, broker(t, long), append(short.CertPEM(), long.CertPEM()...))
		c := source(t, issue(t, short, mtls.Template{SPIFFEID: workerID, Client: true, NotAfter: time.Now().Add(8 * time.Hour)}), long.CertPEM())
		server, client := s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID)
		o := piped(server, client)
		got, err := peerOf(s, o.state, false)
		if want := parse(t, short.CertPEM()).NotAfter; err != nil || !got.NotAfter.Equal(want) {
			t.Errorf("end of the peer: got %v, %v, want its CA's %v", got.NotAfter, err, want)
		}
		// A second way to a trusted CA keeps the peer alive for as long as the better of the two.
		better := o.state
		better.VerifiedChains = [][]*x509.Certificate{o.state.VerifiedChains[0], {o.state.PeerCertificates[0], parse(t, long.CertPEM())}, o.state.VerifiedChains[0]}
		got, err = peerOf(s, better, false)
		if want := o.state.PeerCertificates[0].NotAfter; err != nil || !got.NotAfter.Equal(want) {
			t.Errorf("end of the peer with two chains: got %v, %v, want %v", got.NotAfter, err, want)
		}
		time.Sleep(time.Hour + time.Second)
		if _, err := peerOf(s, o.state, false); err == nil || !strings.Contains(err.Error(), "ended at") {
			t.Errorf("peer after its CA's end: got %v, want an error", err)
		}
		if o := piped(server, client); o.server == nil || o.client == nil {
			t.Errorf("handshake after the CA's end: server %v, client %v, want both refused", o.server, o.client)
		}
	})
}

func TestServerOnTCPShowsItsCurrentCertificate(t *testing.T) {
	ca := newCA(t, "dev")
	d := newDisk(t, broker(t, ca), ca.CertPEM())
	s, c := d.open(), source(t, worker(t, ca), ca.CertPEM())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	server, client := s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, "127.0.0.1")
	for range 2 {
		o := dial(t, l, server, client)
		if o.server != nil || o.client != nil {
			t.Fatalf("handshake: server %v, client %v", o.server, o.client)
		}
		if got := digestOf(o.clientState.PeerCertificates[0]); got != s.Fingerprint() {
			t.Errorf("certificate shown: got %s, want %s", got, s.Fingerprint())
		}
		next := broker(t, ca)
		d.put(d.files.Cert, next.cert)
		d.put(d.files.Key, next.key)
		if changed, err := s.Reload(); !changed || err != nil {
			t.Fatalf("reload: got %v, %v", changed, err)
		}
	}
}
