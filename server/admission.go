package server

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// How connections that have not said who they are share the places for them.
const (
	silentAfter = 500 * time.Millisecond // whoever let the broker wait this long, in all, may lose its place
	crowdAfter  = 100 * time.Millisecond // the same, for those of an address that has more than half of the places
	waitForRoom = time.Second            // that a new connection waits for a place
	lookForRoom = 20 * time.Millisecond
	evictShare  = 16 // one in so many is evicted at a time: looking for them takes a while
)

// adminConns is how many connections the listener of operators may have, besides those of workers, who can't keep operators out so.
const adminConns = 256

// How a connection over its identity's limit, or one that comes while memory is short, learns why: its calls are answered for a while.
// Without that its client would try again at once, and again.
const (
	refusedLife = 5 * time.Second
	refusedMost = 64 // such connections at once, per identity; others are closed
)

var errNoPlace = errors.New("too many connections")

// admission decides which connections may come in, and counts them.
//
// Before a connection has said who it is, all that is known of it is where it comes from and how long it has let the broker wait. Whoever
// opens many and stays silent takes the places of its own address first, and never that of one whose handshake goes on.
type admission struct {
	limits  Limits
	edge    Edge
	shedder *shedder
	left    chan struct{} // holds a value when a handshake has ended

	mu      sync.Mutex
	open    map[net.Conn]*arrival
	admins  int // of those that are open
	shaking map[*arrival]struct{}
	sources map[netip.Prefix]int // where those that shake hands come from → how many
	seats   map[string]*seats    // identity → its connections
}

// seats are the connections of an identity.
type seats struct{ taken, refused int }

func newAdmission(l Limits, e Edge, s *shedder) *admission {
	return &admission{limits: l, edge: e, shedder: s, left: make(chan struct{}, 1), open: map[net.Conn]*arrival{},
		shaking: map[*arrival]struct{}{}, sources: map[netip.Prefix]int{}, seats: map[string]*seats{}}
}

// door is a listener whose connections are admitted.
type door struct {
	net.Listener
	admission *admission
	admin     bool // operators come in while memory is short: they may be there to mend it
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		reason := d.admission.enter(conn, d.admin)
		if reason == "" {
			return conn, nil
		}
		d.admission.edge.refused(reason) // before its peer can tell
		_ = conn.Close()
	}
}

// arrival is a connection from the moment that it is accepted. As a net.Conn it is the connection, and counts how long its peer lets the
// broker wait in the handshake.
type arrival struct {
	net.Conn
	source netip.Prefix
	admin  bool
	shaken atomic.Bool

	mu     sync.Mutex
	waited time.Duration
	since  time.Time // of a read that has not ended; zero if there is none
	spoke  bool      // it sent something
}

// enter finds a place for a connection that was just accepted, or says why there is none.
func (a *admission) enter(conn net.Conn, admin bool) RefusedReason {
	if a.shedder.level() >= shedMisses && !admin {
		return RefusedMemory
	}
	arrived := &arrival{Conn: conn, source: sourceOf(conn.RemoteAddr()), admin: admin}
	timer := time.NewTimer(lookForRoom)
	defer timer.Stop()
	for end := time.Now().Add(waitForRoom); ; {
		reason := a.place(arrived)
		if reason != RefusedHandshakes || time.Now().After(end) {
			return reason
		}
		select {
		case <-a.left:
		case <-timer.C:
			timer.Reset(lookForRoom)
		}
	}
}

// place gives a connection a place if there is one, or if somebody else can lose it.
func (a *admission) place(arrived *arrival) RefusedReason {
	a.mu.Lock()
	defer a.mu.Unlock()
	if arrived.admin && a.admins >= adminConns || !arrived.admin && len(a.open)-a.admins >= a.limits.Conns {
		return RefusedConnections
	}
	if len(a.shaking) >= a.limits.Handshakes && !a.evictLocked(time.Now()) {
		return RefusedHandshakes
	}
	a.open[arrived.Conn] = arrived
	if arrived.admin {
		a.admins++
	}
	a.shaking[arrived] = struct{}{}
	a.sources[arrived.source]++
	a.edge.open(len(a.open))
	return ""
}

// evictLocked closes some of those that have let the broker wait: of the address that has the most of them, the longest first.
func (a *admission) evictLocked(now time.Time) bool {
	type silent struct {
		*arrival
		waited time.Duration
	}
	var most []silent
	for s := range a.shaking {
		waited, patience := s.waiting(now), silentAfter
		if a.sources[s.source] > a.limits.Handshakes/2 {
			patience = crowdAfter
		}
		if waited < patience {
			continue
		}
		if len(most) > 0 && s.source != most[0].source {
			if a.sources[s.source] <= a.sources[most[0].source] {
				continue
			}
			most = most[:0]
		}
		most = append(most, silent{s, waited})
	}
	slices.SortFunc(most, func(x, y silent) int { return cmp.Compare(y.waited, x.waited) })
	for _, s := range most[:min(len(most), 1+len(a.shaking)/evictShare)] {
		a.shakenLocked(s.arrival)
		a.edge.refused(RefusedHandshakes)
		_ = s.Close()
	}
	return len(most) > 0
}

// shakenLocked takes a connection from those whose handshake is not over.
func (a *admission) shakenLocked(arrived *arrival) {
	if _, ok := a.shaking[arrived]; !ok {
		return
	}
	delete(a.shaking, arrived)
	if a.sources[arrived.source]--; a.sources[arrived.source] == 0 {
		delete(a.sources, arrived.source)
	}
	select {
	case a.left <- struct{}{}:
	default:
	}
}

// handshake returns the connection that a handshake is made on, and has to be told that it is over.
func (a *admission) handshake(raw net.Conn) *arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	if arrived := a.open[raw]; arrived != nil {
		return arrived
	}
	return &arrival{Conn: raw} // it did not come in by the door
}

// leave forgets a connection.
func (a *admission) leave(arrived *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shakenLocked(arrived)
	if a.open[arrived.Conn] == arrived {
		delete(a.open, arrived.Conn)
		if arrived.admin {
			a.admins--
		}
		a.edge.open(len(a.open))
	}
}

// seat is a connection whose identity is known.
type seat struct {
	leave   func() // once
	refused error  // what its calls are told; nil if it may make any
}

// seat ends the handshake of a connection, and finds out whether its identity may have one more. An error says that it is to be closed.
func (a *admission) seat(arrived *arrival, identity string) (seat, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.shaking[arrived]; !ok && a.open[arrived.Conn] == arrived {
		return seat{}, errNoPlace // it lost its place, and is closed
	}
	a.shakenLocked(arrived)
	arrived.shaken.Store(true)
	of := a.seats[identity]
	if of == nil {
		of = &seats{}
		a.seats[identity] = of
	}
	reason, err := a.judgeLocked(of, arrived.admin)
	count := &of.taken
	if err != nil {
		a.edge.refused(reason)
		count = &of.refused
	}
	if err != nil && of.refused >= refusedMost {
		return seat{}, errNoPlace
	}
	*count++
	return seat{refused: err, leave: func() {
		a.leave(arrived)
		a.unseat(identity, of, count)
	}}, nil
}

// judgeLocked says why an identity may not have one more connection.
func (a *admission) judgeLocked(of *seats, admin bool) (RefusedReason, error) {
	if of.taken >= a.limits.ConnsPerIdentity {
		return RefusedIdentity, &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "connections of this identity", RetryAfter: refusedLife}
	}
	if a.shedder.level() > 0 && !admin {
		return RefusedMemory, errMemory(refusedLife)
	}
	return "", nil
}

func (a *admission) unseat(identity string, of *seats, count *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *count--; *of == (seats{}) {
		delete(a.seats, identity)
	}
}

// waiting is how long the peer has let the broker wait.
func (r *arrival) waiting(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		return r.waited
	}
	return r.waited + now.Sub(r.since)
}

// Read implements net.Conn.
func (r *arrival) Read(b []byte) (int, error) {
	if r.shaken.Load() {
		return r.Conn.Read(b)
	}
	r.mu.Lock()
	r.since = time.Now()
	r.mu.Unlock()
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waited += time.Since(r.since)
	r.since = time.Time{}
	r.spoke = r.spoke || n > 0
	return n, err
}

// probed reports whether a handshake ended so because its peer closed the connection before it sent anything, as a load balancer does to see
// whether somebody listens.
func (r *arrival) probed(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.spoke && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}

// sourceOf is where a connection comes from, as far as one peer can have it for itself: an IPv4 address, or a network of IPv6.
func sourceOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	source, _ := ip.WithZone("").Prefix(bits)
	return source
}
