package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
)

// Buckets; see the package comment.
const (
	bucketMeta        = "meta"
	bucketIndex       = "index"
	bucketCredential  = "credential"
	bucketGrant       = "grant"
	bucketToken       = "token"
	bucketOrphan      = "orphan"
	bucketClientIndex = "clientindex"
	bucketClient      = "client"
	bucketConsent     = "consent"
	bucketMetadata    = "metadata"
	bucketUsage       = "usage"
	bucketAudit       = "audit"
)

const (
	maxTries = 32   // of a transaction that another process's writes keep refuting
	pageSize = 1000 // entries read at a time
)

// Options are the choices of Open.
type Options struct {
	// KEK opens the store's keys. Required.
	KEK keyring.KEK
	// Exercise says when a grant's refresh token should next be used to keep it alive, for Summary.Exercise; it has what
	// the store does not: what is known of the provider. nil = half-way to Grant.RefreshEnd, never where that is unknown.
	Exercise func(provider string, g tokenbroker.Grant) time.Time
}

// Store is the typed, sealed store. Its methods may be called from many goroutines at once; ctx governs the call. Besides
// the errors that each names, they return errors that wrap tokenbroker.ErrStoreUnavailable if the engine fails.
type Store struct {
	engine   Engine
	sealer   sealer
	numbers  *numbers
	lanes    lanes
	exercise func(string, tokenbroker.Grant) time.Time
	boot     uint64
}

// Boot returns how often this store was opened, this time included. It is durable, so no two runs share a number.
func (s *Store) Boot() uint64 { return s.boot }

// Prove writes something tiny, durably: nil means that the store can be written.
func (s *Store) Prove(ctx context.Context) error {
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	d.put(Key{bucketMeta, "probe"}, &probeRecord{current(), time.Now().UTC()})
	return s.write(ctx, d)
}

// draft collects a transaction whose records share one record number.
type draft struct {
	sealer *sealer
	number uint64
	txn    Txn
	err    error
}

// draft begins a transaction with a number above floor, the highest number of the records that it follows from.
func (s *Store) draft(ctx context.Context, floor uint64) (*draft, error) {
	n, err := s.numbers.next(ctx, floor)
	if err != nil {
		return nil, err
	}
	return &draft{sealer: &s.sealer, number: n}, nil
}

func (d *draft) put(k Key, p payload) {
	plain, err := encode(p)
	if err != nil {
		d.err = errors.Join(d.err, fmt.Errorf("encode %s record of %q: %w", k.Bucket, owner(k), err))
		return
	}
	sealed, err := d.sealer.seal(k, d.number, plain)
	d.err = errors.Join(d.err, err)
	d.txn.Do = append(d.txn.Do, Op{Key: k, Value: sealed})
}

func (d *draft) delete(k Key) { d.txn.Do = append(d.txn.Do, Op{Key: k, Delete: true}) }

// expect makes the transaction fail unless the keys are still as they were read.
func (d *draft) expect(entries ...Entry) {
	for _, e := range entries {
		d.txn.If = append(d.txn.If, Compare{Key: e.Key, Rev: e.Rev})
	}
}

func (s *Store) write(ctx context.Context, d *draft) error {
	if d.err != nil {
		return d.err
	}
	_, err := s.engine.Txn(ctx, d.txn)
	return unavailable("write", err)
}

// read opens one record of a snapshot into p; number 0 = whichever writing is there.
func (s *Store) open(e Entry, number uint64, p payload) (written uint64, err error) {
	plain, written, err := s.sealer.open(e, number)
	if err != nil {
		return 0, err
	}
	if err := decode(plain, p); err != nil {
		return 0, tampered(e.Key, err.Error())
	}
	return written, nil
}

func (s *Store) read(ctx context.Context, keys ...Key) ([]Entry, error) {
	snap, err := s.engine.Read(ctx, keys...)
	return snap.Entries, unavailable("read", err)
}

func (s *Store) list(ctx context.Context, bucket, after string, limit int) ([]Entry, error) {
	snap, err := s.engine.List(ctx, bucket, after, limit)
	return snap.Entries, unavailable("list "+bucket, err)
}

// unavailable marks what is the engine's failure, not the caller's nor a lost race.
func unavailable(what string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrConflict):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrBadTxn):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", tokenbroker.ErrStoreUnavailable, what, err)
}

// retry runs fn until it meets no conflict. Within a process the lanes keep writers of one name apart, so that it takes
// writers of other processes to make a conflict.
func retry(ctx context.Context, what string, fn func() error) error {
	var err error
	for range maxTries {
		if err = fn(); !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%w: %s: gave up after %d tries: %w", tokenbroker.ErrStoreUnavailable, what, maxTries, err)
}

// newUID returns 128 random bits.
func newUID() string { return rand.Text() }
