package audit

import (
	"fmt"
	"runtime"
	"time"
)

// watchLocked has the watchdog run in a while, unless it is going to anyway: what it looks for only ever gets later.
func (l *Log) watchLocked(in time.Duration) {
	switch {
	case l.watched:
		return
	case l.watchdog == nil:
		l.watchdog = time.AfterFunc(in, l.watch)
	default:
		l.watchdog.Reset(in)
	}
	l.watched = true
}

// How long callers wait while the sink moves: so many deadlines more. Where the process is what is slow, as a goroutine that gave way shows
// that comes back only after a good part of a deadline, they wait for longer: to refuse them would bring them back at once, with more to do.
const (
	maxPatience  = 4
	overPatience = 14
	busyShare    = 20
)

// watch is the watchdog: it tells those who have waited for too long, of all groups at once, so that no caller needs a timer.
func (l *Log) watch() {
	gaveWay := time.Now()
	runtime.Gosched()
	patience := maxPatience * l.opts.Deadline
	if time.Since(gaveWay) > l.opts.Deadline/busyShare {
		patience = overPatience * l.opts.Deadline
	}
	l.letRun(1000)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = false
	now, next := time.Now(), time.Duration(0)
	for _, g := range []*group{l.writing, l.pending} {
		if g == nil || g.waiting == nil {
			continue
		}
		left := l.patienceLocked(g, now, patience)
		if left <= 0 {
			g.waiting.give(unavailable(fmt.Errorf("no answer from the sink within %v", l.opts.Deadline)))
			g.waiting = nil // the records stay: what was begun is written all the same
			continue
		}
		if next == 0 || left < next {
			next = left
		}
	}
	if next > 0 {
		l.watchLocked(next)
	}
}

// patienceLocked is for how long a group may wait yet. That its time is over counts against the sink only if the sink is what hangs: a
// process that has more to do than its processors bear must not take that for a dead log.
func (l *Log) patienceLocked(g *group, now time.Time, patience time.Duration) time.Duration {
	left := l.opts.Deadline - now.Sub(g.since)
	most := left + patience
	switch {
	case left > 0 || !l.running:
		return left
	case l.began.IsZero(), !l.inSink.Load(): // its turn has not come, or Run is back from the sink and has yet to say so
		return min(most, l.opts.Deadline)
	}
	return min(most, l.opts.Deadline-now.Sub(l.began))
}

// letRun gives way to Run, so many times at most, if its write looks stuck: it may long be back from the sink, and wait for a processor
// behind thousands of callers.
func (l *Log) letRun(most int) {
	for range most {
		l.mu.Lock()
		stuck := l.stuckLocked(time.Now())
		l.mu.Unlock()
		if !stuck {
			return
		}
		runtime.Gosched()
	}
}
