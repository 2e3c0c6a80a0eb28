package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// What an engine's callers branch on.
var (
	ErrConflict  = errors.New("a key changed meanwhile")                             // a compare failed; nothing was written
	ErrCompacted = errors.New("changes after that revision are gone: list again")    // the watcher fell behind, or was away
	ErrClosed    = errors.New("the engine is closed")                                // after, or during, Close
	ErrBadTxn    = errors.New("a transaction that no engine takes")                  // a fault of the caller
	ErrUnknown   = errors.New("the outcome is unknown: it may or may not be stored") // read again before going on
)

// Limits that hold for every engine.
const (
	MaxBucketBytes = 64
	MaxNameBytes   = 1024
	MaxValueBytes  = 1 << 20
	MaxOps         = 4096 // of one transaction
)

// Key is where an entry lives.
type Key struct {
	Bucket string // [a-z]+, one kind of record
	Name   string // any bytes, at least one
}

// Entry is a key with its value.
type Entry struct {
	Key   Key
	Value []byte // nil if the key is absent
	Rev   uint64 // revision of the transaction that wrote it last; 0 = absent
}

// Snapshot is what one look at the engine saw.
type Snapshot struct {
	Entries []Entry
	Rev     uint64 // of the newest transaction that the look saw; watch from here
}

// Compare is a condition of a transaction: that the key was last written at Rev. Rev 0 = the key is absent.
type Compare struct {
	Key Key
	Rev uint64
}

// Op is one write of a transaction.
type Op struct {
	Key    Key
	Value  []byte // what to put; may be empty
	Delete bool   // delete instead; of an absent key it does nothing
}

// Txn is a transaction: if every compare holds, every op is done, else none.
type Txn struct {
	If    []Compare
	Do    []Op
	Vital bool // it can't be done without, nor later: a maximum size of the engine does not hold for it
}

// Event is one change of one key.
type Event struct {
	Key    Key
	Value  []byte // nil for a delete
	Delete bool
	Rev    uint64 // of the transaction; its other events, if any, carry the same
}

// Engine is the small transactional store that [Store] is written over. Revisions count the transactions that wrote: each
// takes the next number, and every key it writes carries that number. They start at 1 and survive a restart.
//
// For implementers:
//
//   - Methods are called from many goroutines at once. Transactions are strictly serializable with each other and with
//     reads: a Read that begins after a Txn returned sees it.
//   - Slices that come in are the caller's again once the method returned; slices that go out belong to the caller, who
//     may write to them.
//   - Txn returns once the writes would survive a power cut, and lets concurrent callers share that cost. Compares are
//     checked against the state just before the transaction. A Txn without ops checks compares and takes no revision.
//   - Errors: [ErrConflict] if a compare failed, [ErrBadTxn] for what [Txn.Check] refuses, [ErrClosed] after close, ctx's
//     error if it ended before the transaction was begun: in these nothing was written. Once begun, Txn waits for its
//     outcome whatever ctx does. An error that wraps [ErrUnknown] leaves it open whether the writes happened; every other
//     error means that they did not.
//   - An engine may have a maximum size. It lets past that what is Vital, and what deletes and does nothing else.
//   - Watch yields each change of a bucket after revision from exactly once, in order of revision, after it is durable. It
//     buffers a bounded amount; a watcher that falls further behind, or asks for what is no longer kept, gets
//     [ErrCompacted] and lists again. The last pair it yields has an error: that, [ErrClosed] or ctx's.
type Engine interface {
	// Read returns one entry per key, in the order asked, all of one moment.
	Read(ctx context.Context, keys ...Key) (Snapshot, error)
	// List returns up to limit entries of a bucket whose name comes after after, in byte order of names. One call is one
	// moment; pages are not of the same moment. Who pages and then watches from the first page's Rev misses nothing.
	List(ctx context.Context, bucket, after string, limit int) (Snapshot, error)
	// Txn does all of t or none of it, and returns its revision.
	Txn(ctx context.Context, t Txn) (uint64, error)
	// Watch yields the changes of bucket after revision from, until ctx ends or the consumer stops.
	Watch(ctx context.Context, bucket string, from uint64) iter.Seq2[Event, error]
}

// Check refuses what no engine should have to take: keys out of bounds, values too big, a key written twice.
func (t Txn) Check() error {
	if len(t.Do) > MaxOps {
		return fmt.Errorf("%w: %d writes, at most %d are allowed", ErrBadTxn, len(t.Do), MaxOps)
	}
	for _, c := range t.If {
		if err := c.Key.Check(); err != nil {
			return err
		}
	}
	seen := make(map[Key]bool, len(t.Do))
	for _, op := range t.Do {
		if err := op.Key.Check(); err != nil {
			return err
		}
		switch {
		case seen[op.Key]:
			return fmt.Errorf("%w: %s %q is written twice", ErrBadTxn, op.Key.Bucket, op.Key.Name)
		case len(op.Value) > MaxValueBytes:
			return fmt.Errorf("%w: value of %s %q has %d bytes, at most %d are allowed", ErrBadTxn, op.Key.Bucket, op.Key.Name, len(op.Value), MaxValueBytes)
		}
		seen[op.Key] = true
	}
	return nil
}

// Check refuses a key that no engine should have to take.
func (k Key) Check() error {
	notLower := func(r rune) bool { return r < 'a' || r > 'z' }
	switch {
	case k.Bucket == "" || len(k.Bucket) > MaxBucketBytes || strings.ContainsFunc(k.Bucket, notLower):
		return fmt.Errorf("%w: bucket %q is not 1 to %d letters a to z", ErrBadTxn, k.Bucket, MaxBucketBytes)
	case k.Name == "" || len(k.Name) > MaxNameBytes:
		return fmt.Errorf("%w: a name in %s has %d bytes, 1 to %d are allowed", ErrBadTxn, k.Bucket, len(k.Name), MaxNameBytes)
	}
	return nil
}
