package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/mtls"
)

const (
	workerID = "spiffe://example.org/worker"
	brokerID = "spiffe://example.org/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCA(t testing.TB, name string) *mtls.CA {
	t.Helper()
	ca, err := mtls.NewCA(name, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

func issue(t testing.TB, ca *mtls.CA, tmpl mtls.Template) pair {
	t.Helper()
	cert, key, err := ca.Issue(tmpl)
	if err != nil {
		t.Fatal(err)
	}
	return pair{cert, key}
}

func worker(t testing.TB, ca *mtls.CA) pair {
	return issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true})
}

func broker(t testing.TB, ca *mtls.CA) pair {
	return issue(t, ca, mtls.Template{
		SPIFFEID: brokerID, DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Client: true,
	})
}

// san is a subjectAltName extension with the given entries as they are: url.Parse would not let the bad ones through.
func san(names ...asn1.RawValue) pkix.Extension {
	der, err := asn1.Marshal(names)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}
}

func uri(s string) asn1.RawValue { return asn1.RawValue{Class: 2, Tag: 6, Bytes: []byte(s)} }
func dns(s string) asn1.RawValue { return asn1.RawValue{Class: 2, Tag: 2, Bytes: []byte(s)} }

// mint has ca certify what CA.Issue would not: edit may spoil the template of a good worker certificate.
func mint(t testing.TB, ca *mtls.CA, edit func(*x509.Certificate)) pair {
	t.Helper()
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := tls.X509KeyPair(ca.CertPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{san(uri(workerID))},
	}
	edit(tmpl)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.Leaf, key.Public(), parent.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

func parse(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// disk is the folder of a Source.
type disk struct {
	t     testing.TB
	files mtls.Files
}

func newDisk(t testing.TB, p pair, ca []byte) disk {
	t.Helper()
	dir := t.TempDir()
	d := disk{t, mtls.Files{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"),
	}}
	d.put(d.files.Cert, p.cert)
	d.put(d.files.Key, p.key)
	d.put(d.files.CA, ca)
	return d
}

// put replaces a file by rename.
func (d disk) put(path string, data []byte) {
	d.t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
		d.t.Fatal(err)
	}
}

func (d disk) open() *mtls.Source {
	d.t.Helper()
	s, err := mtls.Open(d.files)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func source(t testing.TB, p pair, ca []byte) *mtls.Source {
	t.Helper()
	return newDisk(t, p, ca).open()
}

func clientTLS(t testing.TB, s *mtls.Source, expect string) *tls.Config {
	t.Helper()
	cfg, err := s.ClientTLS(expect)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// outcome is how a connection went. A TLS 1.3 client learns that it was refused with its first read.
type outcome struct {
	server, client error
	state          tls.ConnectionState // the server's
	clientState    tls.ConnectionState
}

// handshake connects the two over loopback.
func handshake(t testing.TB, server, client *tls.Config) outcome {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return dial(t, l, server, client)
}

// piped connects the two in memory, for a synctest bubble. A pipe holds no bytes, so a client that refuses its server
// while that still writes would block: such tests need handshake.
func piped(server, client *tls.Config) outcome {
	a, b := net.Pipe()
	return converse(tls.Server(a, server), tls.Client(b, client))
}

func converse(server, client *tls.Conn) (o outcome) {
	var both sync.WaitGroup
	both.Go(func() {
		defer server.NetConn().Close()
		if o.server = server.Handshake(); o.server == nil {
			o.state = server.ConnectionState()
			_, o.server = server.Write([]byte("!"))
		}
	})
	both.Go(func() {
		defer client.NetConn().Close()
		if o.client = client.Handshake(); o.client == nil {
			_, o.client = io.ReadFull(client, make([]byte, 1))
			o.clientState = client.ConnectionState()
		}
	})
	both.Wait()
	return o
}

// peerOf is the peer of a handshake, as a listener of s has it now.
func peerOf(s *mtls.Source, state tls.ConnectionState, allowDNS bool) (mtls.Peer, error) {
	return s.Gate(mtls.ServerOptions{AllowDNS: allowDNS}).Peer(state)
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
