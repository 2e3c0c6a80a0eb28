package server

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errFlood   = errors.New("the client takes back calls faster than it may")
	errBlocked = errors.New("the client sends and does not read")
)

// readAhead is how much is read of a client who does not take what it is sent. What it asks for is held in memory meanwhile.
const readAhead = 1 << 20

// meter watches what a client sends, in clear text, before gRPC sees it. It bounds two things that grpc-go does not: how often a client may
// have the broker begin something and take it back (rapid reset), and how much a client may ask for while it does not read.
//
// A frame, as it comes:
//
//	0      3      4       5           9
//	+------+------+-------+-----------+---------
//	|length| type | flags | stream id | payload
//	+------+------+-------+-----------+---------
type meter struct {
	budget, most, perSecond float64 // of frames that bring no work
	filled                  time.Time

	skip int     // bytes of a preface or a payload that are still to come
	head [9]byte // of the next frame
	have int     // bytes of it

	writing atomic.Bool
	during  int           // bytes read since a write began that has not ended
	wrote   chan struct{} // holds a value when a write has ended
}

const prefaceBytes = 24

func newMeter(l Limits) *meter {
	most := max(1000, 2*float64(l.StreamsPerConn))
	return &meter{budget: most, most: most, perSecond: l.ResetsPerSecond, filled: time.Now(), skip: prefaceBytes, wrote: make(chan struct{}, 1)}
}

// The types of frames that bring no work, and are not answered for by grpc-go itself.
const (
	frameData      = 0x0
	framePriority  = 0x2
	frameReset     = 0x3
	frameSettings  = 0x4
	frameContinued = 0x9
	flagEnd        = 0x1
)

// take looks at what came.
func (m *meter) take(b []byte) error {
	for len(b) > 0 {
		if m.skip > 0 {
			n := min(m.skip, len(b))
			m.skip, b = m.skip-n, b[n:]
			continue
		}
		n := copy(m.head[m.have:], b)
		m.have, b = m.have+n, b[n:]
		if m.have < len(m.head) {
			return nil
		}
		m.have = 0
		m.skip = int(m.head[0])<<16 | int(m.head[1])<<8 | int(m.head[2])
		if idle(m.head[3], m.head[4], m.skip) && !m.spend() {
			return errFlood
		}
	}
	return nil
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

// spend takes one from the budget, if there is one.
func (m *meter) spend() bool {
	if m.budget < 1 {
		now := time.Now()
		m.budget = min(m.most, m.budget+now.Sub(m.filled).Seconds()*m.perSecond)
		m.filled = now
	}
	if m.budget < 1 {
		return false
	}
	m.budget--
	return true
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
	for m.writing.Load() {
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
	meter    *meter
	patience time.Duration
	cut      func(error)
	once     sync.Once
}

// metered puts a connection under a meter.
func (a *admission) metered(conn net.Conn) net.Conn {
	return &metered{Conn: conn, meter: newMeter(a.limits), patience: a.limits.SlowReader, cut: func(err error) {
		reason := RefusedFlood
		if errors.Is(err, errBlocked) {
			reason = RefusedBlocked
		}
		a.edge.refused(reason)
	}}
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
	}
	return n, err
}

// Write implements net.Conn.
func (c *metered) Write(b []byte) (int, error) {
	c.meter.writing.Store(true)
	n, err := c.Conn.Write(b)
	c.meter.writing.Store(false)
	select {
	case c.meter.wrote <- struct{}{}:
	default:
	}
	return n, err
}
