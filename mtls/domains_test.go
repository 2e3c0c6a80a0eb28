package mtls_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

const partner = "spiffe://partner.example/job/sync"

// TestEveryCAOfABundleVouchesForEveryIdentity holds the package to the limit that it states: of two CAs in one bundle, either may
// name a worker of the other's trust domain. Constraints in the CA, or Accept, keep them apart.
func TestEveryCAOfABundleVouchesForEveryIdentity(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	both := bytes.Join([][]byte{ours.CertPEM(), theirs.CertPEM()}, nil)
	forged := issue(t, theirs, mtls.Template{SPIFFEID: "spiffe://example.org/job/reports", Client: true})
	server := source(t, broker(t, ours), both).ServerTLS(mtls.ServerOptions{})
	o := handshake(t, server, clientTLS(t, source(t, forged, ours.CertPEM()), brokerID))
	if o.server != nil || o.client != nil {
		t.Fatalf("got %v, %v: if this is refused by now, say so in the package comment", o.server, o.client)
	}

	constrained, err := mtls.NewCA("theirs, constrained", time.Hour, "partner.example")
	if err != nil {
		t.Fatal(err)
	}
	both = bytes.Join([][]byte{ours.CertPEM(), constrained.CertPEM()}, nil)
	server = source(t, broker(t, ours), both).ServerTLS(mtls.ServerOptions{})
	own := issue(t, constrained, mtls.Template{SPIFFEID: partner, Client: true})
	if o := handshake(t, server, clientTLS(t, source(t, own, ours.CertPEM()), brokerID)); o.server != nil || o.client != nil {
		t.Errorf("a worker of its own domain: got %v, %v, want it let in", o.server, o.client)
	}
	if _, _, err := constrained.Issue(mtls.Template{SPIFFEID: "spiffe://example.org/job/reports", Client: true}); err == nil {
		t.Error("a constrained CA issued a certificate for another domain")
	}
}

func TestASourcePerTrustDomainKeepsThemApart(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	forOurs := source(t, broker(t, ours), ours.CertPEM()).ServerTLS(mtls.ServerOptions{})
	forTheirs := source(t, broker(t, ours), theirs.CertPEM()).ServerTLS(mtls.ServerOptions{})
	guest := source(t, issue(t, theirs, mtls.Template{SPIFFEID: partner, Client: true}), ours.CertPEM())
	if o := handshake(t, forTheirs, clientTLS(t, guest, brokerID)); o.server != nil || o.client != nil {
		t.Errorf("at the listener for its domain: got %v, %v, want it let in", o.server, o.client)
	}
	if o := handshake(t, forOurs, clientTLS(t, guest, brokerID)); o.server == nil || o.client == nil {
		t.Error("at the listener for ours: it was let in")
	}
}

func TestAcceptKeepsTrustDomainsApart(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	both := bytes.Join([][]byte{ours.CertPEM(), theirs.CertPEM()}, nil)
	refused := errors.New("not of this trust domain")
	server := source(t, broker(t, ours), both).ServerTLS(mtls.ServerOptions{Accept: func(p mtls.Peer) error {
		if !strings.HasPrefix(p.Identity, "spiffe://example.org/") {
			return refused
		}
		return nil
	}})
	guest := source(t, issue(t, theirs, mtls.Template{SPIFFEID: partner, Client: true}), ours.CertPEM())
	if o := handshake(t, server, clientTLS(t, guest, brokerID)); !errors.Is(o.server, refused) || o.client == nil {
		t.Errorf("a worker of another domain: got %v, %v, want it refused", o.server, o.client)
	}
	if o := handshake(t, server, clientTLS(t, source(t, worker(t, ours), ours.CertPEM()), brokerID)); o.server != nil || o.client != nil {
		t.Errorf("a worker of ours: got %v, %v, want it let in", o.server, o.client)
	}
}
