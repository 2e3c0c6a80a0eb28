package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tokenbroker/tokenbroker/store"
)

const (
	maxGroup      = 1024    // transactions that share one sync
	maxGroupBytes = 8 << 20 // of their values
)

// request is one caller's transaction on its way. Whoever holds the seat writes rev and err, then closes done.
type request struct {
	txn  store.Txn
	done chan struct{}
	rev  uint64
	err  error
}

// Txn implements store.Engine.
func (e *Engine) Txn(ctx context.Context, t store.Txn) (uint64, error) {
	if err := errors.Join(ctx.Err(), t.Check()); err != nil {
		return 0, err
	}
	r := &request{txn: t, done: make(chan struct{})}
	e.mu.Lock()
	e.queue = append(e.queue, r)
	e.mu.Unlock()
	for !r.finished() {
		select {
		case <-r.done:
		case e.seat <- struct{}{}:
			e.commitGroup()
			<-e.seat
		case <-ctx.Done():
			return e.withdraw(r, ctx.Err())
		case <-e.closed:
			return e.withdraw(r, store.ErrClosed)
		}
	}
	return r.rev, r.err
}

// finished reports whether r has its outcome, so that its caller leaves instead of taking the seat once more.
func (r *request) finished() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// withdraw takes r back if nobody has begun with it, else waits for what becomes of it.
func (e *Engine) withdraw(r *request, why error) (uint64, error) {
	e.mu.Lock()
	i := slices.Index(e.queue, r)
	if i >= 0 {
		e.queue = slices.Delete(e.queue, i, i+1)
	}
	e.mu.Unlock()
	if i >= 0 {
		return 0, why
	}
	<-r.done
	return r.rev, r.err
}

// commitGroup commits what queued up, in the order it came. The caller holds the seat.
func (e *Engine) commitGroup() {
	group := e.takeGroup()
	if len(group) == 0 {
		return
	}
	err := e.commit(group)
	for _, r := range group {
		if errors.Is(err, berrors.ErrMaxSizeReached) && (len(group) > 1 || r.unbounded()) { // one that is too big must not fail the others
			r.finish(e.commitAlone(r))
			continue
		}
		r.finish(err)
	}
}

// commitAlone commits one request of a group for which the file has no room. It may be one that is let past the maximum.
func (e *Engine) commitAlone(r *request) error {
	if r.unbounded() {
		defer func(most int) { e.db.MaxSize = most }(e.db.MaxSize)
		e.db.MaxSize = 0 // bbolt reads it in a write alone, and who has the seat is the only one that writes
	}
	return e.commit([]*request{r})
}

// unbounded reports whether a transaction is let past the maximum: what is vital, and what deletes. A page is copied before something is taken
// out of it, so that a full file could not be emptied. That takes a few pages, which the next one finds free again.
func (r *request) unbounded() bool { return r.txn.Vital || r.deletes() }

// deletes reports whether a transaction takes something away and puts nothing in.
func (r *request) deletes() bool {
	return len(r.txn.Do) > 0 && !slices.ContainsFunc(r.txn.Do, func(op store.Op) bool { return !op.Delete })
}

func (e *Engine) takeGroup() []*request {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, size := 0, 0
	for n < len(e.queue) && n < maxGroup && size < maxGroupBytes {
		for _, op := range e.queue[n].txn.Do {
			size += len(op.Value)
		}
		n++
	}
	group := slices.Clone(e.queue[:n])
	e.queue = slices.Delete(e.queue, 0, n)
	return group
}

// finish gives a request its outcome: err of the group if there is one, else what apply found.
func (r *request) finish(err error) {
	if err != nil {
		r.rev, r.err = 0, err
	}
	close(r.done)
}

// commit applies a group in one bolt transaction and tells the watchers. Its error is one of the whole group.
func (e *Engine) commit(group []*request) error {
	var events []store.Event
	var rev uint64
	began := false
	if e.broken != nil {
		return e.broken
	}
	err := guarded(func() error {
		tx, err := e.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after a commit
		before := revision(tx)
		if events, err = applyAll(tx, group); err != nil {
			return err
		}
		if rev = revision(tx); rev == before {
			return nil
		}
		began = true
		if err := stamp(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
	switch {
	case errors.Is(err, errDamaged):
		e.broken = err
		e.history.end(err)
	case err == nil && began:
		e.history.add(events, rev)
	case began:
		e.resync()
	}
	return outcome(err, began)
}

// resync brings the history in line with the file after a commit that failed half-way.
func (e *Engine) resync() {
	err := e.view(func(tx *bbolt.Tx) error {
		e.history.restart(revision(tx))
		return nil
	})
	if err != nil {
		e.history.end(err)
	}
}

// applyAll gives each request its revision or its conflict. Any other error is the file's, and ends the whole group.
func applyAll(tx *bbolt.Tx, group []*request) ([]store.Event, error) {
	var events []store.Event
	for _, r := range group {
		evs, rev, err := apply(tx, r.txn)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
		r.rev, r.err = rev, err
		events = append(events, evs...)
	}
	return events, nil
}

// outcome says what an error of bolt means for the caller. A failure while pages are written or synced may still leave
// the new state on disk, so it is unknown; running out of the allowed size comes before any byte is written.
func outcome(err error, began bool) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return store.ErrClosed
	case errors.Is(err, berrors.ErrMaxSizeReached):
		return fmt.Errorf("the file has reached its maximum size: raise it, or delete what is not needed: %w", err)
	case began:
		return fmt.Errorf("%w: %w", store.ErrUnknown, err)
	}
	return err
}

// apply checks every compare before it writes anything, so that a conflict leaves the group's transaction clean.
func apply(tx *bbolt.Tx, t store.Txn) ([]store.Event, uint64, error) {
	for _, c := range t.If {
		rev, _, err := get(tx, c.Key)
		if err != nil {
			return nil, 0, err
		}
		if rev != c.Rev {
			return nil, 0, fmt.Errorf("%w: %s %q", store.ErrConflict, c.Key.Bucket, c.Key.Name)
		}
	}
	if len(t.Do) == 0 {
		return nil, revision(tx), nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(revBucket))
	if err != nil {
		return nil, 0, err
	}
	rev, err := b.NextSequence()
	if err != nil {
		return nil, 0, err
	}
	events, err := write(tx, t.Do, rev)
	return events, rev, err
}

func write(tx *bbolt.Tx, ops []store.Op, rev uint64) ([]store.Event, error) {
	events := make([]store.Event, 0, len(ops))
	for _, op := range ops {
		b, err := tx.CreateBucketIfNotExists([]byte(op.Key.Bucket))
		if err != nil {
			return nil, err
		}
		name := []byte(op.Key.Name)
		if op.Delete {
			if b.Get(name) == nil {
				continue
			}
			if err := b.Delete(name); err != nil {
				return nil, err
			}
			events = append(events, store.Event{Key: op.Key, Delete: true, Rev: rev})
			continue
		}
		v := append(binary.BigEndian.AppendUint64(make([]byte, 0, revBytes+len(op.Value)), rev), op.Value...)
		if err := b.Put(name, v); err != nil {
			return nil, err
		}
		events = append(events, store.Event{Key: op.Key, Value: v[revBytes:], Rev: rev})
	}
	return events, nil
}
