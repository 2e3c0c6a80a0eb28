package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// certificateGrace is how long after the certificate's end a connection is cut, so that its streams can say why they end.
const certificateGrace = time.Second

// transport is TLS that knows who is at the other end: the identity is parsed once per connection.
type transport struct {
	credentials.TransportCredentials
	accept  mtls.ServerOptions
	refused func(addr string, err error)
	conns   *atomic.Uint64 // so far
	admit   *admission
}

func newCredentials(src *mtls.Source, accept mtls.ServerOptions, refused func(string, error), admit *admission) credentials.TransportCredentials {
	return &transport{TransportCredentials: credentials.NewTLS(src.ServerTLS(accept)), accept: accept, refused: refused,
		conns: new(atomic.Uint64), admit: admit}
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
	return &transport{TransportCredentials: t.TransportCredentials.Clone(), accept: t.accept, refused: t.refused, conns: t.conns, admit: t.admit}
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	arrived := t.admit.handshake(raw)
	conn, info, err := t.handshake(arrived)
	if err != nil {
		t.admit.leave(arrived)
		t.refused(raw.RemoteAddr().String(), err)
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
	p, err := mtls.PeerFromState(tlsInfo.State, t.accept.AllowDNS)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	seat, err := t.admit.seat(arrived, p.Identity)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	ends := time.Until(p.NotAfter) + certificateGrace
	if seat.refused != nil {
		ends = min(ends, refusedLife)
	}
	c := &cutConn{Conn: t.admit.metered(conn), leave: seat.leave, timer: time.AfterFunc(ends, func() { _ = raw.Close() })}
	return c, &caller{TLSInfo: tlsInfo, Peer: p, addr: raw.RemoteAddr().String(), cut: raw.Close, number: t.conns.Add(1),
		outlet: new(outlet), refused: seat.refused}, nil
}

// cutConn is a connection that ends with its peer's certificate. It is cut below TLS: a closing alert would wait for a peer who does not
// read.
type cutConn struct {
	net.Conn
	timer *time.Timer
	leave func() // tells that the connection is no more
	once  sync.Once
	err   error
}

// Close implements net.Conn.
func (c *cutConn) Close() error {
	c.once.Do(func() {
		c.timer.Stop()
		c.err = c.Conn.Close()
		c.leave()
	})
	return c.err
}

// caller is the other end of a connection. It implements credentials.AuthInfo through TLSInfo.
type caller struct {
	credentials.TLSInfo
	mtls.Peer
	addr   string
	cut    func() error // closes the connection, whatever its peer does
	number uint64       // of the connection
	outlet *outlet      // what its subscriptions have to send

	refused error // what it is told, whatever it calls; nil = it may call
}

// callerOf returns who calls, if its certificate still holds and its connection was let in.
func callerOf(ctx context.Context) (*caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errNoCertificate
	}
	c, ok := p.AuthInfo.(*caller)
	if !ok {
		return nil, errNoCertificate
	}
	if !time.Now().Before(c.NotAfter) {
		return nil, &tokenbroker.Problem{Err: errCertificateExpired, Detail: "present a new one, in a new connection"}
	}
	if c.refused != nil {
		return nil, c.refused
	}
	return c, nil
}
