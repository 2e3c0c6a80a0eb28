package server

import (
	"errors"
	"sync"
	"time"
)

var errUnfinished = errors.New("the client begins calls and does not finish them")

const (
	// unfinishedMost is how many calls of a connection may wait for their requests for long: those of reflection are open from both sides.
	unfinishedMost = besideMost

	unfinishedShort = time.Second // what is long while memory is short
	unfinishedLook  = time.Second
)

// unfinished are the calls of a connection that its client has begun and not said all of. grpc-go gives each a goroutine that waits for the
// rest, for as long as the connection lasts, before anything that knows limits and deadlines of calls is asked.
type unfinished struct {
	mu    sync.Mutex
	calls map[uint32]time.Time // by stream → since when
}

// takeLocked notes what a frame of the client does to its calls.
func (u *unfinished) takeLocked(f *frames, now time.Time) {
	kind, end := f.head[3], f.head[4]&flagEnd != 0
	switch {
	case kind == frameReset, end && (kind == frameData || kind == frameHeaders):
		delete(u.calls, f.stream())
	case kind == frameHeaders:
		if u.calls == nil {
			u.calls = map[uint32]time.Time{}
		}
		u.calls[f.stream()] = now
	}
}

// ended notes that grpc-go has reset a stream. It does so with each that it ends before the client did.
func (u *unfinished) ended(stream uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.calls, stream)
}

// old counts those that have waited for long.
func (u *unfinished) old(now time.Time, long time.Duration) (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, since := range u.calls {
		if now.Sub(since) >= long {
			n++
		}
	}
	return n
}

// many reports whether there are more than may wait for long.
func (u *unfinished) many() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.calls) > unfinishedMost
}

// watch is a timer that runs while a connection has more unfinished calls than may wait for long.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer // nil = it does not run
	over  bool        // the connection is closed
}

// watched has the timer run.
func (c *metered) watched() {
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	if c.watch.timer == nil && !c.watch.over {
		c.watch.timer = time.AfterFunc(unfinishedLook, c.look)
	}
}

// look cuts the connection if too many of its calls have waited for long.
func (c *metered) look() {
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	calls := &c.meter.unfinished
	switch {
	case c.watch.over:
	case calls.old(time.Now(), c.long()) > unfinishedMost:
		c.once.Do(func() { c.cut(errUnfinished) })
		_ = c.below.Close()
	case calls.many():
		c.watch.timer.Reset(unfinishedLook)
	default:
		c.watch.timer = nil
	}
}

// Close implements net.Conn.
func (c *metered) Close() error {
	c.watch.mu.Lock()
	c.watch.over = true
	if c.watch.timer != nil {
		c.watch.timer.Stop()
	}
	c.watch.mu.Unlock()
	return c.Conn.Close()
}
