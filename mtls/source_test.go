package mtls_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

func TestReloadTakesUpNewFiles(t *testing.T) {
	ca := newCA(t, "dev")
	d := newDisk(t, worker(t, ca), ca.CertPEM())
	s := d.open()
	if changed, err := s.Reload(); changed || err != nil {
		t.Errorf("reload of the same files: got %v, %v, want false, nil", changed, err)
	}
	next := issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true, NotAfter: time.Now().Add(time.Hour)})
	d.put(d.files.Cert, next.cert)
	d.put(d.files.Key, next.key)
	if changed, err := s.Reload(); !changed || err != nil {
		t.Errorf("reload of a new pair: got %v, %v, want true, nil", changed, err)
	}
	leaf := parse(t, next.cert)
	sum := sha256.Sum256(leaf.Raw)
	if got, want := s.Fingerprint(), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("fingerprint: got %s, want %s", got, want)
	}
	if got := s.Expiry(); !got.Equal(leaf.NotAfter) {
		t.Errorf("expiry: got %v, want %v", got, leaf.NotAfter)
	}
	d.put(d.files.CA, append(ca.CertPEM(), newCA(t, "next").CertPEM()...))
	if changed, err := s.Reload(); !changed || err != nil {
		t.Errorf("reload of a new bundle: got %v, %v, want true, nil", changed, err)
	}
}

func TestExpiryIsTheEarliestOfTheChain(t *testing.T) {
	ca := newCA(t, "dev")
	p := issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true, NotAfter: time.Now().Add(48 * time.Hour)})
	p.cert = append(p.cert, ca.CertPEM()...)
	if got, want := source(t, p, ca.CertPEM()).Expiry(), parse(t, ca.CertPEM()).NotAfter; !got.Equal(want) {
		t.Errorf("expiry: got %v, want %v", got, want)
	}
}

// TestBadFilesKeepTheOldPair spoils the files one way per row: Reload says so and everything in use stays, and Open
// refuses the same files.
func TestBadFilesKeepTheOldPair(t *testing.T) {
	ca := newCA(t, "dev")
	old, other := worker(t, ca), worker(t, ca)
	put := func(file func(mtls.Files) string, data []byte) func(disk) {
		return func(d disk) { d.put(file(d.files), data) }
	}
	cert := func(f mtls.Files) string { return f.Cert }
	key := func(f mtls.Files) string { return f.Key }
	bundle := func(f mtls.Files) string { return f.CA }
	both := func(p pair) func(disk) {
		return func(d disk) { d.put(d.files.Cert, p.cert); d.put(d.files.Key, p.key) }
	}
	validity := func(from, to time.Duration) func(disk) {
		return both(issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}))
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	notDER := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	two := append(ca.CertPEM(), newCA(t, "next").CertPEM()...)
	rows := []struct {
		name  string
		spoil func(disk)
		want  string // in the error
	}{
		{"garbage certificate", put(cert, []byte("garbage")), "no PEM block"},
		{"empty certificate", put(cert, nil), "no PEM block"},
		{"truncated certificate", put(cert, old.cert[:len(old.cert)/2]), "cut short"},
		{"certificate that is no DER", put(cert, notDER), "certificate 1"},
		{"key in the certificate file", put(cert, append(bytes.Clone(old.cert), old.key...)), "no certificate"},
		{"CA certificate as leaf", both(pair{ca.CertPEM(), caKey}), "CA:TRUE"},
		{"certificate of another key", put(cert, other.cert), "does not match"},
		{"key of another certificate", put(key, other.key), "does not match"},
		{"garbage key", put(key, []byte("garbage")), "failed to find any PEM data"},
		{"truncated key", put(key, old.key[:len(old.key)/2]), "failed to find any PEM data"},
		{"encrypted key", put(key, bytes.ReplaceAll(old.key, []byte("PRIVATE"), []byte("ENCRYPTED PRIVATE"))), "openssl pkey"},
		{"key that others may read", func(d disk) { chmod(t, d.files.Key, 0o640) }, "chmod 600"},
		{"key that all may write", func(d disk) { chmod(t, d.files.Key, 0o602) }, "chmod 600"},
		{"no key", func(d disk) { remove(t, d.files.Key) }, "no such file"},
		{"folder for a key", func(d disk) { remove(t, d.files.Key); mkdir(t, d.files.Key) }, "/tls.key\" is a directory: name a file"},
		{"folder for a bundle", func(d disk) { remove(t, d.files.CA); mkdir(t, d.files.CA) }, "/ca.crt\" is a directory: name a file"},
		{"empty bundle", put(bundle, nil), "no PEM block"},
		{"garbage bundle", put(bundle, []byte("garbage")), "no PEM block"},
		{"bundle cut short after its first", put(bundle, two[:len(two)-40]), "1 of 2 PEM blocks"},
		{"bundle damaged before its last", put(bundle, append([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n"), two...)), "PEM blocks are damaged"},
		{"leaf in the bundle", put(bundle, append(ca.CertPEM(), old.cert...)), "certificate 2 is not a CA"},
		{"key in the bundle", put(bundle, append(ca.CertPEM(), caKey...)), "PEM block 2"},
		{"huge bundle", put(bundle, bytes.Repeat([]byte("x"), 4<<20+1)), "more than"},
		{"ended certificate", validity(-2*time.Hour, -time.Hour), "/tls.crt\": certificate 1 of the chain ended at"},
		{"certificate of the future", validity(time.Hour, 2*time.Hour), "/tls.crt\": certificate 1 of the chain is not valid before"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d := newDisk(t, old, ca.CertPEM())
			s := d.open()
			before := s.Fingerprint()
			row.spoil(d)
			changed, err := s.Reload()
			if changed || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("reload: got %v, %v, want an error with %q", changed, err, row.want)
			}
			if strings.Contains(err.Error(), "failed to parse private key: ") || strings.Contains(err.Error(), "BEGIN PRIVATE") {
				t.Errorf("error tells of the key's content: %q", err)
			}
			if got := s.Fingerprint(); got != before {
				t.Errorf("fingerprint after a bad reload: got %s, want %s", got, before)
			}
			serve := source(t, broker(t, ca), ca.CertPEM())
			if o := handshake(t, serve.ServerTLS(mtls.ServerOptions{}), clientTLS(t, s, brokerID)); o.server != nil || o.client != nil {
				t.Errorf("handshake after a bad reload: server %v, client %v", o.server, o.client)
			}
			if _, err := mtls.Open(d.files); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("open: got %v, want an error with %q", err, row.want)
			}
			remove(t, d.files.Key)
			remove(t, d.files.CA)
			both(old)(d)
			chmod(t, d.files.Key, 0o600)
			d.put(d.files.CA, ca.CertPEM())
			if _, err := s.Reload(); err != nil {
				t.Errorf("reload of mended files: %v", err)
			}
		})
	}
}

func chmod(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestOpenNamesEveryMissingFileAtOnce(t *testing.T) {
	_, err := mtls.Open(mtls.Files{CA: filepath.Join(t.TempDir(), "absent.crt")})
	if err == nil {
		t.Fatal("open without files: got no error")
	}
	for _, want := range []string{"certificate file: no path", "key file: no path", "absent.crt"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error: got %q, want one with %q", err, want)
		}
	}
}

// watched runs Watch in the bubble. news returns what it told since the last call.
func watched(t *testing.T, s interface {
	Watch(context.Context, time.Duration, func(error))
}, interval time.Duration) (news func() []error) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var told []error
	var done sync.WaitGroup
	done.Go(func() {
		s.Watch(ctx, interval, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return func() []error {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		defer func() { told = nil }()
		return told
	}
}

func TestWatchHealsAPairCaughtHalfWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "dev")
		d := newDisk(t, worker(t, ca), ca.CertPEM())
		s := d.open()
		before := s.Fingerprint()
		news := watched(t, s, time.Second)
		next := worker(t, ca)
		d.put(d.files.Cert, next.cert) // and not yet its key
		time.Sleep(3500 * time.Millisecond)
		if got := news(); len(got) != 1 || got[0] == nil || !strings.Contains(got[0].Error(), "does not match") {
			t.Errorf("news of a half-written pair in three polls: got %v, want one mismatch", got)
		}
		if got := s.Fingerprint(); got != before {
			t.Errorf("fingerprint: got %s, want the old %s", got, before)
		}
		d.put(d.files.Key, next.key)
		time.Sleep(2 * time.Second)
		if got := news(); len(got) != 1 || got[0] != nil {
			t.Errorf("news of the whole pair: got %v, want one nil", got)
		}
		if got := s.Fingerprint(); got == before {
			t.Error("fingerprint: got the old one, want that of the new pair")
		}
	})
}

func TestWatchTellsWhenTheOldFilesAreBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "dev")
		d := newDisk(t, worker(t, ca), ca.CertPEM())
		news := watched(t, d.open(), time.Second)
		d.put(d.files.CA, nil)
		time.Sleep(2500 * time.Millisecond)
		if got := news(); len(got) != 1 || got[0] == nil {
			t.Errorf("news of an empty bundle: got %v, want one error", got)
		}
		d.put(d.files.CA, ca.CertPEM())
		time.Sleep(2 * time.Second)
		if got := news(); len(got) != 1 || got[0] != nil {
			t.Errorf("news of the old bundle: got %v, want one nil", got)
		}
	})
}

func TestWatchTellsOnceThatTheCertificateEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "dev")
		p := issue(t, ca, mtls.Template{SPIFFEID: workerID, Client: true, NotAfter: time.Now().Add(time.Minute)})
		news := watched(t, newDisk(t, p, ca.CertPEM()).open(), 0) // every 10 s
		time.Sleep(59 * time.Second)
		if got := news(); got != nil {
			t.Errorf("news before the end: got %v, want none", got)
		}
		time.Sleep(time.Minute)
		if got := news(); len(got) != 1 || got[0] == nil || !strings.Contains(got[0].Error(), "ended at 2000-01-01T00:01:00Z") {
			t.Errorf("news after the end: got %v, want one with the time", got)
		}
	})
}

func TestReloadRefusesABundleOfEndedCAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, short := newCA(t, "dev"), newCA(t, "other")
		ended, err := mtls.NewCA("short", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		d := newDisk(t, worker(t, ca), ca.CertPEM())
		s := d.open()
		time.Sleep(time.Minute)
		d.put(d.files.CA, ended.CertPEM())
		if changed, err := s.Reload(); changed || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("CA file %q: no CA certificate", d.files.CA)) {
			t.Errorf("reload: got %v, %v, want an error about the bundle", changed, err)
		}
		d.put(d.files.CA, append(ended.CertPEM(), short.CertPEM()...))
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload with one valid CA: got %v, %v, want true, nil", changed, err)
		}
	})
}

// FuzzOpen gives any bytes as the three files: no panic, and what opens has a leaf.
func FuzzOpen(f *testing.F) {
	ca := newCA(f, "dev")
	p := worker(f, ca)
	f.Add(p.cert, p.key, ca.CertPEM())
	f.Add(p.cert[:100], p.key, ca.CertPEM())
	f.Add(p.cert, p.key[:100], append(ca.CertPEM(), "-----BEGIN "...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte{}, []byte("\x00"))
	f.Fuzz(func(t *testing.T, cert, key, bundle []byte) {
		if s, err := mtls.Open(newDisk(t, pair{cert, key}, bundle).files); err == nil && len(s.Fingerprint()) != 64 {
			t.Errorf("fingerprint: got %q, want 64 digits", s.Fingerprint())
		}
	})
}
