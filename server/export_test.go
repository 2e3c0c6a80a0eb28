package server

import (
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// The tables are unexported on purpose: nobody else may decide by them. Their tests have to walk them, whatever rows they hold.

// Row is a row of the error table.
type Row struct {
	Err      error
	Code     codes.Code
	Reason   string
	Recovery tokenbroker.Recovery
}

// Rows returns the error table.
func Rows() []Row {
	var rows []Row
	for _, r := range table {
		rows = append(rows, Row{Err: r.err, Code: r.code, Reason: r.reason, Recovery: r.recovery})
	}
	return rows
}

// ToStatus turns an error into what the client sees.
func ToStatus(log *slog.Logger, err error) error { return toStatus(log, err) }

// Guarded reports whether a method is in the guard's table, and with what action.
func Guarded(method string) (action string, open, ok bool) {
	n, ok := needs[method]
	return string(n.action), n.open, ok
}

// GuardedMethods returns how many methods the guard's table has.
func GuardedMethods() int { return len(needs) }

// Methods returns all methods that a server has registered.
func (s *Server) Methods() []string { return registered(s.grpc) }

func registered(g *grpc.Server) []string {
	var list []string
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			list = append(list, "/"+service+"/"+m.Name)
		}
	}
	return list
}

// Metered puts a connection under a meter; refused hears why it was cut.
func Metered(conn net.Conn, l Limits, refused func(RefusedReason)) net.Conn {
	return newAdmission(l.filled(), Edge{Refused: refused}, &shedder{}).metered(conn, conn)
}

// MeteredWhileShort is Metered while memory is short.
func MeteredWhileShort(conn net.Conn, l Limits, refused func(RefusedReason)) net.Conn {
	short := &shedder{}
	short.now.Store(shedNew)
	return newAdmission(l.filled(), Edge{Refused: refused}, short).metered(conn, conn)
}

// Idle counts the frames that bring no work in what a client sent, given in pieces.
func Idle(pieces ...[]byte) int {
	m := newMeter(Limits{}.filled())
	m.idle.left = 1e9
	for _, p := range pieces {
		_ = m.take(p)
	}
	return int(1e9 - m.idle.left)
}

// Owed is what a client owes for the resets in what goes to it, given in pieces.
func Owed(pieces ...[]byte) int {
	m := newMeter(Limits{}.filled())
	for _, p := range pieces {
		m.give(p)
	}
	return int(m.owed.Load())
}

// LivingMemory is what the process uses, without garbage.
func LivingMemory(fresh bool) int64 { return livingMemory(fresh) }

// MaxRemembered is how many questions a connection remembers.
const MaxRemembered = maxRemembered

// AdminMethods is Methods of the listener for operators.
func (s *Server) AdminMethods() []string { return registered(s.admin) }

// ForWorkers reports whether a method is served to workers where operators have a listener of their own.
func ForWorkers(method string) bool { return needs[method].worker }

// Caller is a connection's other end, without the connection.
type Caller struct{ c *caller }

// NewCaller begins a caller that has shaken hands at a gate; cut is to close its connection.
func NewCaller(log *slog.Logger, gate *mtls.Gate, state tls.ConnectionState, cut func() error) (Caller, error) {
	c := &caller{TLSInfo: credentials.TLSInfo{State: state}, gate: gate, cut: cut}
	return Caller{c}, c.begin(newPeers(log, nil))
}

// Check says why the caller may not go on.
func (c Caller) Check() error { return c.c.check() }

// Gone ends it.
func (c Caller) Gone() { c.c.gone() }

// Oversleep has its clock not ring, like that of a machine that sleeps.
func (c Caller) Oversleep() { c.c.clock.Stop() }

// Turns takes turns of an identity: each caller is one on a connection of its own.
func Turns(perSecond float64, burst int, refused func(string)) func(identity string) (connection func(time.Time) error) {
	l := newIdentityLimits(perSecond, burst)
	l.refused = refused
	return func(identity string) func(time.Time) error {
		c := &caller{Peer: mtls.Peer{Identity: identity}}
		return func(now time.Time) error { return l.check(c, now) }
	}
}
