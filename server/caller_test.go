package server_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/server"
)

// shortened is the certificate of a CA as it is, and another for the same key that ends in an hour.
func shortened(t *testing.T, ca *mtls.CA) (old *x509.Certificate, next []byte) {
	t.Helper()
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(ca.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := *pair.Leaf
	tmpl.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, pair.Leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestALateLookDoesNotPutOffTheCut has two looks at a peer at once, after a reload that brings its end nearer: one lets it go on, but only after
// the other has refused it. The connection is cut in time all the same, and the late look says so.
func TestALateLookDoesNotPutOffTheCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := mtls.NewCA("dev", 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		old, next := shortened(t, ca)
		cert, key, err := ca.Issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, Server: true, NotAfter: time.Now().Add(10 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		files := mtls.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
		if err := errors.Join(os.WriteFile(files.Cert, cert, 0o600), os.WriteFile(files.Key, key, 0o600), os.WriteFile(files.CA, ca.CertPEM(), 0o600)); err != nil {
			t.Fatal(err)
		}
		source, err := mtls.Open(files)
		if err != nil {
			t.Fatal(err)
		}
		leaf := parsed(t, cert)
		var looks, cuts atomic.Int64
		goOn := make(chan struct{})
		gate := source.Gate(mtls.ServerOptions{Accept: func(mtls.Peer) error {
			switch looks.Add(1) {
			case 2:
				<-goOn
			case 3:
				return errors.New("refused")
			}
			return nil
		}})
		c, err := server.NewCaller(slog.New(slog.DiscardHandler), gate,
			tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, old}}},
			func() error { cuts.Add(1); return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer c.Gone()
		put(t, files.CA, next)
		if changed, err := source.Reload(); !changed || err != nil {
			t.Fatalf("reload: got %v, %v", changed, err)
		}
		late := make(chan error, 1)
		go func() { late <- c.Check() }()
		synctest.Wait() // it waits in Accept
		why := c.Check()
		close(goOn)
		if got := <-late; why == nil || !errors.Is(got, why) {
			t.Errorf("the late look: got %v, want %v", got, why)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if cuts.Load() != 1 {
			t.Errorf("the connection was cut %d times within 2 s, want once", cuts.Load())
		}
	})
}

// shaken is what a handshake with a CA's certificate for a life leaves, and the gate that lets it in.
func shaken(t *testing.T, ca *mtls.CA, life time.Duration) (*mtls.Gate, tls.ConnectionState) {
	t.Helper()
	dir := t.TempDir()
	files := mtls.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
	cert, key, err := ca.Issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, Server: true, NotAfter: time.Now().Add(life)})
	if err := errors.Join(err, os.WriteFile(files.Cert, cert, 0o600), os.WriteFile(files.Key, key, 0o600), os.WriteFile(files.CA, ca.CertPEM(), 0o600)); err != nil {
		t.Fatal(err)
	}
	source, err := mtls.Open(files)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parsed(t, cert)
	return source.Gate(mtls.ServerOptions{}), tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf},
		VerifiedChains: [][]*x509.Certificate{{leaf, parsed(t, ca.CertPEM())}}}
}

// Whoever looks at the leaf certificate finds it good for hours, so the reason has to name what is not.
func TestTheEndOfACAIsNotToldAsThatOfTheLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			life time.Duration
			want string
		}{{10 * time.Hour, "the certificate of a CA above it ended at 2000-01-01T01:"}, {time.Minute, "present a new one"}} {
			ca, err := mtls.NewCA("dev", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			gate, state := shaken(t, ca, row.life)
			c, err := server.NewCaller(slog.New(slog.DiscardHandler), gate, state, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(min(row.life, 2*time.Hour))
			if got := c.Check(); got == nil || !strings.Contains(got.Error(), row.want) {
				t.Errorf("a leaf for %v: got %v, want %q", row.life, got, row.want)
			}
			c.Gone()
		}
	})
}

// A timer stands still while the machine sleeps, and does not see that the wall clock is set. A certificate ends all the same.
func TestACertificateThatEndedWhileTheMachineSleptIsSeenWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := mtls.NewCA("dev", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		gate, state := shaken(t, ca, time.Minute)
		cut := make(chan struct{}, 1)
		c, err := server.NewCaller(slog.New(slog.DiscardHandler), gate, state, func() error { cut <- struct{}{}; return nil })
		if err != nil {
			t.Fatal(err)
		}
		c.Oversleep()
		time.Sleep(time.Minute)
		if len(cut) != 0 {
			t.Error("it was cut at the end of its certificate, without time to say why")
		}
		time.Sleep(2 * time.Second)
		if len(cut) != 1 {
			t.Error("it was not cut within 2 s")
		}
		c.Gone()
		time.Sleep(time.Minute) // nobody is there, and nobody looks any more
	})
}
