package brokertest

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// Listener is a listener in memory. Unlike bufconn's its connections start no timer for a deadline that has passed already, which TLS sets
// as it closes: two such timers at a time crash the race detector in a testing/synctest bubble (compare go.dev/issue/78156).
type Listener struct{ mem *bufconn.Listener }

// Listen makes a Listener whose connections hold up to size bytes in each direction.
func Listen(size int) *Listener { return &Listener{bufconn.Listen(size)} }

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) { return timely(l.mem.Accept()) }

// Close implements net.Listener.
func (l *Listener) Close() error { return l.mem.Close() }

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.mem.Addr() }

// DialContext connects to whoever accepts.
func (l *Listener) DialContext(ctx context.Context) (net.Conn, error) {
	return timely(l.mem.DialContext(ctx))
}

func timely(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

// conn takes no deadline that has passed: who sets one closes the connection next.
type conn struct{ net.Conn }

func passed(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

// SetDeadline implements net.Conn.
func (c conn) SetDeadline(t time.Time) error {
	if passed(t) {
		return nil
	}
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c conn) SetReadDeadline(t time.Time) error {
	if passed(t) {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c conn) SetWriteDeadline(t time.Time) error {
	if passed(t) {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}
