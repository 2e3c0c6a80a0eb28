package store_test

import (
	"errors"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func TestMetadataOutlivesARestart(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if got, err := s.Metadata(t.Context(), "acme"); got != nil || err != nil {
		t.Errorf("got %q, %v of a provider that nothing is known of", got, err)
	}
	for _, document := range []string{"the first", "the second"} {
		if err := s.PutMetadata(t.Context(), "acme", []byte(document)); err != nil {
			t.Fatal(err)
		}
	}
	p.stop(t)
	s = p.open(t)
	if got, err := s.Metadata(t.Context(), "acme"); string(got) != "the second" || err != nil {
		t.Errorf("got %q, %v, want the second", got, err)
	}
	if got, err := s.Metadata(t.Context(), "other"); got != nil || err != nil {
		t.Errorf("got %q, %v of another provider", got, err)
	}
}

func TestMetadataOfAnotherProviderDoesNotOpen(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if err := s.PutMetadata(t.Context(), "evil", []byte("secrets to me")); err != nil {
		t.Fatal(err)
	}
	evil, err := p.engine.Read(t.Context(), store.Key{Bucket: "metadata", Name: "evil"})
	if err != nil {
		t.Fatal(err)
	}
	moved := store.Op{Key: store.Key{Bucket: "metadata", Name: "acme"}, Value: evil.Entries[0].Value}
	if _, err := p.engine.Txn(t.Context(), store.Txn{Do: []store.Op{moved}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Metadata(t.Context(), "acme"); got != nil || !errors.Is(err, tokenbroker.ErrTampered) {
		t.Errorf("got %q, %v, want ErrTampered", got, err)
	}
	if err := s.PutMetadata(t.Context(), "acme", []byte("mended")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Metadata(t.Context(), "acme"); string(got) != "mended" || err != nil {
		t.Errorf("got %q, %v, want what was put over it", got, err)
	}
}

func TestMetadataSaysWhenTheEngineFails(t *testing.T) {
	p := newPlace(t)
	broken := &faulty{Engine: p.start(t)}
	s := openOn(t, broken, p.kek)
	broken.before = func(store.Txn) error { return errors.New("disk full") }
	if err := s.PutMetadata(t.Context(), "acme", []byte("x")); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
	if err := p.engine.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Metadata(t.Context(), "acme"); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
}
