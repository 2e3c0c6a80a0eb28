package store_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func TestAuditKeysOutliveARestartSealed(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if got, err := s.AuditKeys(t.Context()); got != nil || err != nil {
		t.Errorf("got %d keys, %v of a new store", len(got), err)
	}
	keys := [][]byte{[]byte("the first of the keys"), []byte("the second of the keys")}
	for n := range keys {
		if err := s.PutAuditKeys(t.Context(), keys[:n+1]); err != nil {
			t.Fatal(err)
		}
	}
	p.stop(t)
	s = p.open(t)
	if got, err := s.AuditKeys(t.Context()); err != nil || !slices.EqualFunc(got, keys, bytes.Equal) {
		t.Errorf("got %d keys, %v, want both", len(got), err)
	}
	snap, err := p.engine.Read(t.Context(), store.Key{Bucket: "audit", Name: "keys"})
	if err != nil || bytes.Contains(snap.Entries[0].Value, keys[0]) || bytes.Contains(snap.Entries[0].Value, []byte("keys")) {
		t.Errorf("the keys are there to be read (%v)", err)
	}
}

func TestAuditKeysThatWereTouchedDoNotOpenAndCanBeReplaced(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if err := s.PutAuditKeys(t.Context(), [][]byte{{1}}); err != nil {
		t.Fatal(err)
	}
	op := store.Op{Key: store.Key{Bucket: "audit", Name: "keys"}, Value: []byte("touched")}
	if _, err := p.engine.Txn(t.Context(), store.Txn{Do: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.AuditKeys(t.Context()); got != nil || !errors.Is(err, tokenbroker.ErrTampered) {
		t.Errorf("got %d keys, %v, want ErrTampered", len(got), err)
	}
	if err := s.PutAuditKeys(t.Context(), [][]byte{{2}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.AuditKeys(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("got %d keys, %v, want what was put over it", len(got), err)
	}
}

func TestAuditKeysSayWhenTheEngineFails(t *testing.T) {
	p := newPlace(t)
	broken := &faulty{Engine: p.start(t)}
	s := openOn(t, broken, p.kek)
	broken.before = func(store.Txn) error { return errors.New("disk full") }
	if err := s.PutAuditKeys(t.Context(), nil); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("write: got %v, want ErrStoreUnavailable", err)
	}
	if err := p.engine.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AuditKeys(t.Context()); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("read: got %v, want ErrStoreUnavailable", err)
	}
}
