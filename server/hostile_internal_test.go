package server

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// A connection loses its place (evictLocked closes it) just after its last handshake byte was read, while the broker still works on that
// byte. The handshake needs nothing more from the network, so it ends well and takes a seat; gRPC then finds the socket closed before it has
// a transport, and closes the raw connection, not ours.
func TestAttackAConnectionThatLosesItsPlaceAtTheLastMomentLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	ca, err := mtls.NewCA("ca", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	files := func(name string, tmpl mtls.Template) mtls.Files {
		c, k, err := ca.Issue(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		return mtls.Files{Cert: put(name+".pem", c), Key: put(name+".key", k), CA: put("ca.pem", ca.CertPEM())}
	}
	srv, err := mtls.Open(files("s", mtls.Template{SPIFFEID: "spiffe://example.org/broker", Server: true}))
	if err != nil {
		t.Fatal(err)
	}
	cli, err := mtls.Open(files("c", mtls.Template{SPIFFEID: "spiffe://example.org/job", Client: true}))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := cli.ClientTLS("spiffe://example.org/broker")
	if err != nil {
		t.Fatal(err)
	}
	cfg.NextProtos = []string{"h2"}

	adm := newAdmission(Limits{Handshakes: 1, Conns: 100, ConnsPerIdentity: 100}.filled(), Edge{}, &shedder{})
	all := newPeers(slog.New(slog.DiscardHandler), nil)
	// Accept is asked last of all in the handshake: here it is where the eviction of another connection's arrival falls.
	evict := func() {}
	gate := srv.Gate(mtls.ServerOptions{Accept: func(mtls.Peer) error { evict(); return nil }})
	g := grpc.NewServer(grpc.Creds(newCredentials(gate, false, func(string, error) {}, all, adm)), grpc.ConnectionTimeout(time.Minute))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l, admission: adm}
	go func() { _ = g.Serve(d) }()
	defer g.Stop()
	evict = func() {
		adm.mu.Lock()
		defer adm.mu.Unlock()
		adm.evictLocked(time.Now())
	}
	for range 2 {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(600 * time.Millisecond) // slow to begin: it may lose its place by now
		c := tls.Client(raw, cfg)
		_ = c.Handshake()
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	for end := time.Now().Add(2 * time.Minute); kept(adm, all) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no connection is there any more, and %d entries of them are left", kept(adm, all))
		}
	}
}

// kept counts what is kept of connections.
func kept(a *admission, p *peers) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(a.open) + len(a.shaking) + len(a.seats) + len(p.open)
}

// The timer goes by the monotonic clock, rules by the wall clock. If that is set back meanwhile, the timer rings before the rule ends.
func TestAttackAnEndThatIsLookedAtTooEarlyIsLookedAtAgain(t *testing.T) {
	b := &basis{lapsed: make(chan struct{}, 1)}
	until := time.Now().Add(300 * time.Millisecond)
	lasts := func() {
		b.basisMu.Lock()
		defer b.basisMu.Unlock()
		b.lastsLocked(until)
	}
	lasts()
	b.lapse.Reset(0)
	<-b.lapsed
	lasts() // judged anew: the rule still allows it
	select {
	case <-b.lapsed:
	case <-time.After(2 * time.Minute):
		t.Error("the rule has ended long ago, and nobody looks any more")
	}
}
