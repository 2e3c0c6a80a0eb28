package mtls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

const partner = "spiffe://partner.example/job/sync"

// domains adds bundles of trust domains to the files of a Source.
func (d disk) domains(bundles map[string][]byte) disk {
	d.t.Helper()
	d.files.Domains = map[string]string{}
	for name, data := range bundles {
		path := filepath.Join(filepath.Dir(d.files.CA), name+".pem")
		d.put(path, data)
		d.files.Domains[name] = path
	}
	return d
}

// TestOneDomainsCANeverVouchesForAnother has every pair of a CA and an identity at a listener that trusts both domains: only a CA of the
// identity's own domain gets it in. Both CAs are in the union that crypto/tls verifies against.
func TestOneDomainsCANeverVouchesForAnother(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	bundles := map[string][]byte{"partner.example": theirs.CertPEM()}
	byFile := newDisk(t, broker(t, ours), ours.CertPEM()).domains(bundles).open()
	both := newDisk(t, broker(t, ours), newCA(t, "names").CertPEM()).domains(map[string][]byte{"example.org": ours.CertPEM(), "partner.example": theirs.CertPEM()})
	alone := both
	alone.files.CA = ""
	for name, s := range map[string]*mtls.Source{"the CA file is that of the own domain": byFile, "each domain has a file": both.open(), "there is no CA file": alone.open()} {
		for _, row := range []struct {
			id string
			ca *mtls.CA
			in bool
		}{
			{workerID, ours, true},
			{partner, theirs, true},
			{workerID, theirs, false},
			{partner, ours, false},
			{"spiffe://other.example/job", ours, false},
			{"spiffe://other.example/job", theirs, false},
			{"spiffe://sub.example.org/job", ours, false},
		} {
			c := source(t, issue(t, row.ca, mtls.Template{SPIFFEID: row.id, Client: true}), ours.CertPEM())
			o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID))
			if in := o.server == nil && o.client == nil; in != row.in {
				t.Errorf("%s: %s of the CA %q: got %v, %v, want it let in: %v", name, row.id, parse(t, row.ca.CertPEM()).Subject, o.server, o.client, row.in)
			}
			if !row.in && !strings.Contains(o.server.Error(), row.id) {
				t.Errorf("%s: error %q does not say whom the peer claims to be", name, o.server)
			}
		}
	}
}

// A CA file of which nobody says what domain it is for vouches for all: there is nothing to keep apart.
func TestWithoutAnyTrustDomainTheCAFileVouchesForAll(t *testing.T) {
	ca := newCA(t, "dev")
	nameless := issue(t, ca, mtls.Template{DNSNames: []string{"localhost"}, Server: true})
	c := source(t, issue(t, ca, mtls.Template{SPIFFEID: partner, Client: true}), ca.CertPEM())
	s := source(t, nameless, ca.CertPEM())
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, "localhost")); o.server != nil || o.client != nil {
		t.Errorf("server without a SPIFFE ID: got %v, %v, want the worker let in", o.server, o.client)
	}
	s = newDisk(t, nameless, ca.CertPEM()).domains(map[string][]byte{"example.org": newCA(t, "ours").CertPEM()}).open()
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, "localhost")); o.server == nil || o.client == nil {
		t.Error("once there are trust domains the CA file let in one that has no bundle")
	}
}

func TestDNSNamesAreForTheCAFileAlone(t *testing.T) {
	names, ours := newCA(t, "names"), newCA(t, "ours")
	d := newDisk(t, broker(t, ours), names.CertPEM()).domains(map[string][]byte{"example.org": ours.CertPEM()})
	alone := d
	alone.files.CA = ""
	for _, row := range []struct {
		name string
		s    *mtls.Source
		ca   *mtls.CA
		dns  bool
		in   bool
	}{
		{"of the CA file", d.open(), names, true, true},
		{"of the CA file where names are not allowed", d.open(), names, false, false},
		{"of a trust domain's CA", d.open(), ours, true, false},
		{"without a CA file", alone.open(), ours, true, false},
	} {
		c := source(t, issue(t, row.ca, mtls.Template{DNSNames: []string{"reports.example.org"}, Client: true}), ours.CertPEM())
		o := handshake(t, row.s.ServerTLS(mtls.ServerOptions{AllowDNS: row.dns}), clientTLS(t, c, brokerID))
		if in := o.server == nil && o.client == nil; in != row.in {
			t.Errorf("%s: got %v, %v, want it let in: %v", row.name, o.server, o.client, row.in)
		}
	}
}

// A client verifies its server against the bundle of the server's domain, if it has one, or else against its CA file.
func TestAClientKeepsItsServersDomainApart(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	server := func(id string, ca *mtls.CA) *tls.Config {
		p := issue(t, ca, mtls.Template{SPIFFEID: id, DNSNames: []string{"localhost"}, Server: true})
		cert, err := tls.X509KeyPair(p.cert, p.key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}}
	}
	guest := issue(t, theirs, mtls.Template{SPIFFEID: partner, Client: true})
	byFile := source(t, guest, ours.CertPEM())
	byDomain := newDisk(t, guest, theirs.CertPEM()).domains(map[string][]byte{"example.org": ours.CertPEM()}).open()
	for _, row := range []struct {
		name   string
		s      *mtls.Source
		expect string
		ca     *mtls.CA
		in     bool
	}{
		{"the CA file is that of the server", byFile, brokerID, ours, true},
		{"the CA file is that of the server, by name", byFile, "localhost", ours, true},
		{"the server's domain has a bundle", byDomain, brokerID, ours, true},
		{"another CA than that of the server's domain", byDomain, brokerID, theirs, false},
		{"a domain's CA, by name", byDomain, "localhost", ours, false},
		{"the CA file, by name", byDomain, "localhost", theirs, true},
	} {
		o := handshake(t, server(brokerID, row.ca), clientTLS(t, row.s, row.expect))
		if in := o.client == nil; in != row.in {
			t.Errorf("%s: got %v, want it taken: %v", row.name, o.client, row.in)
		}
	}
}

func TestAPeerIsJudgedByTheBundlesOfNow(t *testing.T) {
	old, next := newCA(t, "old"), newCA(t, "new")
	d := newDisk(t, broker(t, old), append(old.CertPEM(), next.CertPEM()...))
	s := d.open()
	gate := s.Gate(mtls.ServerOptions{})
	o := handshake(t, gate.TLS(), clientTLS(t, source(t, worker(t, old), old.CertPEM()), brokerID))
	before := gate.Revision()
	if p, err := gate.Peer(o.state); err != nil || p.Identity != workerID {
		t.Fatalf("peer: got %+v, %v", p, err)
	}
	d.put(d.files.CA, next.CertPEM())
	if changed, err := s.Reload(); !changed || err != nil || gate.Revision() == before {
		t.Fatalf("reload: got %v, %v, revision %d after %d", changed, err, gate.Revision(), before)
	}
	if p, err := gate.Peer(o.state); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("peer of a CA that was taken out: got %+v, %v", p, err)
	}
	before = gate.Revision()
	if changed, err := s.Reload(); changed || err != nil || gate.Revision() != before {
		t.Errorf("reload of nothing new: got %v, %v, revision %d, want %d", changed, err, gate.Revision(), before)
	}
}

// A CA whose certificate is renewed with the same key goes on vouching for those it issued certificates to.
func TestARenewedCACertificateKeepsItsPeers(t *testing.T) {
	ca := newCA(t, "dev")
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(ca.CertPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	renewed := *pair.Leaf
	renewed.NotAfter = renewed.NotAfter.Add(time.Hour)
	der, err := x509.CreateCertificate(nil, &renewed, &renewed, pair.Leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk(t, broker(t, ca), ca.CertPEM())
	s := d.open()
	gate := s.Gate(mtls.ServerOptions{})
	o := handshake(t, gate.TLS(), clientTLS(t, source(t, worker(t, ca), ca.CertPEM()), brokerID))
	d.put(d.files.CA, pemOf(der))
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: got %v, %v", changed, err)
	}
	if _, err := gate.Peer(o.state); err != nil {
		t.Errorf("peer: got %v, want it kept", err)
	}
}

// TestBadBundlesAreRefusedWhole spoils one of two bundles: nothing of the files is taken up.
func TestBadBundlesAreRefusedWhole(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	for _, row := range []struct {
		name    string
		domains map[string][]byte
		want    string
	}{
		{"empty", map[string][]byte{"partner.example": nil}, "no PEM block"},
		{"garbage", map[string][]byte{"partner.example": []byte("garbage")}, "no PEM block"},
		{"a leaf", map[string][]byte{"partner.example": worker(t, theirs).cert}, "not a CA"},
		{"upper case", map[string][]byte{"Partner.example": theirs.CertPEM()}, "not the name of a trust domain"},
		{"a SPIFFE ID", map[string][]byte{"spiffe:": theirs.CertPEM()}, "not the name of a trust domain"},
		{"one CA in two", map[string][]byte{"partner.example": theirs.CertPEM(), "other.example": theirs.CertPEM()}, "other.example and partner.example"},
	} {
		d := newDisk(t, broker(t, ours), ours.CertPEM()).domains(row.domains)
		if _, err := mtls.Open(d.files); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", row.name, err, row.want)
		}
	}
	d := newDisk(t, broker(t, ours), ours.CertPEM()).domains(map[string][]byte{"partner.example": theirs.CertPEM()})
	s := d.open()
	next := broker(t, ours)
	d.put(d.files.Cert, next.cert)
	d.put(d.files.Key, next.key)
	d.put(d.files.Domains["partner.example"], nil)
	if changed, err := s.Reload(); changed || err == nil || s.Err() == nil {
		t.Errorf("reload: got %v, %v, Err %v, want it refused", changed, err, s.Err())
	}
	d.put(d.files.Domains["partner.example"], theirs.CertPEM())
	if changed, err := s.Reload(); !changed || err != nil || s.Err() != nil {
		t.Errorf("reload of mended files: got %v, %v, Err %v", changed, err, s.Err())
	}
}

// That a partner lets its CA end is no reason to keep our own new certificate out.
func TestAnEndedCAOfAPartnerHoldsNothingUp(t *testing.T) {
	ours := newCA(t, "ours")
	theirs, err := mtls.NewCA("theirs", time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	newDisk(t, broker(t, ours), ours.CertPEM()).domains(map[string][]byte{"partner.example": theirs.CertPEM()}).open()
	own := newDisk(t, broker(t, ours), ours.CertPEM()).domains(map[string][]byte{"example.org": theirs.CertPEM()})
	own.files.CA = ""
	want := fmt.Sprintf("bundle of \"example.org\" %q: no CA certificate of the bundle is valid now", own.files.Domains["example.org"])
	if _, err := mtls.Open(own.files); err == nil || err.Error() != want+": add the current one" {
		t.Errorf("our own: got %v, want %s", err, want)
	}
}

func TestAcceptHasTheLastWord(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	refused := errors.New("not of this trust domain")
	d := newDisk(t, broker(t, ours), ours.CertPEM()).domains(map[string][]byte{"partner.example": bytes.Clone(theirs.CertPEM())})
	server := d.open().ServerTLS(mtls.ServerOptions{Accept: func(p mtls.Peer) error {
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

// TestACAOfAPartnerInTheCAFileIsRefused has the CA file of before there were bundles, with both CAs in it, while the partner has a bundle
// too: its CA would vouch for our own identities.
func TestACAOfAPartnerInTheCAFileIsRefused(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	both := append(ours.CertPEM(), theirs.CertPEM()...)
	d := newDisk(t, broker(t, ours), both).domains(map[string][]byte{"partner.example": theirs.CertPEM()})
	_, err := mtls.Open(d.files)
	if err == nil {
		t.Fatal("it was opened")
	}
	for _, want := range []string{"theirs", "partner.example", "example.org, our own, which is the CA file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	d.put(d.files.CA, ours.CertPEM())
	s := d.open()
	d.put(d.files.CA, both)
	if changed, err := s.Reload(); changed || err == nil {
		t.Errorf("reload: got %v, %v, want it refused", changed, err)
	}
	c := source(t, issue(t, theirs, mtls.Template{SPIFFEID: workerID, Client: true}), ours.CertPEM())
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID)); o.server == nil || o.client == nil {
		t.Errorf("the partner's CA made %s, and it was let in", workerID)
	}
}

// A CA file that vouches for DNS names alone may share a CA with a trust domain: it makes no identity of another.
func TestACAFileForNamesMayShareACA(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	newDisk(t, broker(t, ours), append(ours.CertPEM(), theirs.CertPEM()...)).
		domains(map[string][]byte{"example.org": ours.CertPEM(), "partner.example": theirs.CertPEM()}).open()
	nameless := issue(t, ours, mtls.Template{DNSNames: []string{"localhost"}, Server: true})
	newDisk(t, nameless, ours.CertPEM()).domains(map[string][]byte{"example.org": ours.CertPEM()}).open()
}
