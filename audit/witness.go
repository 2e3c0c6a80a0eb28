package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// WitnessOptions change how a Witness behaves. The zero value is good.
type WitnessOptions struct {
	Retry  time.Duration // how long after a failure it tries again; 0 means 10 s
	Failed func(error)   // is told of each failure, for logs and metrics; nil = nobody is
	Max    int           // checkpoints that may wait; 0 means 1,000. Of more the oldest is dropped: a newer one speaks for all before it
}

// Witness brings checkpoints to a second place. That place may fail or hang without holding up the log; what it did not take is kept and
// tried again.
type Witness struct {
	sink io.Writer
	opts WitnessOptions
	wake chan struct{}

	mu      sync.Mutex
	waiting [][]byte
	dropped uint64
	began   time.Time // when the write under way began; zero = none is
	failure error     // of the last write
}

// NewWitness returns a witness that writes to sink, one line with each write. A sink that has Sync is synced.
func NewWitness(sink io.Writer, opts WitnessOptions) *Witness {
	opts.Retry = cmp.Or(opts.Retry, 10*time.Second)
	opts.Max = cmp.Or(opts.Max, 1000)
	return &Witness{sink: sink, opts: opts, wake: make(chan struct{}, 1)}
}

// Take takes a checkpoint to bring away; for Checkpoints.Out. It does not block and keeps line.
func (w *Witness) Take(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting = append(w.waiting, line); len(w.waiting) > w.opts.Max {
		w.waiting = w.waiting[1:]
		w.dropped++
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run brings checkpoints away until ctx ends, and then those that still wait, in one try, whose error it returns. Let it end after the
// log. It returns only after a write under way came back: whoever must end earlier leaves it behind.
func (w *Witness) Run(ctx context.Context) error {
	retry := time.NewTimer(w.opts.Retry)
	retry.Stop() // until something failed
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.deliver()
		case <-w.wake:
		case <-retry.C:
		}
		if err := w.deliver(); err != nil {
			retry.Reset(w.opts.Retry)
		}
	}
}

// deliver writes what waits, the oldest first.
func (w *Witness) deliver() error {
	for {
		line := w.oldest()
		if line == nil {
			return nil
		}
		err := w.write(line)
		w.settle(line, err)
		if err != nil {
			if w.opts.Failed != nil {
				w.opts.Failed(err)
			}
			return err
		}
	}
}

// oldest returns the checkpoint that waits longest; nil if none does.
func (w *Witness) oldest() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 {
		return nil
	}
	w.began = time.Now()
	return w.waiting[0]
}

func (w *Witness) write(line []byte) error {
	n, err := w.sink.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if s, ok := w.sink.(interface{ Sync() error }); ok && err == nil {
		err = s.Sync()
	}
	if err != nil {
		return fmt.Errorf("bring a checkpoint of the audit trail to its second place: %w", err)
	}
	return nil
}

// settle notes how the write of a line went.
func (w *Witness) settle(line []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.failure = time.Time{}, err
	if err == nil && len(w.waiting) > 0 && &w.waiting[0][0] == &line[0] { // else it was dropped meanwhile
		w.waiting = w.waiting[1:]
	}
}

// Healthy returns nil if the second place takes what it is given, and otherwise what is wrong. It is no reason to stop: the trail holds
// all checkpoints too.
func (w *Witness) Healthy() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.began.IsZero() && time.Since(w.began) > w.opts.Retry {
		return errors.New("the second place of audit checkpoints has hung since " + w.began.UTC().Format(time.RFC3339))
	}
	return w.failure
}

// Waiting returns how many checkpoints wait, and how many were dropped since there were too many, for metrics.
func (w *Witness) Waiting() (waiting int, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting), w.dropped
}
