package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker/store"
)

func watchGapless(t *testing.T, open Open) {
	e := fresh(t, open)
	const writers, each = 8, 50
	start := write(t, e, put("start", ""))
	var wg sync.WaitGroup
	var want [writers * each]uint64 // revision of each write
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				n := w*each + i
				rev, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{put(fmt.Sprint(n), "v")}})
				if err != nil {
					t.Errorf("write %d: %v", n, err)
					return
				}
				want[n] = rev
			}
		})
	}
	got := map[string]uint64{}
	last := start
	for ev, err := range e.Watch(soon(t), "test", start) {
		if err != nil {
			t.Errorf("watch after %d events: %v", len(got), err)
			break
		}
		if ev.Rev <= last {
			t.Errorf("revision %d comes after %d", ev.Rev, last)
		}
		last = ev.Rev
		got[ev.Key.Name] = ev.Rev
		if len(got) == len(want) {
			break
		}
	}
	wg.Wait()
	for n, rev := range want {
		if got[fmt.Sprint(n)] != rev {
			t.Errorf("write %d: watched at revision %d, written at %d", n, got[fmt.Sprint(n)], rev)
		}
	}
}

func watchOrder(t *testing.T, open Open) {
	e := fresh(t, open)
	start := write(t, e, put("start", ""))
	one := write(t, e, put("b", "1"), put("a", "1"))
	write(t, e, store.Op{Key: store.Key{Bucket: "other", Name: "a"}, Value: []byte("not ours")})
	write(t, e, store.Op{Key: key("never"), Delete: true})
	two := write(t, e, store.Op{Key: key("b"), Delete: true})
	var got []string
	for ev, err := range e.Watch(soon(t), "test", start) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %q %t", ev.Rev, ev.Key.Name, ev.Value, ev.Delete))
		if len(got) == 3 {
			break
		}
	}
	slices.Sort(got[:2]) // within a transaction any order will do
	want := []string{fmt.Sprintf("%d a %q false", one, "1"), fmt.Sprintf("%d b %q false", one, "1"), fmt.Sprintf("%d b %q true", two, "")}
	if !slices.Equal(got, want) {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

// only returns the one pair that a watch yields when there is nothing to tell but an error.
func only(t *testing.T, watch iter.Seq2[store.Event, error]) error {
	t.Helper()
	n := 0
	var last error
	for ev, err := range watch {
		n++
		if last = err; err == nil {
			t.Errorf("event: got %+v, want none", ev)
		}
	}
	if n != 1 {
		t.Errorf("pairs: got %d, want 1", n)
	}
	return last
}

func watchCancel(t *testing.T, open Open) {
	e := fresh(t, open)
	rev := write(t, e, put("k", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { result <- only(t, e.Watch(ctx, "test", rev)) })
	cancel()
	wg.Wait()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error: got %v, want context.Canceled", err)
	}
}

func watchCompacted(t *testing.T, open Open) {
	e := fresh(t, open)
	rev := write(t, e, put("k", "1"))
	if err := only(t, e.Watch(soon(t), "test", rev+100)); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a revision to come: got %v, want ErrCompacted", err)
	}
}

func watchClosed(t *testing.T, open Open) {
	e := fresh(t, open)
	rev := write(t, e, put("k", "1"))
	result := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { result <- only(t, e.Watch(soon(t), "test", rev)) })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := <-result; !errors.Is(err, store.ErrClosed) {
		t.Errorf("error: got %v, want ErrClosed", err)
	}
}
