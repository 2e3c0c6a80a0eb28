package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
)

// Schema is the version of the records and buckets that this program reads and writes.
const Schema = 1

// What Open refuses, besides keyring.ErrWrongKey and keyring.ErrDamaged. It has written nothing then.
var (
	ErrNewerSchema = errors.New("the store is of a newer version")
	ErrDamaged     = errors.New("the store is damaged")
)

// head is in the clear, so that a program that can't open the store can say why.
type head struct {
	Schema  uint64 `json:"schema"`
	StoreID string `json:"store_id"`
}

var (
	headKey    = Key{bucketMeta, "head"}
	keysetKey  = Key{bucketMeta, "keyset"}
	numbersKey = Key{bucketMeta, "numbers"}
)

// Open opens the store in e, or begins one if e is empty, and counts the boot. The caller keeps e, and closes it after the
// last use of the store. Until schema and keys are found right, nothing is written.
func Open(ctx context.Context, e Engine, o Options) (*Store, error) {
	if o.KEK == nil {
		return nil, errors.New("open store: no key encryption key: configure the key file of this store")
	}
	s := &Store{engine: e, exercise: o.Exercise}
	if s.exercise == nil {
		s.exercise = halfway
	}
	err := retry(ctx, "open store", func() error { return s.start(ctx, o.KEK) })
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context, kek keyring.KEK) error {
	entries, err := s.read(ctx, headKey, keysetKey, numbersKey)
	if err != nil {
		return err
	}
	if entries[0].Rev == 0 {
		return s.create(ctx, kek, entries)
	}
	h, err := readHead(entries[0].Value)
	if err != nil {
		return err
	}
	if entries[1].Rev == 0 {
		return fmt.Errorf("%w: its keys are missing: restore it from a backup", ErrDamaged)
	}
	ring, err := keyring.Unwrap(ctx, kek, h.StoreID, entries[1].Value)
	if err != nil {
		return err
	}
	s.sealer = sealer{ring, h.StoreID}
	return s.countBoot(ctx, entries[2])
}

func readHead(b []byte) (head, error) {
	var h head
	switch err := json.Unmarshal(b, &h); {
	case err != nil || h.StoreID == "" || h.Schema == 0:
		return h, fmt.Errorf("%w: its head does not read: restore it from a backup", ErrDamaged)
	case h.Schema > Schema:
		return h, fmt.Errorf("%w: it has schema %d, this program knows %d: start the newer program, nothing was changed", ErrNewerSchema, h.Schema, Schema)
	}
	return h, nil
}

// create begins a store in an engine that holds nothing at all. Records without a head mean that the head was lost; new
// keys would not open them.
func (s *Store) create(ctx context.Context, kek keyring.KEK, absent []Entry) error {
	for _, bucket := range []string{bucketMeta, bucketIndex, bucketCredential, bucketGrant, bucketToken, bucketOrphan, bucketClientIndex, bucketClient, bucketConsent, bucketMetadata, bucketUsage, bucketAudit} {
		entries, err := s.list(ctx, bucket, "", 1)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%w: it holds records but no head: restore it from a backup", ErrDamaged)
		}
	}
	h := head{Schema: Schema, StoreID: newUID()}
	ring, wrapped, err := keyring.Generate(ctx, kek, h.StoreID)
	if err != nil {
		return err
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	s.sealer = sealer{ring, h.StoreID}
	d := &draft{sealer: &s.sealer, number: 1}
	d.expect(absent...)
	d.txn.Do = []Op{{Key: headKey, Value: text}, {Key: keysetKey, Value: wrapped}}
	return s.begin(ctx, d, numbersRecord{version: current(), Boot: 1, Bound: 1})
}

// countBoot raises the boot count.
func (s *Store) countBoot(ctx context.Context, e Entry) error {
	var n numbersRecord
	written, err := s.open(e, 0, &n)
	if err != nil {
		return err
	}
	n.Boot++
	d := &draft{sealer: &s.sealer, number: written + 1}
	d.txn.Vital = true // who makes room in a full store has to open it first
	d.expect(e)
	return s.begin(ctx, d, n)
}

func (s *Store) begin(ctx context.Context, d *draft, n numbersRecord) error {
	d.put(numbersKey, &n)
	if err := s.write(ctx, d); err != nil {
		return err
	}
	s.boot, s.numbers = n.Boot, newNumbers(s)
	return nil
}

// halfway is when to use a refresh token if nothing is known but its end.
func halfway(_ string, g tokenbroker.Grant) time.Time {
	if g.RefreshEnd.IsZero() {
		return time.Time{}
	}
	return g.Exercised.Add(g.RefreshEnd.Sub(g.Exercised) / 2)
}
