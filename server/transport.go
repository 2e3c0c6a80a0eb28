package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// transport is TLS that knows who is at the other end: the identity is parsed once per connection.
type transport struct {
	credentials.TransportCredentials
	gate    *mtls.Gate
	admin   bool
	refused func(addr string, err error)
	peers   *peers
	admit   *admission
}

func newCredentials(gate *mtls.Gate, admin bool, refused func(string, error), all *peers, admit *admission) credentials.TransportCredentials {
	return &transport{TransportCredentials: credentials.NewTLS(gate.TLS()), gate: gate, admin: admin, refused: refused, peers: all, admit: admit}
}

// logRefused says why a handshake was refused: some of them, as anybody can cause as many as it likes.
func logRefused(log *slog.Logger) func(string, error) {
	few := &rate.Sometimes{First: 10, Interval: time.Second}
	return func(addr string, err error) {
		few.Do(func() { log.Warn("TLS handshake refused", "peer", addr, "error", err) })
	}
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials {
	clone := *t
	clone.TransportCredentials = t.TransportCredentials.Clone()
	return &clone
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	arrived := t.admit.handshake(raw)
	conn, info, err := t.handshake(arrived)
	if err != nil {
		t.admit.leave(arrived)
		if !arrived.probed(err) {
			t.refused(raw.RemoteAddr().String(), err)
		}
		return nil, nil, err
	}
	return conn, info, nil
}

func (t *transport) handshake(arrived *arrival) (net.Conn, credentials.AuthInfo, error) {
	raw := arrived.Conn
	conn, info, err := t.TransportCredentials.ServerHandshake(arrived)
	if err != nil {
		return nil, nil, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		tlsInfo = credentials.TLSInfo{State: tls.ConnectionState{}}
	}
	c := &caller{TLSInfo: tlsInfo, gate: t.gate, admin: t.admin, addr: raw.RemoteAddr().String(), cut: raw.Close, outlet: new(outlet)}
	if err := c.begin(t.peers); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	seat, err := t.admit.seat(arrived, c.Identity)
	if err != nil {
		c.gone()
		_ = conn.Close()
		return nil, nil, err
	}
	return newCutConn(t.admit.metered(conn, raw), c, seat), c, nil
}

// cutConn is a connection that ends with its peer's certificate. It is cut below TLS: a closing alert would wait for a peer who does not
// read.
type cutConn struct {
	net.Conn
	caller *caller
	leave  func()      // tells that the connection is no more
	short  *time.Timer // of a connection that was not let in; nil = it was
	once   sync.Once
	err    error
	paid   []audit.Receipt // room for those that are owed
}

// newCutConn makes a connection of a caller whose seat is known. Without one the caller is told why, for a while.
func newCutConn(conn net.Conn, c *caller, s seat) *cutConn {
	cut := &cutConn{Conn: conn, caller: c, leave: s.leave}
	if s.refused != nil {
		c.refused, cut.short = s.refused, time.AfterFunc(refusedLife, func() { _ = c.cut() })
	}
	return cut
}

// Write implements net.Conn. It sends nothing before each answer in it is recorded. An answer whose record can't be written can't be taken out
// of what gRPC made of it any more: the connection is cut, and while the log is not well the next ones become errors of their own.
func (c *cutConn) Write(b []byte) (int, error) {
	var err error
	if c.paid, err = c.caller.debt.pay(c.paid); err != nil {
		_ = c.caller.cut()
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *cutConn) Close() error {
	c.once.Do(func() {
		c.caller.gone()
		if c.short != nil {
			c.short.Stop()
		}
		c.err = c.Conn.Close()
		c.leave()
	})
	return c.err
}

// callerOf returns who calls, if it still may and its connection was let in.
func callerOf(ctx context.Context) (*caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errNoCertificate
	}
	c, ok := p.AuthInfo.(*caller)
	if !ok {
		return nil, errNoCertificate
	}
	if c.refused != nil {
		return nil, c.refused
	}
	return c, c.check()
}
