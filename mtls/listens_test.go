package mtls_test

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// TestACertificateForAListenerHasToBeOne gives a listener certificates that no client would take, and such whose SPIFFE ID is none. A
// listener that took the latter for having no ID would have its CA file vouch for every trust domain.
func TestACertificateForAListenerHasToBeOne(t *testing.T) {
	ca := newCA(t, "dev")
	named := func(names ...string) pair {
		return mint(t, ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.ExtraExtensions[0] = san(dns("localhost"))
			for _, n := range names {
				c.ExtraExtensions[0] = san(dns("localhost"), uri(names[0]), uri(n))
			}
		})
	}
	bare := func(id string) pair {
		return mint(t, ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.ExtraExtensions[0] = san(uri(id))
		})
	}
	for _, row := range []struct {
		name string
		pair pair
		want string // in the error; "" = it is taken
	}{
		{"one for both ends", broker(t, ca), ""},
		{"one with a DNS name alone", named(), ""},
		{"one with a name that is another URI", bare("https://broker.example.org/"), ""},
		{"a worker's", worker(t, ca), "does not list the extended key usage serverAuth"},
		{"one without any usage", mint(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "serverAuth"},
		{"two SPIFFE IDs", named(brokerID, workerID), "2 URI SANs"},
		{"a SPIFFE ID and another URI", named("https://broker.example.org/", brokerID), "2 URI SANs"},
		{"a SPIFFE ID without a path", bare("spiffe://example.org"), "no path"},
		{"a SPIFFE ID in upper case", bare("SPIFFE://example.org/broker"), "not a SPIFFE ID"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := newDisk(t, row.pair, ca.CertPEM())
			d.files.Listens = true
			_, err := mtls.Open(d.files)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), d.files.Cert)) {
				t.Errorf("got %v, want an error with %q and the file", err, row.want)
			}
			if d.files.Listens = false; row.want != "" {
				d.open()
			}
		})
	}
}

// A listener whose CA file vouches for one trust domain must not come to vouch for all by a certificate that lacks its ID.
func TestANewCertificateWithoutAnIDDoesNotWidenTheTrust(t *testing.T) {
	ca := newCA(t, "dev")
	d := newDisk(t, broker(t, ca), ca.CertPEM())
	d.files.Listens = true
	s := d.open()
	nameless, guest := issue(t, ca, mtls.Template{DNSNames: []string{"localhost"}, Server: true}), issue(t, ca, mtls.Template{SPIFFEID: partner, Client: true})
	d.put(d.files.Cert, nameless.cert)
	d.put(d.files.Key, nameless.key)
	if changed, err := s.Reload(); changed || err == nil || !strings.Contains(err.Error(), "every trust domain") || !strings.Contains(err.Error(), d.files.Cert) {
		t.Errorf("got %v, %v, want it refused", changed, err)
	}
	if letIn(t, s, guest, ca.CertPEM()) || !letIn(t, s, worker(t, ca), ca.CertPEM()) {
		t.Error("a peer of another trust domain was let in, or one of ours was not")
	}
	if fresh := d.open(); !fresh.VouchesForAll() {
		t.Error("a start, which says so, did not take it")
	}
}

// The Workload API is held to the same.
func TestACertificateOfTheWorkloadAPIHasToFitAListener(t *testing.T) {
	ca := newCA(t, "dev")
	a := newAgent(t).say(worker(t, ca), ca.CertPEM(), nil).start()
	a.open(mtls.Workload{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var why error
	_, err := mtls.OpenWorkload(ctx, mtls.Workload{Socket: a.socket, Files: mtls.Files{Listens: true}, Waiting: func(err error) { why = err; cancel() }})
	if err == nil || why == nil || !strings.Contains(why.Error(), a.socket+`": our certificate does not list the extended key usage serverAuth`) {
		t.Errorf("got %v, %v", err, why)
	}
}
