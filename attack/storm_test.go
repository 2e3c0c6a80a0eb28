package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// TestP11AReconnectStorm kills the broker under many streams, whose clients come back as soon as they can, a tenth of them without any
// pause between tries. All are back, and the provider has not heard of it.
func TestP11AReconnectStorm(t *testing.T) {
	t.Parallel()
	conns, perConn := count(40, 2_000), 5
	w := newWorld(t, plan{limits: "streams_per_identity: 100000\ncalls_per_second: 100000"})
	c := w.crowd("worker/crowd", conns-conns/10, perConn, "example/one")
	atOnce := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}, MinConnectTimeout: patience}
	rude := w.crowd("worker/rude", conns/10, perConn, "example/one", grpc.WithConnectParams(atOnce))
	for round := range count(2, 20) {
		before := w.exchanges()
		last := w.newest("example/one")
		w.proc.kill()
		c.forget()
		rude.forget()
		began := time.Now()
		w.start()
		c.reach(last)
		rude.reach(last)
		back := time.Since(began)
		t.Logf("round %d: %d streams were back after %v; %d MiB", round, conns*perConn, back.Round(time.Millisecond),
			procStatus(t, w.proc.cmd.Process.Pid, "VmHWM")>>20)
		if got := w.exchanges() - before; got != 0 {
			t.Errorf("round %d: got %d token requests, want none caused by those who come back", round, got)
		}
		if whole() && back > time.Minute {
			t.Errorf("round %d: they were back after %v", round, back)
		}
	}
}

// forget has every stream begin anew to tell what it sees.
func (c *crowd) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.seen)
}

// TestP13CertificatesThatEnd holds streams and calls with certificates that end in a moment. With them everything ends, in time, and the
// client's other identity goes on.
func TestP13CertificatesThatEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	end, conn, streams := w.endSoon()
	defer func() {
		if _, err := get(within(t, time.Second), conn, "example/one"); err == nil {
			t.Error("got a token with a certificate that has ended")
		}
	}()
	var worst time.Duration
	for i, s := range streams {
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		worst = max(worst, time.Since(end))
		if early := time.Until(end); early > time.Second {
			t.Errorf("stream %d ended %v before its certificate: %v", i, early, err)
		}
		if c := status.Code(err); c != codes.Unauthenticated && c != codes.Unavailable {
			t.Errorf("stream %d: got %v, want UNAUTHENTICATED, or the connection gone", i, err)
		}
	}
	t.Logf("the last of %d streams ended %v after its certificate", len(streams), worst.Round(time.Millisecond))
	if worst > each {
		t.Errorf("a stream ended %v after its certificate", worst)
	}
	v.well(t)
}

// endSoon opens streams with certificates that all end at one time, soon. A machine that has not opened them by then gets more of it.
func (w *world) endSoon() (end time.Time, first *grpc.ClientConn, streams []stream) {
	w.t.Helper()
	for life := time.Duration(count(7, 60)) * time.Second; ; life *= 2 {
		end, first, streams = time.Now().Add(life).Truncate(time.Second), nil, nil
		ctx := within(w.t, 2*life+each) // who comes too late waits for a connection that never is
		for i := range count(10, 1_000) {
			config := w.with(w.ca, mtls.Template{SPIFFEID: fmt.Sprintf("%sworker/brief-%d", domain, i), Client: true, NotAfter: end})
			config.ClientSessionCache = tls.NewLRUClientSessionCache(8) // it would resume if it could
			conn := w.conn(config)
			s, err := subscribe(ctx, conn, "example/one")
			if err == nil {
				_, err = snapshot(s)
			}
			if err != nil {
				break
			}
			streams = append(streams, s)
			if first == nil {
				first = conn
			}
		}
		if len(streams) == count(10, 1_000) && time.Until(end) >= time.Second {
			return end, first, streams
		}
		if life > patience {
			w.t.Fatalf("got %d streams within %v", len(streams), life)
		}
	}
}

// TestP14RotationOfTheCA adds a CA, reissues every certificate, and takes the old CA away, while calls go on. No call fails, and whoever
// still comes with the old one is refused.
func TestP14RotationOfTheCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	for round := range count(2, 100) {
		old := w.ca
		ca, err := mtls.NewCA(fmt.Sprint("CA ", round), time.Hour)
		must(t, err)
		both := string(old.CertPEM()) + string(ca.CertPEM())
		w.roots = x509.NewCertPool()
		w.roots.AppendCertsFromPEM([]byte(both))
		w.write("ca.pem", both)
		w.ca = ca
		config := w.as("worker/looker")
		eventually(t, "certificates of the new CA are taken", func() bool { return w.shake(config) == nil })
		cert, key, err := ca.Issue(mtls.Template{SPIFFEID: domain + "broker", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
			Server: true, NotAfter: time.Now().Add(time.Hour)})
		must(t, err)
		w.write("server.key", string(key))
		w.write("server.pem", string(cert))
		only := config.Clone()
		only.RootCAs = x509.NewCertPool()
		only.RootCAs.AppendCertsFromPEM(ca.CertPEM())
		eventually(t, "the broker shows a certificate of the new CA", func() bool { return w.shake(only) == nil })
		w.operator = w.conn(w.as("operator/admin"))
		fresh := w.victim() // makes its connection before the one of the old CA is given up
		v.well(t)
		v = fresh
		late := w.with(old, mtls.Template{SPIFFEID: domain + "worker/late", Client: true})
		must(t, w.shake(late))
		w.write("ca.pem", string(ca.CertPEM()))
		eventually(t, "certificates of the old CA are refused", func() bool { return w.shake(late) != nil })
		if _, err := get(within(t, time.Second), w.conn(late), "example/one"); err == nil {
			t.Error("got a token with a certificate of the CA that was taken away")
		}
	}
	v.well(t)
}

// shake shakes hands and waits for a byte of the broker, as a client learns only then that its certificate was refused.
func (w *world) shake(config *tls.Config) error {
	c, err := (&tls.Dialer{Config: config}).DialContext(within(w.t, each), "tcp", w.grpc())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}
