package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Options change how a Log behaves. The zero value is good.
type Options struct {
	Deadline   time.Duration // how long Write waits for the sink; 0 means 2 s
	Retry      time.Duration // how often a sink that failed is tried without a caller; 0 means 1 s
	MaxPending int           // bytes of records that may wait for the sink; 0 means 16 MiB. Beyond that Write waits for room, while the sink moves
	Sync       bool          // call Sync after each write, if the sink has it: records then survive a power cut
	Tail       Tail          // where the sink ends, from File.Tail; the zero value is an empty sink

	Checkpoints Checkpoints   // what is signed; the zero value is nothing
	Look        time.Duration // how often a sink that has Look is looked at while nothing is written; 0 means 5 s

	// Deleted is told when a file with records was deleted under the log; nil tells nobody. It is called from Run and must not block.
	Deleted func()
}

// Tail is how a sink ends.
type Tail struct {
	Trail string // id of the trail; "" begins a new one
	Seq   uint64 // number of the last record
	Head  Hash   // hash of the last whole line
	Torn  bool   // behind it there is an unfinished line
	Half  string // length and SHA-256 of that, in the words of the record that tells of it
}

// Log is an audit log. Any number of goroutines may write to it.
type Log struct {
	sink io.Writer
	opts Options

	scratch sync.Pool   // of *[]byte: where callers encode
	inSink  atomic.Bool // the sink has not come back from what it was asked to do last

	wake chan struct{} // holds one token while there is something for Run to do

	mu       sync.Mutex
	running  bool
	closed   bool
	pending  *group      // filling; nil if nothing waits
	writing  *group      // what the write under way is of; nil if none is
	spare    []*group    // room for the next groups: while one is written another one fills
	began    time.Time   // when the write under way began; zero = none is
	lost     uint64      // callers refused since the last record of a gap
	failure  error       // of the last write; nil if it went well
	watchdog *time.Timer // runs watch; nil before the first caller
	watched  bool        // the watchdog is going to run
	unfit    error       // what the last look at the sink found
	doubted  bool        // the last write of callers' records took long, or failed

	subscribers map[chan struct{}]struct{} // who wants to know that there is something to read

	// Of the goroutine of Run alone.
	last link   // trail and number of the last line written, and its hash
	torn bool   // an unfinished line has to be told of
	cut  string // what is told of it
	half bool   // and has no line feed yet
	gone bool   // a file with records was deleted or cut off, which has to be told of
	out  []byte // room for a group's lines

	unsigned unsigned
}

// New returns a log that appends to sink. Nothing is written before [Log.Run] runs. The sink has to follow io.Writer: when it
// returns an error, it took the number of bytes that it says.
func New(sink io.Writer, opts Options) *Log {
	opts.Deadline = cmp.Or(opts.Deadline, 2*time.Second)
	opts.Retry = cmp.Or(opts.Retry, time.Second)
	opts.MaxPending = cmp.Or(opts.MaxPending, 16<<20)
	opts.Look = cmp.Or(opts.Look, 5*time.Second)
	opts.Checkpoints.Records = cmp.Or(opts.Checkpoints.Records, 1000)
	opts.Checkpoints.Interval = cmp.Or(opts.Checkpoints.Interval, time.Minute)
	return &Log{
		sink: sink, opts: opts, wake: make(chan struct{}, 1),
		last: link{cmp.Or(opts.Tail.Trail, newTrail()), opts.Tail.Seq, opts.Tail.Head}, torn: opts.Tail.Torn, cut: opts.Tail.Half,
		subscribers: map[chan struct{}]struct{}{},
		scratch:     sync.Pool{New: func() any { return new([]byte) }},
	}
}

// Write appends a record and returns once the sink took it. The record is encoded before Write waits, so its slices may be
// changed as soon as it returned.
//
// Every error wraps tokenbroker.ErrAuditUnavailable; one that comes of ctx wraps its error too. With an error the record may
// or may not be in the trail, and what it is about must not happen.
func (l *Log) Write(ctx context.Context, r Record) error {
	buf := l.scratch.Get().(*[]byte)
	stamp := r.Time
	if stamp.IsZero() {
		stamp = time.Now()
	}
	*buf = r.appendFields((*buf)[:0], stamp)
	w, err := l.join(ctx, *buf)
	l.scratch.Put(buf)
	if err != nil {
		l.refused()
		return err
	}
	return w.wait(ctx)
}

// errNoRoom says that as much waits for the sink as may.
var errNoRoom = errors.New("too many records are waiting already")

// join adds a record to a group. If there is no room for it, it waits for as long as what is in the way gets written, and not for ever.
func (l *Log) join(ctx context.Context, fields []byte) (*verdict, error) {
	w, err := l.enqueue(fields)
	for end := time.Now().Add(maxPatience * l.opts.Deadline); errors.Is(err, errNoRoom) && w != nil && time.Now().Before(end); {
		if err = w.wait(ctx); err == nil {
			w, err = l.enqueue(fields)
		}
	}
	return w, err
}

// refused counts a caller who was refused.
func (l *Log) refused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost++
}

// enqueue adds a record to the group that is filling, or refuses it at once. With errNoRoom comes the verdict to
// wait for, or nil if those who waited for what is in the way were told that it takes too long.
func (l *Log) enqueue(fields []byte) (*verdict, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.stuckLocked(now) {
		l.mu.Unlock()
		l.letRun(3)
		l.mu.Lock()
		now = time.Now()
	}
	err := l.refuseLocked(len(fields), now)
	switch {
	case err == nil:
		return l.joinLocked(fields, now), nil
	case errors.Is(err, errNoRoom):
		return l.pending.waiting, err
	}
	return nil, err
}

// joinLocked adds a record to the group that is filling.
func (l *Log) joinLocked(fields []byte, now time.Time) *verdict {
	if l.pending == nil {
		l.pending = l.roomLocked()
		l.signal()
	}
	g := l.pending
	if g.waiting == nil {
		g.waiting, g.since = &verdict{done: make(chan struct{})}, now
		l.watchLocked(l.opts.Deadline)
	}
	g.fields = append(g.fields, fields...)
	g.ends = append(g.ends, len(g.fields))
	return g.waiting
}

// refuseLocked says why a record of n bytes can't be taken.
func (l *Log) refuseLocked(n int, now time.Time) error {
	switch {
	case l.closed:
		return unavailable(errors.New("it is closed"))
	case l.stuckLocked(now):
		return unavailable(fmt.Errorf("a write has been stuck since %s", l.began.UTC().Format(time.RFC3339)))
	case l.pending != nil && len(l.pending.fields)+n > l.opts.MaxPending:
		return unavailable(errNoRoom)
	}
	return nil
}

// stuckLocked reports whether the sink hangs. A Run that is back from it, and waits for the lock or a processor behind thousands of callers, does not.
func (l *Log) stuckLocked(now time.Time) bool {
	return l.inSink.Load() && !l.began.IsZero() && now.Sub(l.began) >= l.opts.Deadline
}

// signal tells Run that there is something to do.
func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Healthy returns nil if the log can be written as far as is known, and otherwise what is wrong, for readiness.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuseLocked(0, time.Now()); err != nil {
		return err
	}
	if !l.running {
		return unavailable(errors.New("it is not running"))
	}
	return cmp.Or(l.failure, l.unfit)
}

// unavailable wraps err for callers.
func unavailable(err error) error {
	return fmt.Errorf("%w: %w", tokenbroker.ErrAuditUnavailable, err)
}
