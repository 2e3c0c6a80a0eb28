package bolt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/tokenbroker/tokenbroker/store"
)

func change(rev uint64) store.Event {
	return store.Event{Key: store.Key{Bucket: "test", Name: fmt.Sprint(rev)}, Rev: rev}
}

// TestACommitThatLandedAfterAllMakesWatchersListAgain is about a commit whose sync failed and whose pages were found in the file all
// the same: nobody was told of its changes, so a watcher that went on would miss them. No disk fails on demand, hence from inside.
func TestACommitThatLandedAfterAllMakesWatchersListAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h history
		h.start(5)
		h.add([]store.Event{change(6)}, 6)
		waiting := make(chan error, 1)
		go func() {
			_, _, err := h.after(t.Context(), "test", 6)
			waiting <- err
		}()
		synctest.Wait()
		h.restart(7)
		if err := <-waiting; !errors.Is(err, store.ErrCompacted) {
			t.Errorf("who waited for 7: got %v, want ErrCompacted", err)
		}
		for _, from := range []uint64{5, 6} {
			if _, _, err := h.after(t.Context(), "test", from); !errors.Is(err, store.ErrCompacted) {
				t.Errorf("from %d: got %v, want ErrCompacted", from, err)
			}
		}
		h.add([]store.Event{change(8)}, 8)
		if events, next, err := h.after(t.Context(), "test", 7); err != nil || next != 8 || len(events) != 1 || events[0].Rev != 8 {
			t.Errorf("from 7: got %v, next %d, %v, want the change of 8", events, next, err)
		}
	})
}

func TestACommitThatDidNotLandDisturbsNoWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h history
		h.start(5)
		h.add([]store.Event{change(6)}, 6)
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error, 1)
		go func() {
			_, _, err := h.after(ctx, "test", 6)
			waiting <- err
		}()
		h.restart(6)
		synctest.Wait()
		if events, _, err := h.after(t.Context(), "test", 5); err != nil || len(events) != 1 {
			t.Errorf("from 5: got %v, %v, want the change of 6 kept", events, err)
		}
		cancel()
		h.add(nil, 7) // a change of other buckets wakes it, and it finds that it may go
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("who waited: got %v, want that it waited until it was told to go", err)
		}
	})
}

func TestTheHistoryKeepsWholeRevisions(t *testing.T) {
	var h history
	h.start(0)
	var big []store.Event
	for range historyEvents + 10 {
		big = append(big, change(1))
	}
	h.add(big, 1) // more than is kept, and the newest: it stays whole
	if events, next, err := h.after(t.Context(), "test", 0); err != nil || len(events) != len(big) || next != 1 {
		t.Errorf("got %d events, next %d, %v, want all %d of revision 1", len(events), next, err, len(big))
	}
	h.add([]store.Event{change(2)}, 2)
	if _, _, err := h.after(t.Context(), "test", 0); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("from 0: got %v, want ErrCompacted, as revision 1 is gone as a whole", err)
	}
	if events, _, err := h.after(t.Context(), "test", 1); err != nil || len(events) != 1 {
		t.Errorf("from 1: got %v, %v, want revision 2", events, err)
	}
	for rev := uint64(3); rev < 3+2*watchBatch; rev++ {
		h.add([]store.Event{change(rev), {Key: store.Key{Bucket: "other", Name: "x"}, Rev: rev}}, rev)
	}
	seen := uint64(1)
	for seen < h.last {
		events, next, err := h.after(t.Context(), "test", seen)
		if err != nil || next <= seen || len(events) > watchBatch {
			t.Fatalf("from %d: got %d events, next %d, %v", seen, len(events), next, err)
		}
		for _, e := range events {
			if seen++; e.Rev != seen {
				t.Fatalf("got revision %d, want %d", e.Rev, seen)
			}
		}
	}
}
