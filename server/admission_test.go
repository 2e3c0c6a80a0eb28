package server_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// knock opens TCP connections from a loopback address and says nothing, or a byte now and then, until the test ends.
func knock(t *testing.T, b *brokertest.Broker, from string, n int, drip bool) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	var open []net.Conn
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range n {
		c, err := d.DialContext(t.Context(), "tcp", b.Daemon.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if drip {
			wg.Go(func() { trickle(c, done) })
		}
	}
	t.Cleanup(func() {
		close(done)
		for _, c := range open {
			_ = c.Close()
		}
		wg.Wait()
	})
}

// trickle sends the beginning of a TLS record, byte by byte.
func trickle(c net.Conn, done chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, octet := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3} {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if _, err := c.Write([]byte{octet}); err != nil {
			return
		}
	}
}

func TestS11HalfOpenHandshakesKeepNobodyOut(t *testing.T) {
	for _, tt := range []struct {
		name, from string
		drip       bool
	}{{"of another address", "127.0.0.2", false}, {"of the same address", "127.0.0.1", false}, {"that send a byte now and then", "127.0.0.2", true}} {
		t.Run(tt.name, func(t *testing.T) {
			b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{Handshakes: 64, HandshakeTimeout: time.Hour}})
			b.AddClientCredentials("example/api", "files.read")
			knock(t, b, tt.from, 500, tt.drip)
			for i := range 5 {
				conn := dialTLS(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker(fmt.Sprint(i)), Client: true}))
				if _, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}, grpc.WaitForReady(true)); err != nil {
					t.Errorf("worker %d: got %v, want a token", i, err)
				}
			}
			if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="handshakes"`); n < 500-64 {
				t.Errorf("%v of 500 half-open connections lost their places, want at least the %d that there were none for", n, 500-64)
			}
			if n := metric(t, b, "tokenbroker_connections "); n > 64+10 {
				t.Errorf("%v connections are open, want no more than there are places", n)
			}
		})
	}
}

func TestS11AHandshakeThatDoesNotEndIsDropped(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Limits: server.Limits{HandshakeTimeout: 100 * time.Millisecond}})
	c, err := net.Dial("tcp", b.Daemon.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent connection was not dropped")
	}
}

func TestConnectionsOfAnIdentityAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{ConnsPerIdentity: 2}})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		ask := func(c *grpc.ClientConn) error {
			_, err := tokensOf(c).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			return err
		}
		first, second, third := b.Worker(), b.Worker(), b.Worker()
		for i, c := range []*grpc.ClientConn{first, second, b.Conn(worker("other"))} {
			if err := ask(c); err != nil {
				t.Errorf("connection %d: got %v, want a token", i, err)
			}
		}
		f := wantFault(t, ask(third), codes.ResourceExhausted, "TOO_MANY")
		if f.Retry == 0 || f.Text == "" {
			t.Errorf("got %+v, want when to try again and why not now", f)
		}
		wantFault(t, watch(t, third, sel("example/api")).end(), codes.ResourceExhausted, "TOO_MANY")
		if err := ask(first); err != nil {
			t.Errorf("got %v on a connection within the limit, want a token", err)
		}
		_ = second.Close()
		time.Sleep(f.Retry + 100*time.Millisecond)
		if err := ask(third); err != nil {
			t.Errorf("got %v once there was room, want a token", err)
		}
	})
}

// tryIn connects and waits until the broker knows who it is, and has either let it in, if only to be told why not, or closed the connection.
// Only then is it certain by which bound it was refused.
func tryIn(t *testing.T, b *brokertest.Broker, who *tls.Config) {
	t.Helper()
	c, err := tls.Dial("tcp", b.Daemon.Addr().String(), who)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("got no answer and no end of the connection")
	}
}

func TestAnIdentityThatTriesAgainAndAgainTakesNoPlacesFromOthers(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{ConnsPerIdentity: 1, Conns: 90, HandshakeTimeout: patience}})
	b.AddClientCredentials("example/api", "files.read")
	greedy := clientTLS(t, b, mtls.Template{SPIFFEID: worker("greedy"), Client: true})
	ask := func(who *tls.Config) {
		t.Helper()
		_, err := tokensOf(dialTLS(t, b.Daemon.Addr(), who)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}, grpc.WaitForReady(true))
		if err != nil {
			t.Errorf("got %v, want a token", err)
		}
	}
	ask(greedy) // the one connection that it may have
	for range 199 {
		tryIn(t, b, greedy)
	}
	ask(clientTLS(t, b, mtls.Template{SPIFFEID: worker("modest"), Client: true}))
	if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="identity"`); n != 199 {
		t.Errorf("got %v refused for their identity, want 199", n)
	}
	if n := metric(t, b, "tokenbroker_connections_refused_total"); n != 199 {
		t.Errorf("got %v refused in all, want 199: no other bound was met", n)
	}
}

func TestConnectionsOfEverybodyAreBounded(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{Conns: 3, Handshakes: 2}})
	b.AddClientCredentials("example/api", "files.read")
	ask := func(name string) (*grpc.ClientConn, error) {
		conn := dialTLS(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker(name), Client: true}))
		_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		return conn, err
	}
	first, err := ask("1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask("2"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("3"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want no connection", err)
	}
	if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="connections"`); n == 0 {
		t.Error("the refused connection was not counted")
	}
	_ = first.Close()
	eventually(t, "a connection that ended makes room", func() bool {
		_, err := ask("3")
		return err == nil
	})
}
