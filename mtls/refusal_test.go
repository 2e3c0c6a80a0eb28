package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// refusal is a client that must not get in. It is otherwise a good worker.
type refusal struct {
	name string
	pair pair
	want string // in the server's error
}

// refuse has each of them try, with a client that checks nothing, as an attacker's would.
func refuse(t *testing.T, s *mtls.Source, rows []refusal) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
			if row.pair.cert != nil {
				client.GetClientCertificate = present(t, row.pair)
			}
			o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), client)
			if o.server == nil || !strings.Contains(o.server.Error(), row.want) {
				t.Errorf("server: got %v, want an error with %q", o.server, row.want)
			}
			if o.server != nil && (len(o.server.Error()) > 600 || strings.ContainsAny(o.server.Error(), "\x00\n") || strings.Contains(o.server.Error(), "PRIVATE")) {
				t.Errorf("the reason does not fit a log line: %q", o.server)
			}
			if o.client == nil {
				t.Error("client: was served")
			}
		})
	}
}

func TestS01WrongCertificatesAreRefusedInTheHandshake(t *testing.T) {
	ca, foreign, self := newCA(t, "dev"), newCA(t, "foreign"), newCA(t, "self")
	with := func(edit func(*x509.Certificate)) pair { return mint(t, ca, edit) }
	window := func(from, to time.Duration) pair {
		return issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)})
	}
	own := func(ca *mtls.CA) pair {
		key, err := ca.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		return pair{ca.CertPEM(), key}
	}
	refuse(t, source(t, broker(t, ca), ca.CertPEM()), []refusal{
		{"no certificate", pair{}, "didn't provide a certificate"},
		{"self-signed", own(self), "unknown authority"},
		{"of another CA", worker(t, foreign), "unknown authority"},
		{"of another CA of the same name", worker(t, newCA(t, "dev")), "unknown authority"},
		{"ended", window(-2*time.Hour, -time.Hour), "expired"},
		{"not begun", window(time.Hour, 2*time.Hour), "not yet valid"},
		{"the CA's own", own(ca), "clientAuth"},
		{"a CA as leaf", with(func(c *x509.Certificate) { c.IsCA = true }), "CA:TRUE"},
		{"a leaf that may sign", with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "keyCertSign"},
		{"a leaf that may sign lists of revoked ones", with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }), "cRLSign"},
		{"a leaf that may not sign a handshake", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "digitalSignature"},
		{"server-auth only", issue(t, ca, mtls.Template{SPIFFEID: workerID, Server: true}), "incompatible key usage"},
		{"no extended key usage", with(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "clientAuth"},
		{"any extended key usage", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "clientAuth"},
	})
}

func TestS02ANameInTheWrongPlaceIsNone(t *testing.T) {
	ca := newCA(t, "dev")
	inCN := func(edit func(*x509.Certificate)) pair {
		return mint(t, ca, func(c *x509.Certificate) { c.Subject.CommonName = workerID; c.ExtraExtensions = nil; edit(c) })
	}
	refuse(t, source(t, broker(t, ca), ca.CertPEM()), []refusal{
		{"in the CN only", inCN(func(*x509.Certificate) {}), "no URI SAN"},
		{"in the CN, beside another domain's ID", inCN(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, san(uri(partner))) }), "no bundle for the trust domain partner.example"},
		{"in a DNS SAN only", issue(t, ca, mtls.Template{DNSNames: []string{"worker"}, Client: true}), "no URI SAN"},
		{"an ID in a DNS SAN", mint(t, ca, func(c *x509.Certificate) { c.ExtraExtensions[0] = san(dns(workerID)) }), "certificate"},
	})
}

func TestS03AnythingButOneSPIFFEIDIsRefused(t *testing.T) {
	ca := newCA(t, "dev")
	named := func(names ...string) pair {
		return mint(t, ca, func(c *x509.Certificate) {
			c.ExtraExtensions = nil
			for _, n := range names {
				c.ExtraExtensions = append(c.ExtraExtensions, san(uri(n)))
			}
		})
	}
	two := func(a, b string) pair {
		return mint(t, ca, func(c *x509.Certificate) { c.ExtraExtensions[0] = san(uri(a), uri(b)) })
	}
	refuse(t, source(t, broker(t, ca), ca.CertPEM()), []refusal{
		{"two URI SANs", two(workerID, brokerID), "2 URI SANs"},
		{"the same URI SAN twice", two(workerID, workerID), "2 URI SANs"},
		{"a SPIFFE ID and another URI", two(workerID, "https://example.org/worker"), "2 URI SANs"},
		{"two SAN extensions", named(workerID, brokerID), "certificate"},
		{"a root path", named("spiffe://example.org"), "no path"},
		{"a bare slash", named("spiffe://example.org/"), "slash"},
		{"an upper-case trust domain", named("spiffe://Example.org/worker"), "trust domain"},
		{"an upper-case scheme", named("SPIFFE://example.org/worker"), "scheme"},
		{"a percent-encoded trust domain", named("spiffe://ex%61mple.org/worker"), "certificate"},
		{"a percent-encoded path", named("spiffe://example.org/w%6frker"), "path segment"},
		{"a trailing slash", named(workerID + "/"), "slash"},
		{"a dot segment", named("spiffe://example.org/a/../worker"), "dot segment"},
		{"a port", named("spiffe://example.org:443/worker"), "trust domain"},
		{"a query", named(workerID + "?x"), "path segment"},
		{"a NUL in the SAN", named(workerID + "\x00"), "certificate"},
		{"a NUL in the middle", named("spiffe://example.org/worker\x00/operator"), "certificate"},
		{"a letter that looks alike", named("spiffe://ex\u0430mple.org/worker"), "certificate"},
	})
}
