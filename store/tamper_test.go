package store_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

// victim is a store with credentials "a" and "b", each with a token, and OAuth clients "a" and "b".
func victim(t *testing.T) (*place, *store.Store, tokenbroker.Credential) {
	t.Helper()
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	b := create(t, s, "b")
	for _, made := range []tokenbroker.Credential{c, b} {
		commit(t, s, outcome(made, 1, "", "at-"+made.Name, "rt-2"))
		if _, err := s.PutClient(t.Context(), client(made.Name), 0); err != nil {
			t.Fatal(err)
		}
	}
	return p, s, c
}

// records are the keys of everything that is kept for a name.
func records(t *testing.T, e store.Engine, name string) []store.Key {
	t.Helper()
	var keys []store.Key
	for _, bucket := range []string{"index", "credential", "grant", "token", "client", "clientindex"} {
		snap, err := e.List(t.Context(), bucket, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range snap.Entries {
			if owner, _, _ := strings.Cut(entry.Key.Name, "!"); owner == name {
				keys = append(keys, entry.Key)
			}
		}
	}
	if len(keys) != 6 {
		t.Fatalf("records of %s: got %v, want 6", name, keys)
	}
	return keys
}

// readAll reads everything of a name and returns the first error, of which it wants to know whose record it is.
func readAll(t *testing.T, s *store.Store, name, uid string) error {
	t.Helper()
	_, _, loadErr := s.Load(t.Context(), name)
	_, _, tokenErr := s.Token(t.Context(), name, uid, tokenbroker.Variant{}.Key())
	_, clientErr := s.Client(t.Context(), name)
	for _, err := range []error{loadErr, tokenErr, clientErr} {
		if err != nil {
			return err
		}
	}
	return nil
}

func wantTampered(t *testing.T, what string, err error, k store.Key) {
	t.Helper()
	if !errors.Is(err, tokenbroker.ErrTampered) {
		t.Errorf("%s: got %v, want ErrTampered", what, err)
		return
	}
	if owner, _, _ := strings.Cut(k.Name, "!"); !strings.Contains(err.Error(), k.Bucket) || !strings.Contains(err.Error(), `"`+owner+`"`) {
		t.Errorf("%s: got %v, want %s and %q in it", what, err, k.Bucket, owner)
	}
}

func TestEveryFlippedByteOfEveryRecordIsNoticed(t *testing.T) {
	p, s, c := victim(t)
	for _, k := range records(t, p.engine, "a") {
		good := raw(t, p.engine, k).Value
		for i := range good {
			rewrite(t, p.engine, k, func([]byte) []byte {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 8)
				return bad
			})
			if err := readAll(t, s, "a", c.UID); !errors.Is(err, tokenbroker.ErrTampered) {
				t.Fatalf("%s, byte %d of %d: got %v, want ErrTampered", k.Bucket, i, len(good), err)
			}
		}
		rewrite(t, p.engine, k, func([]byte) []byte { return good[:len(good)/2] })
		wantTampered(t, k.Bucket+" cut in half", readAll(t, s, "a", c.UID), store.Key{Bucket: k.Bucket, Name: k.Name})
		rewrite(t, p.engine, k, func([]byte) []byte { return good })
		if err := readAll(t, s, "a", c.UID); err != nil {
			t.Fatalf("%s put back: %v", k.Bucket, err)
		}
	}
}

func TestSwappedRecordsAreNoticedAndTheOthersLoad(t *testing.T) {
	p, s, c := victim(t)
	b, _ := load(t, s, "b")
	as, bs := records(t, p.engine, "a"), records(t, p.engine, "b")
	for i, k := range as {
		good := raw(t, p.engine, k).Value
		other := raw(t, p.engine, bs[i]).Value
		rewrite(t, p.engine, k, func([]byte) []byte { return other })
		wantTampered(t, k.Bucket+" of b in a's place", readAll(t, s, "a", c.UID), k)
		if err := readAll(t, s, "b", b.UID); err != nil {
			t.Errorf("%s: b got %v, want it untouched", k.Bucket, err)
		}
		rewrite(t, p.engine, k, func([]byte) []byte { return good })
	}
}

func TestOlderRecordsAreNoticed(t *testing.T) {
	p, s, c := victim(t)
	keys := records(t, p.engine, "a")
	old := map[store.Key][]byte{}
	for _, k := range keys {
		old[k] = raw(t, p.engine, k).Value
	}
	commit(t, s, outcome(c, 2, "", "at-newer", "rt-3"))
	if _, err := s.UpdateCredential(t.Context(), c, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutClient(t.Context(), client("a"), 1); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		good := raw(t, p.engine, k).Value
		rewrite(t, p.engine, k, func([]byte) []byte { return old[k] })
		if err := readAll(t, s, "a", c.UID); !errors.Is(err, tokenbroker.ErrTampered) {
			t.Errorf("older %s: got %v, want ErrTampered", k.Bucket, err)
		}
		rewrite(t, p.engine, k, func([]byte) []byte { return good })
	}
	if err := readAll(t, s, "a", c.UID); err != nil {
		t.Errorf("all put back: %v", err)
	}
}

func TestARecordOfAnEarlierCredentialOfTheNameIsNoticed(t *testing.T) {
	p, s, _ := victim(t)
	k := store.Key{Bucket: "grant", Name: "a"}
	old := raw(t, p.engine, k).Value
	if err := s.DeleteCredential(t.Context(), "a", 0); err != nil {
		t.Fatal(err)
	}
	create(t, s, "a")
	rewrite(t, p.engine, k, func([]byte) []byte { return old })
	_, _, err := s.Load(t.Context(), "a")
	wantTampered(t, "grant of the deleted credential", err, k)
}

func TestMissingRecordsAreNoticed(t *testing.T) {
	for i := range 6 {
		p, s, c := victim(t)
		k := records(t, p.engine, "a")[i]
		drop(t, p.engine, k)
		wantTampered(t, "without "+k.Bucket, readAll(t, s, "a", c.UID), k)
	}
}

func TestListsShowTheOthersBesideATamperedRecord(t *testing.T) {
	p, s, _ := victim(t)
	create(t, s, "c")
	for _, bucket := range []string{"credential", "client", "index"} {
		rewrite(t, p.engine, store.Key{Bucket: bucket, Name: "a"}, func(b []byte) []byte { return append(b, 0) })
		if bucket == "client" {
			cs, err := s.Clients(t.Context(), "", 10)
			wantTampered(t, "clients", err, store.Key{Bucket: bucket, Name: "a"})
			if len(cs) != 1 || cs[0].Name != "b" {
				t.Errorf("clients: got %v, want b", cs)
			}
			continue
		}
		cs, err := s.Credentials(t.Context(), "", 2)
		wantTampered(t, "credentials", err, store.Key{Bucket: bucket, Name: "a"})
		if len(cs) != 2 || cs[0].Name != "b" || cs[1].Name != "c" {
			t.Errorf("credentials: got %v, want b and c", cs)
		}
	}
	var names []string
	for sum, err := range s.Summaries(t.Context()) {
		names = append(names, sum.Name)
		if (err != nil) != (sum.Name == "a") {
			t.Errorf("summary of %s: got %v, want an error for a alone", sum.Name, err)
		}
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("summaries: got %q, want all three", names)
	}
}

func TestAResultForATamperedGrantIsKeptApart(t *testing.T) {
	p, s, c := victim(t)
	rewrite(t, p.engine, store.Key{Bucket: "grant", Name: "a"}, func(b []byte) []byte { return b[1:] })
	_, _, err := s.Commit(t.Context(), outcome(c, 2, "", "at-late", "rt-late"))
	wantTampered(t, "commit", err, store.Key{Bucket: "grant", Name: "a"})
	if kept := orphans(t, s); len(kept) != 1 || kept[0].Outcome.RefreshToken.Reveal() != "rt-late" {
		t.Errorf("orphans: got %v, want rt-late", kept)
	}
	if err := s.DeleteCredential(t.Context(), "a", 1); err != nil {
		t.Errorf("delete of a known version: %v", err)
	}
}

func TestATamperedCredentialCanBeDeletedAndMadeAgain(t *testing.T) {
	p, s, c := victim(t)
	for _, k := range records(t, p.engine, "a") {
		rewrite(t, p.engine, k, func(b []byte) []byte { return b[:5] })
	}
	err := s.DeleteCredential(t.Context(), "a", c.Version)
	wantTampered(t, "delete of a version", err, store.Key{Bucket: "index", Name: "a"})
	if err := errors.Join(s.DeleteCredential(t.Context(), "a", 0), s.DeleteClient(t.Context(), "a", 0)); err != nil {
		t.Fatal(err)
	}
	create(t, s, "a")
}

func TestATamperedOrphanDoesNotHideTheOthers(t *testing.T) {
	p, s, c := victim(t)
	for range 3 {
		if _, _, err := s.Commit(t.Context(), outcome(c, 1, "", "at", "rt")); !errors.Is(err, tokenbroker.ErrSuperseded) {
			t.Fatal(err)
		}
	}
	snap, err := p.engine.List(t.Context(), "orphan", "", 10)
	if err != nil || len(snap.Entries) != 3 {
		t.Fatalf("orphans: got %d, %v, want 3", len(snap.Entries), err)
	}
	rewrite(t, p.engine, snap.Entries[1].Key, func(b []byte) []byte { return nil })
	bad, good := 0, 0
	for o, err := range s.Orphans(t.Context()) {
		if err == nil {
			good++
			continue
		}
		bad++
		wantTampered(t, "orphan", err, snap.Entries[1].Key)
		if o.Outcome.Credential != "a" || o.ID == "" {
			t.Errorf("tampered orphan: got %+v, want its credential and ID", o)
		}
	}
	if bad != 1 || good != 2 {
		t.Errorf("orphans: got %d bad and %d good, want 1 and 2", bad, good)
	}
}
