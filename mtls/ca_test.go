package mtls_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

func TestIssuedCertificateIsAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UTC()
		ca := newCA(t, "dev")
		cert := parse(t, broker(t, ca).cert)
		if got, err := mtls.Identity(cert, false); got != brokerID || err != nil {
			t.Errorf("identity: got %q, %v, want %q", got, err, brokerID)
		}
		if got, want := cert.NotBefore, now.Add(-time.Minute); !got.Equal(want) {
			t.Errorf("begins: got %v, want %v", got, want)
		}
		if got, want := cert.NotAfter, now.Add(24*time.Hour); !got.Equal(want) {
			t.Errorf("ends: got %v, want %v", got, want)
		}
		if got := cert.Subject.String(); got != "" {
			t.Errorf("subject: got %q, want none", got)
		}
		if got := cert.SerialNumber.BitLen(); got < 64 {
			t.Errorf("serial number has %d bits, want at least 64", got)
		}
	})
}

func TestLifeByDefaultEndsWithTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := mtls.NewCA("dev", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := parse(t, worker(t, ca).cert).NotAfter, parse(t, ca.CertPEM()).NotAfter; !got.Equal(want) {
			t.Errorf("ends: got %v, want %v", got, want)
		}
	})
}

func TestTwoCertificatesHaveOtherSerialsAndKeys(t *testing.T) {
	ca := newCA(t, "dev")
	a, b := worker(t, ca), worker(t, ca)
	if parse(t, a.cert).SerialNumber.Cmp(parse(t, b.cert).SerialNumber) == 0 || bytes.Equal(a.key, b.key) {
		t.Error("two certificates share a serial number or a key")
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t, "dev")
	rows := []struct {
		name string
		tmpl mtls.Template
		want string
	}{
		{"no name", mtls.Template{Client: true}, "no name"},
		{"no end", mtls.Template{SPIFFEID: workerID}, "neither end"},
		{"a bad SPIFFE ID", mtls.Template{SPIFFEID: "spiffe://example.org", Client: true}, "no path"},
		{"an end before the beginning", mtls.Template{SPIFFEID: workerID, Client: true, NotAfter: time.Now().Add(-time.Hour)}, "before it begins"},
		{"a DNS name that is not ASCII", mtls.Template{DNSNames: []string{"wörker"}, Client: true}, "issue: "},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if _, _, err := ca.Issue(row.tmpl); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error: got %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestConstrainedCAIssuesWhatItPermitsOnly(t *testing.T) {
	ca, err := mtls.NewCA("dev", time.Hour, "example.org", "broker")
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		tmpl mtls.Template
		ok   bool
	}{
		{mtls.Template{SPIFFEID: workerID}, true},
		{mtls.Template{SPIFFEID: "spiffe://broker/worker"}, true},
		{mtls.Template{SPIFFEID: "spiffe://example.com/worker"}, false},
		{mtls.Template{SPIFFEID: "spiffe://notexample.org/worker"}, false},
		{mtls.Template{DNSNames: []string{"localhost", "a.example.org", "broker"}}, true},
		{mtls.Template{DNSNames: []string{"accounts.example.com"}}, false},
		{mtls.Template{IPs: []net.IP{net.IPv4(127, 3, 2, 1), net.IPv6loopback}}, true},
		{mtls.Template{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}, false},
		{mtls.Template{IPs: []net.IP{net.ParseIP("fd00::1")}}, false},
	}
	for _, row := range rows {
		row.tmpl.Server = true
		t.Run(fmt.Sprint(row.tmpl.SPIFFEID, row.tmpl.DNSNames, row.tmpl.IPs), func(t *testing.T) {
			if _, _, err := ca.Issue(row.tmpl); (err == nil) != row.ok {
				t.Errorf("issue: got error %v, want success %v", err, row.ok)
			}
		})
	}
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, ca), ca.CertPEM())
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, "localhost")); o.server != nil || o.client != nil {
		t.Errorf("handshake under a constrained CA: server %v, client %v", o.server, o.client)
	}
	stray := mint(t, ca, func(c *x509.Certificate) { c.ExtraExtensions[0] = san(uri("spiffe://example.com/worker")) })
	o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, source(t, stray, ca.CertPEM()), "localhost"))
	if o.server == nil {
		t.Error("server took a name that the CA's constraints forbid")
	}
}

func TestNewCARefuses(t *testing.T) {
	for name, mk := range map[string]func() (*mtls.CA, error){
		"no name":                    func() (*mtls.CA, error) { return mtls.NewCA("", time.Hour) },
		"no life":                    func() (*mtls.CA, error) { return mtls.NewCA("dev", 0) },
		"a domain with a wildcard":   func() (*mtls.CA, error) { return mtls.NewCA("dev", time.Hour, "*.example.org") },
		"a name that is not textual": func() (*mtls.CA, error) { return mtls.NewCA("\xff", time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := mk(); err == nil {
				t.Error("new CA: got no error")
			}
		})
	}
}

func TestLoadedCAIssuesForTheSameBundle(t *testing.T) {
	ca := newCA(t, "dev")
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := mtls.LoadCA(ca.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	s, c := source(t, broker(t, ca), ca.CertPEM()), source(t, worker(t, again), ca.CertPEM())
	if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID)); o.server != nil || o.client != nil {
		t.Errorf("handshake: server %v, client %v", o.server, o.client)
	}
	if text := fmt.Sprintf("%+v %#v", again, again); strings.Contains(text, "PRIVATE") || strings.Contains(text, "D:") {
		t.Errorf("a CA prints its key: %s", text)
	}
}

func TestLoadCARefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := newCA(t, "dev"), newCA(t, "other")
		key, err := ca.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		leaf := worker(t, ca)
		refuse := func(name string, cert, key []byte, want string) {
			t.Helper()
			if _, err := mtls.LoadCA(cert, key); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got error %v, want one with %q", name, err, want)
			}
		}
		refuse("a leaf", leaf.cert, leaf.key, "may not sign")
		refuse("the key of another", other.CertPEM(), key, "does not match")
		refuse("garbage", []byte("garbage"), key, "PEM")
		refuse("an encrypted key", ca.CertPEM(), bytes.ReplaceAll(key, []byte("PRIVATE"), []byte("ENCRYPTED PRIVATE")), "encrypted")
		time.Sleep(25 * time.Hour)
		refuse("an ended CA", ca.CertPEM(), key, "make a new CA")
	})
}

func TestWriteNewNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.key")
	if err := mtls.WriteNew(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mtls.WriteNew(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: got %v, want %v", err, fs.ErrExist)
	}
	if got, err := os.ReadFile(path); string(got) != "first" || err != nil {
		t.Errorf("content: got %q, %v, want %q", got, err, "first")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	if err := mtls.WriteNew(filepath.Join(path, "x"), nil, 0o600); err == nil {
		t.Error("write below a file: got no error")
	}
}
