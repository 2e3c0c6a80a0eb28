package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestS01NothingRunsWithoutAGoodCertificate(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	b.AddClientCredentials("example/api", "files.read")
	other, err := mtls.NewCA("other", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(tmpl mtls.Template) *tls.Config { return clientTLS(t, b, tmpl) }
	forged := func(ca *mtls.CA, change func(*x509.Certificate)) *tls.Config {
		cert, key := brokertest.Forge(t, ca, brokertest.WorkerID, change)
		return clientTLSWith(t, b, cert, key)
	}
	none := issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	none.Certificates = nil
	broken := issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	broken.Certificates[0].Certificate = [][]byte{broken.Certificates[0].Certificate[0][:200]}
	broken.Certificates[0].Leaf = nil
	garbage := issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	garbage.Certificates[0].Certificate, garbage.Certificates[0].Leaf = [][]byte{[]byte("no certificate at all")}, nil
	good := func(*x509.Certificate) {}
	for what, cfg := range map[string]*tls.Config{
		"none":            none,
		"garbage":         garbage,
		"truncated":       broken,
		"of a foreign CA": forged(other, good),
		"expired":         issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}),
		"not valid yet":   forged(b.CA(), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
		"two URI names": forged(b.CA(), func(c *x509.Certificate) {
			c.URIs = []*url.URL{brokertest.RawURI(brokertest.WorkerID), brokertest.RawURI(brokertest.OperatorID)}
		}),
		"a common name only": forged(b.CA(), func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: brokertest.OperatorID} }),
		"a DNS name only":    issue(mtls.Template{DNSNames: []string{"localhost"}, Client: true}),
		"a root path":        forged(b.CA(), func(c *x509.Certificate) { c.URIs = []*url.URL{brokertest.RawURI(domain + "/")} }),
		"upper case": forged(b.CA(), func(c *x509.Certificate) {
			c.URIs = []*url.URL{brokertest.RawURI("spiffe://BROKERTEST.local/worker/test")}
		}),
		"no SPIFFE ID": forged(b.CA(), func(c *x509.Certificate) {
			c.URIs = []*url.URL{brokertest.RawURI("https://brokertest.local/worker/test")}
		}),
		"of a CA":     forged(b.CA(), func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }),
		"of a server": issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Server: true}),
	} {
		t.Run(what, func(t *testing.T) {
			conn := dialTLS(t, b.Daemon.Addr(), cfg)
			_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want no connection", err)
			}
		})
	}
	if n := tokenCalls(t, b); n != 0 {
		t.Errorf("%d calls reached the guard without a good certificate", n)
	}
	conn := dialTLS(t, b.Daemon.Addr(), forged(b.CA(), good))
	if _, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil || tokenCalls(t, b) != 1 {
		t.Errorf("with a good certificate: got %v and %d calls, want 1", err, tokenCalls(t, b))
	}
}

func dialTLS(t *testing.T, addr net.Addr, cfg *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr.String(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func tokenCalls(t *testing.T, b *brokertest.Broker) (n int) {
	t.Helper()
	for _, l := range auditLines(t, b) {
		if l.Kind == "call" && l.Action == "token.get" {
			n++
		}
	}
	return n
}

func TestACertificatesEndEndsItsStreamsAndItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		conn := b.ConnWith(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(10 * time.Minute)})
		end := time.Now().Truncate(time.Second).Add(10 * time.Minute)
		w := watch(t, conn, sel("example/api"))
		w.patience = time.Hour
		w.ready(0)
		err := w.end()
		wantFault(t, err, codes.Unauthenticated, "CERTIFICATE_EXPIRED")
		if late := time.Since(end); late < 0 || late > time.Second {
			t.Errorf("the stream ended %v after the certificate, want within a second", late)
		}
		_, err = tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		wantFault(t, err, codes.Unauthenticated, "CERTIFICATE_EXPIRED")
		time.Sleep(2*time.Second - time.Since(end))
		_, err = tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v two seconds after the end, want the connection cut and no other", err)
		}
	})
}

func TestACallOnAnExpiredConnectionIsRefusedWhateverItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		conn := b.ConnWith(mtls.Template{SPIFFEID: brokertest.OperatorID, Client: true, NotAfter: time.Now().Add(10 * time.Minute)})
		if _, err := credentialsOf(conn).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute + 100*time.Millisecond)
		_, err := credentialsOf(conn).ListCredentials(context.Background(), &tokenbrokerv1.ListCredentialsRequest{})
		wantFault(t, err, codes.Unauthenticated, "CERTIFICATE_EXPIRED")
	})
}
