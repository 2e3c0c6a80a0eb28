package server

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errFlood   = errors.New("the client begins or takes back calls faster than it may")
	errBlocked = errors.New("the client sends and does not read")
)

// readAhead is how much is read of a client who does not take what it is sent. What it asks for is held in memory meanwhile.
const readAhead = 256 << 10

// meter watches what a client sends and is sent, in clear text, outside of gRPC. It bounds five things that grpc-go does not: how often a
// client may have the broker begin something and take it back (rapid reset), also by breaking the protocol, so that it is grpc-go that takes
// it back, how often it may begin more than it may have at once, which whoever leaves answers waiting can do without end, how many calls it
// may make that grpc-go refuses before the broker sees them, how much it may ask for while it does not read, and how many calls it may leave
// without their requests.
type meter struct {
	idle  allowance // of frames that bring no work
	calls allowance // of calls, of any kind: more than a client may make whom the limits of its identity let be

	unfinished unfinished

	in, out frames
	owed    atomic.Int64 // for streams that grpc-go reset, and that idle was not charged with

	writing atomic.Bool
	written atomic.Uint64 // writes that have ended
	during  int           // bytes read since a write began that has not ended
	wrote   chan struct{} // holds a value when a write has ended
}

const prefaceBytes = 24

// refusalCosts is what a refused stream takes from the budget: libraries know how many they may have, and each is made before it is refused.
const refusalCosts = 8

func newMeter(l Limits) *meter {
	calls := max(1000, 2*l.CallsPerSecond)
	return &meter{idle: newAllowance(max(1000, 2*float64(l.StreamsPerConn)), l.ResetsPerSecond), calls: newAllowance(2*calls, calls),
		wrote: make(chan struct{}, 1), in: frames{skip: prefaceBytes}}
}

// allowance is a bucket of what there may be so many of a second, and at most so many at once.
type allowance struct {
	left, most, perSecond float64
	filled                time.Time
}

func newAllowance(most, perSecond float64) allowance {
	return allowance{left: most, most: most, perSecond: perSecond, filled: time.Now()}
}

// spend takes one, if there is one.
func (a *allowance) spend() bool {
	if a.left < 1 {
		now := time.Now()
		a.left = min(a.most, a.left+now.Sub(a.filled).Seconds()*a.perSecond)
		a.filled = now
	}
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// The types of frames that begin a call, or bring no work and are not answered for by grpc-go itself.
const (
	frameData      = 0x0
	frameHeaders   = 0x1
	framePriority  = 0x2
	frameReset     = 0x3
	frameSettings  = 0x4
	frameContinued = 0x9
	flagEnd        = 0x1
	codeNone       = 0x0 // the reason NO_ERROR: the answer came before the end of the question
	codeRefused    = 0x7 // REFUSED_STREAM: there are as many as there may be
	codeCancel     = 0x8 // CANCEL: its deadline is over
)

// frames finds the frames in what goes one way on a connection.
//
// A frame, as it comes; the payload of one that resets a stream is the reason:
//
//	0      3      4       5           9
//	+------+------+-------+-----------+---------
//	|length| type | flags | stream id | payload
//	+------+------+-------+-----------+---------
type frames struct {
	skip int      // bytes of a preface or a payload that are still to come
	head [13]byte // of the next frame; with the reason, if it resets a stream
	have int      // bytes of it
}

const headBytes, resetBytes = 9, 13

// next finds the head of a frame, and what is left of b behind it. It is false if b ends before that.
func (f *frames) next(b []byte) (rest []byte, found bool) {
	n := min(f.skip, len(b))
	f.skip, b = f.skip-n, b[n:]
	for f.have < f.want() {
		if len(b) == 0 {
			return nil, false
		}
		n := copy(f.head[f.have:f.want()], b)
		f.have, b = f.have+n, b[n:]
	}
	f.skip, f.have = f.length()-(f.have-headBytes), 0
	return b, true
}

// want is how much of the frame's head there has to be, as far as is known.
func (f *frames) want() int {
	if f.have >= headBytes && f.head[3] == frameReset && f.length() == resetBytes-headBytes {
		return resetBytes
	}
	return headBytes
}

// stream is the number of the stream.
func (f *frames) stream() uint32 { return binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1) }

// length is that of the payload.
func (f *frames) length() int { return int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2]) }

// resets reports whether the frame resets a stream.
func (f *frames) resets() bool { return f.head[3] == frameReset && f.length() == resetBytes-headBytes }

// cost is what a reset of the broker's own takes from its client's budget: something if the client should not have begun the stream, or went on
// with it as nobody may.
func (f *frames) cost() int64 {
	switch binary.BigEndian.Uint32(f.head[headBytes:]) {
	case codeNone, codeCancel:
		return 0
	case codeRefused:
		return refusalCosts
	}
	return 1
}

// take looks at what came.
func (m *meter) take(b []byte) error {
	now := time.Now()
	for n := m.owed.Swap(0); n > 0; n-- {
		if !m.idle.spend() {
			return errFlood
		}
	}
	m.unfinished.mu.Lock()
	defer m.unfinished.mu.Unlock()
	for b, found := m.in.next(b); found; b, found = m.in.next(b) {
		kind := m.in.head[3]
		m.unfinished.takeLocked(&m.in, now)
		if kind == frameHeaders && !m.calls.spend() || idle(kind, m.in.head[4], m.in.length()) && !m.idle.spend() {
			return errFlood
		}
	}
	return nil
}

// give looks at what goes out.
func (m *meter) give(b []byte) {
	for b, found := m.out.next(b); found; b, found = m.out.next(b) {
		if m.out.resets() {
			m.owed.Add(m.out.cost())
			m.unfinished.ended(m.out.stream())
		}
	}
}

// idle reports whether a frame brings no work: it may only come so often.
func idle(kind, flags byte, length int) bool {
	switch kind {
	case framePriority, frameReset, frameSettings, frameContinued:
		return true
	case frameData:
		return length == 0 && flags&flagEnd == 0
	}
	return false
}

// ahead notes that so many bytes were read, and waits for a write that is under way once it was too much. patience is how long.
func (m *meter) ahead(n int, patience time.Duration) error {
	if !m.writing.Load() {
		m.during = 0
		return nil
	}
	m.during += n
	if m.during < readAhead {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for before := m.written.Load(); m.writing.Load() && m.written.Load() == before; {
		select {
		case <-m.wrote:
		case <-timer.C:
			return errBlocked
		}
	}
	m.during = 0
	return nil
}

// metered is a connection under a meter.
type metered struct {
	net.Conn
	below    net.Conn // what it is cut by
	meter    *meter
	patience time.Duration
	long     func() time.Duration // that calls may wait for their requests
	cut      func(error)
	once     sync.Once
	watch    watch
}

// metered puts a connection under a meter. below is the connection that it goes over.
func (a *admission) metered(conn, below net.Conn) net.Conn {
	return &metered{Conn: conn, below: below, meter: newMeter(a.limits), patience: a.limits.SlowReader, long: a.long, cut: func(err error) {
		reason := RefusedFlood
		switch {
		case errors.Is(err, errBlocked):
			reason = RefusedBlocked
		case errors.Is(err, errUnfinished):
			reason = RefusedUnfinished
		}
		a.edge.refused(reason)
	}}
}

// long is how long calls may wait for their requests.
func (a *admission) long() time.Duration {
	if a.shedder.level() > shedNothing {
		return min(unfinishedShort, a.limits.CallDeadline)
	}
	return a.limits.CallDeadline
}

// Read implements net.Conn.
func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		bad := c.meter.take(b[:n])
		if bad == nil {
			bad = c.meter.ahead(n, c.patience)
		}
		if bad != nil {
			c.once.Do(func() { c.cut(bad) })
			return 0, bad
		}
		if c.meter.unfinished.many() {
			c.watched()
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *metered) Write(b []byte) (int, error) {
	c.meter.give(b)
	c.meter.writing.Store(true)
	n, err := c.Conn.Write(b)
	c.meter.writing.Store(false)
	c.meter.written.Add(1)
	select {
	case c.meter.wrote <- struct{}{}:
	default:
	}
	return n, err
}
