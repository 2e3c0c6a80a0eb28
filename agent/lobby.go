package agent

import (
	"net"
	"sync"
	"time"
)

// How many connections there may be, of one uid and in all: no job takes the places of the others.
const (
	maxConnsPerUID  = 1024
	maxConns        = 4096
	maxConnsUnruled = 16  // of a uid that no rule knows, which gets refusals alone
	maxUnruled      = 256 // of all such uids: a user may have thousands

	maxStreams        = 100  // of gRPC, of one connection
	maxStreamsPerUID  = 4096 // each may hold as much as an unfinished request
	maxStreamsUnruled = 16   // of all uids that no rule knows
)

// conn is a connection of a local job, with who is at its other end.
type conn struct {
	net.Conn
	peer  Peer
	ruled bool   // some rule knows it
	begun []byte // what was read of it while it was sorted; of the goroutine that reads
	once  sync.Once
	left  func()
}

// Read reads what was looked at already, and then on.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(b, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// Close gives its place away.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.left)
	return err
}

// lobby knows all connections.
type lobby struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	perUID map[uint32]int
	closed bool

	unruled        int            // connections of uids that no rule knows
	streams        map[uint32]int // of gRPC, by uid
	streamsUnruled int
}

func newLobby() *lobby {
	return &lobby{open: map[*conn]struct{}{}, perUID: map[uint32]int{}, streams: map[uint32]int{}}
}

// enter gives a connection a place; nil if there is none.
func (l *lobby) enter(c net.Conn, p Peer, ruled bool) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := maxConnsPerUID
	if !ruled {
		most = maxConnsUnruled
	}
	if l.closed || len(l.open)-l.unruled >= maxConns || l.perUID[p.UID] >= most || !ruled && l.unruled >= maxUnruled {
		return nil
	}
	in := &conn{Conn: c, peer: p, ruled: ruled}
	if !ruled {
		l.unruled++
	}
	in.left = func() { l.leave(in) }
	l.open[in] = struct{}{}
	l.perUID[p.UID]++
	return in
}

func (l *lobby) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	if !c.ruled {
		l.unruled--
	}
	if l.perUID[c.peer.UID]--; l.perUID[c.peer.UID] == 0 {
		delete(l.perUID, c.peer.UID)
	}
}

// begin gives a stream of a connection a place; nil if there is none. end gives it back.
func (l *lobby) begin(c *conn) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[c.peer.UID] >= maxStreamsPerUID || !c.ruled && l.streamsUnruled >= maxStreamsUnruled {
		return nil
	}
	l.countLocked(c, 1)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.countLocked(c, -1)
	}
}

func (l *lobby) countLocked(c *conn, n int) {
	if l.streams[c.peer.UID] += n; l.streams[c.peer.UID] == 0 {
		delete(l.streams, c.peer.UID)
	}
	if !c.ruled {
		l.streamsUnruled += n
	}
}

// close ends all connections and lets none in any more.
func (l *lobby) close() {
	l.mu.Lock()
	l.closed = true
	all := make([]*conn, 0, len(l.open))
	for c := range l.open {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// inlet is a listener that others bring connections to.
type inlet struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newInlet(addr net.Addr) *inlet {
	return &inlet{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put brings a connection. When nobody takes them any more, it is closed.
func (l *inlet) put(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *inlet) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *inlet) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *inlet) Addr() net.Addr { return l.addr }

// pause waits a little after the system had no room for another connection.
func pause(done <-chan struct{}) {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
