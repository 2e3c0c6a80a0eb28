package store_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func usageOf(t *testing.T, s *store.Store) (map[string]string, error) {
	t.Helper()
	got := map[string]string{}
	err := s.Usage(t.Context(), func(name string, document []byte) { got[name] = string(document) })
	return got, err
}

func TestUsageOutlivesARestart(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	want := map[string]string{"!rules": "rules"}
	documents := map[string][]byte{"!rules": []byte("rules")}
	for i := range 200 { // more than one transaction takes
		name := fmt.Sprint("acme/", i)
		want[name], documents[name] = "users of "+name, []byte("users of "+name)
	}
	if err := s.PutUsage(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
	delete(want, "acme/7")
	want["acme/8"] = "others"
	if err := s.PutUsage(t.Context(), map[string][]byte{"acme/7": nil, "acme/8": []byte("others"), "never/there": nil}); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	got, err := usageOf(t, p.open(t))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v (-want +got)\n%s", err, cmp.Diff(want, got))
	}
}

func TestUsageOfAnotherCredentialDoesNotOpen(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if err := s.PutUsage(t.Context(), map[string][]byte{"a": []byte("who used a"), "b": []byte("who used b")}); err != nil {
		t.Fatal(err)
	}
	a, err := p.engine.Read(t.Context(), store.Key{Bucket: "usage", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.engine.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "usage", Name: "b"}, Value: a.Entries[0].Value}}}); err != nil {
		t.Fatal(err)
	}
	got, err := usageOf(t, s)
	if !errors.Is(err, tokenbroker.ErrTampered) || !maps.Equal(got, map[string]string{"a": "who used a"}) {
		t.Errorf("got %v, %v, want that of a and ErrTampered", got, err)
	}
}

func TestUsageSaysWhenTheEngineFails(t *testing.T) {
	p := newPlace(t)
	broken := &faulty{Engine: p.start(t)}
	s := openOn(t, broken, p.kek)
	broken.before = func(store.Txn) error { return errors.New("disk full") }
	if err := s.PutUsage(t.Context(), map[string][]byte{"a": []byte("x")}); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
	if err := p.engine.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := usageOf(t, s); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
}

func TestWhatToDoWithExtraScopesIsKept(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := credential("acme/jobs")
	c.Extra = tokenbroker.ExtraScopesAllow
	made, err := s.CreateCredential(t.Context(), c, tokenbroker.Grant{})
	if err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	s = p.open(t)
	if got, _, err := s.Load(t.Context(), "acme/jobs"); err != nil || got.Extra != tokenbroker.ExtraScopesAllow {
		t.Errorf("got %q, %v, want it allowed", got.Extra, err)
	}
	made.Extra = tokenbroker.ExtraScopesJudge
	edited, err := s.UpdateCredential(t.Context(), made, made.Version)
	if err != nil || edited.Generation != made.Generation {
		t.Errorf("got %v and generation %d, want tokens of before to stay, generation %d", err, edited.Generation, made.Generation)
	}
	if got, _, err := s.Load(t.Context(), "acme/jobs"); err != nil || got.Extra != tokenbroker.ExtraScopesJudge {
		t.Errorf("got %q, %v, want it judged", got.Extra, err)
	}
}
