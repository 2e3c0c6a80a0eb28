package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tokenbroker/tokenbroker/store"
)

const (
	revBucket = "!revision" // no store bucket has a "!"
	revBytes  = 8
	stampKey  = "transaction" // beside the revision; see current
	freshTx   = 1             // the transaction that a new file is at
)

// Engine is a store.Engine over one bbolt file. Close it.
type Engine struct {
	db      *bbolt.DB
	path    string
	history history

	seat   chan struct{} // holds one token while somebody writes
	broken error         // set when bbolt panicked in a write; it may still hold its locks. Whoever has the seat may use it
	closed chan struct{} // closed by Close
	once   sync.Once

	mu    sync.Mutex
	queue []*request // waiting for whoever takes the seat
}

// Close waits for the transaction in progress and for reads, ends every watch, and closes the file. It may be called twice.
// After damage was met in a write it leaves the file open, for bbolt could wait for itself.
func (e *Engine) Close() error {
	var err error
	e.once.Do(func() {
		close(e.closed)
		e.seat <- struct{}{} // and never give it back
		e.history.end(store.ErrClosed)
		if err = e.broken; err == nil {
			err = guarded(e.db.Close)
		}
	})
	return err
}

// Read implements store.Engine.
func (e *Engine) Read(ctx context.Context, keys ...store.Key) (store.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return store.Snapshot{}, err
	}
	s := store.Snapshot{Entries: make([]store.Entry, len(keys))}
	err := e.view(func(tx *bbolt.Tx) error {
		s.Rev = revision(tx)
		for i, k := range keys {
			rev, value, err := get(tx, k)
			if err != nil {
				return err
			}
			s.Entries[i] = store.Entry{Key: k, Value: bytes.Clone(value), Rev: rev}
		}
		return nil
	})
	if err != nil {
		return store.Snapshot{}, err
	}
	return s, nil
}

// List implements store.Engine.
func (e *Engine) List(ctx context.Context, bucket, after string, limit int) (store.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return store.Snapshot{}, err
	}
	var s store.Snapshot
	err := e.view(func(tx *bbolt.Tx) (err error) {
		s.Rev = revision(tx)
		s.Entries, err = list(tx, bucket, after, limit)
		return err
	})
	if err != nil {
		return store.Snapshot{}, err
	}
	return s, nil
}

// Watch implements store.Engine. It keeps the newest few thousand changes since Open for all watchers together.
func (e *Engine) Watch(ctx context.Context, bucket string, from uint64) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		for {
			events, next, err := e.history.after(ctx, bucket, from)
			if err != nil {
				yield(store.Event{}, err)
				return
			}
			for _, ev := range events {
				ev.Value = bytes.Clone(ev.Value)
				if !yield(ev, nil) {
					return
				}
			}
			from = next
		}
	}
}

// view looks at one moment of the file.
func (e *Engine) view(fn func(*bbolt.Tx) error) error {
	err := guarded(func() error { return e.db.View(fn) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}

func list(tx *bbolt.Tx, bucket, after string, limit int) ([]store.Entry, error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil, nil
	}
	var out []store.Entry
	c := b.Cursor()
	k, v := c.Seek([]byte(after))
	if after != "" && string(k) == after {
		k, v = c.Next()
	}
	for ; k != nil && len(out) < limit; k, v = c.Next() {
		key := store.Key{Bucket: bucket, Name: string(k)}
		rev, value, err := split(key, v)
		if err != nil {
			return nil, err
		}
		out = append(out, store.Entry{Key: key, Value: bytes.Clone(value), Rev: rev})
	}
	return out, nil
}

// get returns a value that is only good until tx ends; revision 0 if the key is absent.
func get(tx *bbolt.Tx, k store.Key) (uint64, []byte, error) {
	b := tx.Bucket([]byte(k.Bucket))
	if b == nil {
		return 0, nil, nil
	}
	v := b.Get([]byte(k.Name))
	if v == nil {
		return 0, nil, nil
	}
	return split(k, v)
}

func split(k store.Key, v []byte) (uint64, []byte, error) {
	if len(v) < revBytes {
		return 0, nil, fmt.Errorf("entry %s %q has %d bytes, too few for a revision: the file is damaged", k.Bucket, k.Name, len(v))
	}
	return binary.BigEndian.Uint64(v), v[revBytes:], nil
}

// stamp writes which bolt transaction the revision is of, beside it.
func stamp(tx *bbolt.Tx) error {
	return tx.Bucket([]byte(revBucket)).Put([]byte(stampKey), binary.BigEndian.AppendUint64(nil, uint64(tx.ID())))
}

// current refuses a tree that is older than the meta page that leads to it, or that is bare though something was written: a page
// that the disk said it had synced was lost. An empty store would be made in its place, or pages that it still needs overwritten.
func current(tx *bbolt.Tx) error {
	stamped := uint64(freshTx)
	if b := tx.Bucket([]byte(revBucket)); b != nil {
		v := b.Get([]byte(stampKey))
		if len(v) != revBytes {
			return fmt.Errorf("%w (its revision is not stamped)", errDamaged)
		}
		stamped = binary.BigEndian.Uint64(v)
	}
	if id := uint64(tx.ID()); stamped < id {
		return fmt.Errorf("%w (transaction %d was synced, and what is there is of %d)", errDamaged, id, stamped)
	}
	return nil
}

func revision(tx *bbolt.Tx) uint64 {
	b := tx.Bucket([]byte(revBucket))
	if b == nil {
		return 0
	}
	return b.Sequence()
}
