// Package storetest is what every store.Engine must pass: the contract of the interface, as tests. It opens real engines
// on real folders, closes them and opens them again; it never looks inside.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/store"
)

// Engine is an engine that can be closed.
type Engine interface {
	store.Engine
	Close() error
}

// Open opens the engine whose data are in dir. The suite calls it again for the same dir after a Close, and expects the data.
type Open func(t *testing.T, dir string) Engine

// Run runs the suite. Each test gets a fresh folder.
func Run(t *testing.T, open Open) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"absent keys have revision 0", absent},
		{"a compare on an old revision writes nothing", compareAndSwap},
		{"of many writers on one revision one wins", race},
		{"several writes happen together or not at all", atomic},
		{"reads see one moment", snapshots},
		{"lists are in order and paged", lists},
		{"a name is not the name it begins with", prefixes},
		{"bad transactions are refused", refusals},
		{"slices are not shared", slicesApart},
		{"a cancelled call writes nothing", cancelled},
		{"data and revisions survive a restart", reopen},
		{"a closed engine says so", closed},
		{"a watch misses nothing under concurrent writers", watchGapless},
		{"a watch tells deletes and keeps transactions in order", watchOrder},
		{"a watch ends with its context", watchCancel},
		{"a watch of the past says to list again", watchCompacted},
		{"a watch ends when the engine closes", watchClosed},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open) })
	}
}

func fresh(t *testing.T, open Open) Engine {
	t.Helper()
	e := open(t, t.TempDir())
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func key(name string) store.Key { return store.Key{Bucket: "test", Name: name} }

func put(name, value string) store.Op { return store.Op{Key: key(name), Value: []byte(value)} }

func write(t *testing.T, e store.Engine, ops ...store.Op) uint64 {
	t.Helper()
	rev, err := e.Txn(t.Context(), store.Txn{Do: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func read(t *testing.T, e store.Engine, name string) store.Entry {
	t.Helper()
	s, err := e.Read(t.Context(), key(name))
	if err != nil {
		t.Fatal(err)
	}
	return s.Entries[0]
}

func absent(t *testing.T, open Open) {
	e := fresh(t, open)
	if got := read(t, e, "nothing"); got.Rev != 0 || got.Value != nil || got.Key != key("nothing") {
		t.Errorf("absent key: got %+v, want revision 0 and no value", got)
	}
	write(t, e, put("k", ""))
	if got := read(t, e, "k"); got.Rev == 0 || len(got.Value) != 0 {
		t.Errorf("empty value: got %+v, want a revision and no bytes", got)
	}
	write(t, e, store.Op{Key: key("k"), Delete: true})
	if got := read(t, e, "k"); got.Rev != 0 {
		t.Errorf("deleted key: got %+v, want revision 0", got)
	}
	write(t, e, store.Op{Key: key("k"), Delete: true}) // deleting the absent is no error
}

func compareAndSwap(t *testing.T, open Open) {
	e := fresh(t, open)
	first := write(t, e, put("k", "1"))
	second := write(t, e, put("k", "2"))
	if second <= first {
		t.Fatalf("revisions: got %d then %d, want them to rise", first, second)
	}
	for _, rev := range []uint64{0, first, second + 1} {
		_, err := e.Txn(t.Context(), store.Txn{If: []store.Compare{{Key: key("k"), Rev: rev}}, Do: []store.Op{put("k", "x"), put("l", "x")}})
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("compare with %d: got %v, want ErrConflict", rev, err)
		}
	}
	if got := read(t, e, "k"); string(got.Value) != "2" || got.Rev != second {
		t.Errorf("after conflicts: got %+v, want 2 at %d", got, second)
	}
	if got := read(t, e, "l"); got.Rev != 0 {
		t.Errorf("after conflicts: the other key got %+v, want it absent", got)
	}
	gone := store.Txn{If: []store.Compare{{Key: key("m"), Rev: first}}, Do: []store.Op{put("m", "x")}}
	if _, err := e.Txn(t.Context(), gone); !errors.Is(err, store.ErrConflict) {
		t.Errorf("compare of an absent key with %d: got %v, want ErrConflict", first, err)
	}
	rev, err := e.Txn(t.Context(), store.Txn{If: []store.Compare{{Key: key("k"), Rev: second}, {Key: key("m")}}})
	if err != nil || rev != second {
		t.Errorf("compares alone: got %d, %v, want revision %d", rev, err, second)
	}
}

func race(t *testing.T, open Open) {
	e := fresh(t, open)
	base := write(t, e, put("k", "0"))
	const writers = 32
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = e.Txn(t.Context(), store.Txn{If: []store.Compare{{Key: key("k"), Rev: base}}, Do: []store.Op{put("k", fmt.Sprint(i))}})
		})
	}
	wg.Wait()
	won := slices.Index(errs, nil)
	for i, err := range errs {
		if i != won && !errors.Is(err, store.ErrConflict) {
			t.Errorf("writer %d: got %v, want ErrConflict", i, err)
		}
	}
	if got := read(t, e, "k"); won < 0 || string(got.Value) != fmt.Sprint(won) {
		t.Errorf("value: got %q, want the one winner's, %d", got.Value, won)
	}
}

func atomic(t *testing.T, open Open) {
	e := fresh(t, open)
	rev := write(t, e, put("a", "1"), put("b", "1"), store.Op{Key: store.Key{Bucket: "other", Name: "a"}, Value: []byte("1")})
	s, err := e.Read(t.Context(), key("a"), key("b"), store.Key{Bucket: "other", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range s.Entries {
		if got.Rev != rev || string(got.Value) != "1" {
			t.Errorf("entry: got %+v, want 1 at %d", got, rev)
		}
	}
	if s.Rev != rev {
		t.Errorf("snapshot: got revision %d, want %d", s.Rev, rev)
	}
}

func snapshots(t *testing.T, open Open) {
	e := fresh(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = e.Txn(ctx, store.Txn{Do: []store.Op{put("a", fmt.Sprint(i)), put("b", fmt.Sprint(i))}})
		}
	})
	for range 200 {
		s, err := e.Read(t.Context(), key("a"), key("b"))
		if err != nil {
			t.Fatal(err)
		}
		if a, b := s.Entries[0], s.Entries[1]; string(a.Value) != string(b.Value) || a.Rev != b.Rev {
			t.Fatalf("one read saw %q at %d and %q at %d", a.Value, a.Rev, b.Value, b.Rev)
		}
	}
	cancel()
	wg.Wait()
}

func lists(t *testing.T, open Open) {
	e := fresh(t, open)
	want := []string{"a", "a!x", "a-b", "a/b", "b", "c\x00", "\xff"}
	for _, name := range []string{"b", "a/b", "\xff", "a", "c\x00", "a-b", "a!x"} {
		write(t, e, put(name, name))
	}
	write(t, e, store.Op{Key: store.Key{Bucket: "zother", Name: "a"}, Value: []byte("no")})
	for _, limit := range []int{1, 2, 3, 100} {
		var got []string
		for after := ""; ; {
			s, err := e.List(t.Context(), "test", after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range s.Entries {
				got = append(got, entry.Key.Name)
				if string(entry.Value) != entry.Key.Name || entry.Rev == 0 {
					t.Errorf("entry: got %+v, want its own name as value", entry)
				}
			}
			if len(s.Entries) < limit {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %q, want %q", limit, got, want)
		}
	}
	if s, err := e.List(t.Context(), "empty", "", 10); err != nil || len(s.Entries) != 0 {
		t.Errorf("empty bucket: got %v, %v, want nothing", s.Entries, err)
	}
}

func prefixes(t *testing.T, open Open) {
	e := fresh(t, open)
	write(t, e, put("ab", "1"))
	for _, name := range []string{"a", "abc"} {
		if got := read(t, e, name); got.Rev != 0 {
			t.Errorf("%q: got %+v, want it absent", name, got)
		}
	}
	s, err := e.List(t.Context(), "test", "a", 10)
	if err != nil || len(s.Entries) != 1 {
		t.Errorf("after a name that is absent: got %v, %v, want the next one", s.Entries, err)
	}
}

func refusals(t *testing.T, open Open) {
	e := fresh(t, open)
	for name, ops := range map[string][]store.Op{
		"no bucket":     {{Key: store.Key{Name: "a"}}},
		"odd bucket":    {{Key: store.Key{Bucket: "!x", Name: "a"}}},
		"no name":       {{Key: store.Key{Bucket: "test"}}},
		"written twice": {put("a", "1"), put("a", "2")},
		"value too big": {{Key: key("a"), Value: make([]byte, store.MaxValueBytes+1)}},
		"too many":      make([]store.Op, store.MaxOps+1),
	} {
		if _, err := e.Txn(t.Context(), store.Txn{Do: ops}); !errors.Is(err, store.ErrBadTxn) {
			t.Errorf("%s: got %v, want ErrBadTxn", name, err)
		}
	}
	if got := read(t, e, "a"); got.Rev != 0 {
		t.Errorf("after refusals: got %+v, want the key absent", got)
	}
}

func slicesApart(t *testing.T, open Open) {
	e := fresh(t, open)
	start := write(t, e, put("start", ""))
	want := strings.Repeat("value", 5000) // long enough for pages of its own
	value := []byte(want)
	write(t, e, store.Op{Key: key("k"), Value: value})
	copy(value, "XXXXX")
	for range 2 {
		got := read(t, e, "k").Value
		if string(got) != want {
			t.Fatalf("read: got %.10q, want %.10q", got, want)
		}
		copy(got, "YYYYY")
		s, err := e.List(t.Context(), "test", "", 1)
		if err != nil || len(s.Entries) != 1 || string(s.Entries[0].Value) != want {
			t.Fatalf("list: got %d entries, %v, want k alone", len(s.Entries), err)
		}
		copy(s.Entries[0].Value, "ZZZZZ")
		for ev := range e.Watch(t.Context(), "test", start) {
			if string(ev.Value) != want {
				t.Fatalf("watch: got %.10q, want %.10q", ev.Value, want)
			}
			copy(ev.Value, "WWWWW")
			break
		}
	}
}

func cancelled(t *testing.T, open Open) {
	e := fresh(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Txn(ctx, store.Txn{Do: []store.Op{put("k", "1")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("txn: got %v, want context.Canceled", err)
	}
	if _, err := e.Read(ctx, key("k")); !errors.Is(err, context.Canceled) {
		t.Errorf("read: got %v, want context.Canceled", err)
	}
	if _, err := e.List(ctx, "test", "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("list: got %v, want context.Canceled", err)
	}
	if got := read(t, e, "k"); got.Rev != 0 {
		t.Errorf("after a cancelled txn: got %+v, want the key absent", got)
	}
}

func reopen(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	write(t, e, put("k", "kept"), put("gone", "x"))
	rev := write(t, e, store.Op{Key: key("gone"), Delete: true})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	defer e.Close()
	if got := read(t, e, "k"); string(got.Value) != "kept" || got.Rev == 0 {
		t.Errorf("after a restart: got %+v, want kept", got)
	}
	if got := read(t, e, "gone"); got.Rev != 0 {
		t.Errorf("after a restart: got %+v, want it absent", got)
	}
	if got := write(t, e, put("k", "new")); got != rev+1 {
		t.Errorf("revision after a restart: got %d, want %d", got, rev+1)
	}
}

func closed(t *testing.T, open Open) {
	e := fresh(t, open)
	write(t, e, put("k", "1"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("second close: got %v, want nil", err)
	}
	if _, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{put("k", "2")}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("txn: got %v, want ErrClosed", err)
	}
	if _, err := e.Read(t.Context(), key("k")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("read: got %v, want ErrClosed", err)
	}
}

// soon bounds waits that only a broken engine makes long.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
