package mtls_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// decode gives the raw parts of a pair, for certificates that crypto/x509 does not parse.
func decode(t testing.TB, p pair) (der []byte, key any) {
	t.Helper()
	cert, _ := pem.Decode(p.cert)
	block, _ := pem.Decode(p.key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Bytes, key
}

func digestOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// dial makes one connection over loopback TCP.
func dial(t testing.TB, l net.Listener, server, client *tls.Config) outcome {
	t.Helper()
	b, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return converse(tls.Server(a, server), tls.Client(b, client))
}

// TestTicketFromBeforeCARemovalDoesNotResume gives the client a ticket that is good as far as cryptography goes: it was
// sealed, by a listener that does issue tickets, under the very keys that our listener has.
func TestS04ATicketFromBeforeCARemovalDoesNotResume(t *testing.T) {
	oldCA, newCA := newCA(t, "old"), newCA(t, "new")
	serve := broker(t, newCA)
	d := newDisk(t, serve, append(oldCA.CertPEM(), newCA.CertPEM()...))
	s := d.open()
	c := source(t, worker(t, oldCA), newCA.CertPEM())

	keys := [][32]byte{{1, 2, 3}}
	issuer := s.ServerTLS(mtls.ServerOptions{})
	inner, err := issuer.GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	inner.SessionTicketsDisabled = false
	inner.SetSessionTicketKeys(keys)
	client := clientTLS(t, c, "localhost")
	client.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client.VerifyConnection = nil // an attacker's client does not mind
	if o := handshake(t, inner, client); o.server != nil || o.client != nil {
		t.Fatalf("first handshake: server %v, client %v", o.server, o.client)
	}
	if _, ok := client.ClientSessionCache.Get("localhost"); !ok {
		t.Fatal("the client got no ticket to try with")
	}

	ours := s.ServerTLS(mtls.ServerOptions{})
	ours.SetSessionTicketKeys(keys)
	for name, server := range map[string]*tls.Config{"configuration": ours, "clone": ours.Clone()} {
		o := handshake(t, server, client)
		if o.server != nil || o.client != nil || o.state.DidResume {
			t.Errorf("%s, CA still trusted: resumed %v, server %v, client %v, want a full handshake", name, o.state.DidResume, o.server, o.client)
		}
	}
	d.put(d.files.CA, newCA.CertPEM())
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: got %v, %v", changed, err)
	}
	for name, server := range map[string]*tls.Config{"configuration": ours, "clone": ours.Clone()} {
		o := handshake(t, server, client)
		if o.server == nil || !strings.Contains(o.server.Error(), "unknown authority") || o.client == nil {
			t.Errorf("%s, CA removed: server %v, client %v, want both refused", name, o.server, o.client)
		}
	}
}

// load runs handshakes one after the other on some goroutines until it is stopped.
type load struct {
	t      *testing.T
	done   atomic.Int64
	failed atomic.Int64
	tick   chan struct{} // a send per handshake, if somebody waits
	stop   func()
}

func startLoad(t *testing.T, workers int, server, client *tls.Config) *load {
	l := &load{t: t, tick: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range workers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer listener.Close()
			for ctx.Err() == nil {
				l.one(ctx, listener, server, client)
			}
		})
	}
	l.stop = func() { cancel(); all.Wait() }
	return l
}

func (l *load) one(ctx context.Context, listener net.Listener, server, client *tls.Config) {
	b, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		l.failed.Add(1)
		l.t.Errorf("dial: %v", err)
		return
	}
	a, err := listener.Accept()
	if err != nil {
		l.failed.Add(1)
		l.t.Errorf("accept: %v", err)
		return
	}
	if o := converse(tls.Server(a, server), tls.Client(b, client)); o.server != nil || o.client != nil {
		l.failed.Add(1)
		l.t.Errorf("handshake: server %v, client %v", o.server, o.client)
	}
	l.done.Add(1)
	select {
	case l.tick <- struct{}{}:
	case <-ctx.Done():
	default:
	}
}

// settle waits until all handshakes that are under way now, and as many again, are over.
func (l *load) settle(workers int64) {
	for until := l.done.Load() + 2*workers; l.done.Load() < until; {
		<-l.tick
	}
}

func TestCARotationDropsNobody(t *testing.T) {
	const workers = 4
	oldCA, newCA := newCA(t, "old"), newCA(t, "new")
	oldWorker := worker(t, oldCA)
	both := append(oldCA.CertPEM(), newCA.CertPEM()...)
	sd, cd := newDisk(t, broker(t, oldCA), oldCA.CertPEM()), newDisk(t, oldWorker, oldCA.CertPEM())
	s, c := sd.open(), cd.open()
	server, client := s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, brokerID)
	l := startLoad(t, workers, server, client)
	defer l.stop()
	reload := func(src *mtls.Source) {
		t.Helper()
		if changed, err := src.Reload(); !changed || err != nil {
			t.Fatalf("reload: got %v, %v, want true, nil", changed, err)
		}
		l.settle(workers)
	}
	ends := []struct {
		disk
		*mtls.Source
		next pair
	}{{sd, s, broker(t, newCA)}, {cd, c, worker(t, newCA)}}
	l.settle(workers)
	for _, end := range ends { // 1. trust the new CA as well
		end.put(end.files.CA, both)
		reload(end.Source)
	}
	for _, end := range ends { // 2. certificates of the new CA
		end.put(end.files.Cert, end.next.cert)
		end.put(end.files.Key, end.next.key)
		reload(end.Source)
	}
	for _, end := range ends { // 3. forget the old CA
		end.put(end.files.CA, newCA.CertPEM())
		reload(end.Source)
	}
	l.stop()
	if done, failed := l.done.Load(), l.failed.Load(); failed != 0 || done < 14*workers {
		t.Errorf("handshakes: %d of %d failed, want none of at least %d", failed, done, 14*workers)
	}
	late := source(t, oldWorker, both)
	if o := handshake(t, server, clientTLS(t, late, brokerID)); o.server == nil || !strings.Contains(o.server.Error(), "unknown authority") {
		t.Errorf("a client of the removed CA: got %v, want it refused", o.server)
	}
}

// TestHandshakesUseOnePairAtATime reloads as fast as it can under load: a certificate with the key of another would fail.
func TestHandshakesUseOnePairAtATime(t *testing.T) {
	const workers = 2
	ca := newCA(t, "dev")
	d := newDisk(t, broker(t, ca), ca.CertPEM())
	s := d.open()
	l := startLoad(t, workers, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, source(t, worker(t, ca), ca.CertPEM()), brokerID))
	defer l.stop()
	swapped := 0
	for until := l.done.Load() + 60; l.done.Load() < until; {
		next := broker(t, ca)
		d.put(d.files.Cert, next.cert)
		if changed, err := s.Reload(); changed || err == nil {
			t.Errorf("reload of a new certificate with the old key: got %v, %v, want an error", changed, err)
		}
		d.put(d.files.Key, next.key)
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload of the pair: got %v, %v, want true, nil", changed, err)
		}
		swapped++
	}
	l.stop()
	if l.failed.Load() != 0 || swapped < 2 {
		t.Errorf("%d handshakes failed over %d swaps, want none over several", l.failed.Load(), swapped)
	}
}
