package server

import (
	"time"
)

// Limits bound what clients may use. The zero value of each field stands for what its comment says. The defaults assume that a whole fleet
// shares one identity.
type Limits struct {
	CallsPerSecond     float64 // per identity; 0 = 10,000, with a burst of twice that
	StreamsPerIdentity int     // subscriptions open at once; 0 = 20,000
	StreamsPerConn     uint32  // HTTP/2 streams at once; 0 = 2,000
	ConnsPerIdentity   int     // connections at once; 0 = 4,000
	Conns              int     // connections at once, of everybody; 0 = 50,000
	Handshakes         int     // connections at once that have not said who they are; 0 = 4,096, but at most half of Conns
	ResetsPerSecond    float64 // frames per connection that take work back or ask for none; 0 = 200, with a burst of twice StreamsPerConn
	HeaderBytes        uint32  // of a call's headers; 0 = 16 KiB
	RequestBytes       int     // of a request; 0 = 128 KiB
	Selectors          int     // per subscription; 0 = 256
	Tails              int     // of the audit trail at once, per identity; 0 = 8
	Memory             int64   // bytes that the process has; near them it refuses what costs more; 0 = it never does

	HandshakeTimeout time.Duration // from a connection's first byte to its first frame; 0 = 10 s
	CallDeadline     time.Duration // for unary calls that come without one, and for the request of any call; 0 = 15 s
	Heartbeat        time.Duration // between heartbeats of a subscription; 0 = 30 s
	SlowReader       time.Duration // a send blocked for this long cuts the connection; 0 = 10 s
	ConnectionAge    time.Duration // after which a client is asked to reconnect, give or take 10 %; 0 = 30 min
	ConnectionGrace  time.Duration // after ConnectionAge, until the connection is cut; 0 = 30 s
	ConnectionIdle   time.Duration // without a call, until the connection is closed; 0 = 15 min
	Keepalive        time.Duration // without a frame, until the broker asks whether the client is there; 0 = 30 s
	KeepaliveTimeout time.Duration // for the answer to that, and for the network to take what is sent; 0 = 10 s
}

func (l Limits) filled() Limits {
	set(&l.CallsPerSecond, 10_000)
	set(&l.StreamsPerIdentity, 20_000)
	set(&l.StreamsPerConn, 2_000)
	set(&l.ConnsPerIdentity, 4_000)
	set(&l.Conns, 50_000)
	set(&l.Handshakes, min(4_096, max(1, l.Conns/2)))
	set(&l.ResetsPerSecond, 200)
	set(&l.HeaderBytes, 16<<10)
	set(&l.RequestBytes, 128<<10)
	set(&l.Selectors, 256)
	set(&l.Tails, 8)
	set(&l.HandshakeTimeout, 10*time.Second)
	set(&l.CallDeadline, 15*time.Second)
	set(&l.Heartbeat, 30*time.Second)
	set(&l.SlowReader, 10*time.Second)
	set(&l.ConnectionAge, 30*time.Minute)
	set(&l.ConnectionGrace, 30*time.Second)
	set(&l.ConnectionIdle, 15*time.Minute)
	set(&l.Keepalive, 30*time.Second)
	set(&l.KeepaliveTimeout, 10*time.Second)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Edge is told what happens where connections come in. Any function of it may be nil.
type Edge struct {
	Open    func(connections int)      // how many connections are open, at each change
	Refused func(reason RefusedReason) // of each connection that was refused or cut
	Shed    func(level int)            // of each change of how short memory is: 0 = it is not, 1 and 2 as docs/operations.md has it
}

// RefusedReason says why a connection was refused or cut.
type RefusedReason string

// The reasons.
const (
	RefusedConnections RefusedReason = "connections" // of everybody there are as many as may be
	RefusedIdentity    RefusedReason = "identity"    // its identity has as many as it may
	RefusedHandshakes  RefusedReason = "handshakes"  // too many others have not said who they are, or it did not for long
	RefusedMemory      RefusedReason = "memory"      // memory is short
	RefusedFlood       RefusedReason = "flood"       // it was cut: its client took back calls faster than may be
	RefusedBlocked     RefusedReason = "blocked"     // it was cut: its client sent without reading
	RefusedUnfinished  RefusedReason = "unfinished"  // it was cut: its client began calls and did not send what they ask for
)

func (e Edge) open(n int) {
	if e.Open != nil {
		e.Open(n)
	}
}

func (e Edge) refused(reason RefusedReason) {
	if e.Refused != nil {
		e.Refused(reason)
	}
}

func (e Edge) shed(level int) {
	if e.Shed != nil {
		e.Shed(level)
	}
}
