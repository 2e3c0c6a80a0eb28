package bolt

import (
	"context"
	"slices"
	"sync"

	"github.com/tokenbroker/tokenbroker/store"
)

const (
	historyEvents = 4096
	historyBytes  = 16 << 20
	watchBatch    = 256 // events that one step of a watcher takes along
)

// history is the newest changes, shared by all watchers: a slow one costs nothing, it only falls off the end.
type history struct {
	mu     sync.Mutex
	events []store.Event // by revision; a revision's events are all here or none
	bytes  int           // of their values
	first  uint64        // changes after this revision are here
	last   uint64        // newest revision
	wake   chan struct{} // closed and replaced when something is added
	err    error         // set once nothing will be added any more
}

// start begins at the revision that the file is at: what came before is not known.
func (h *history) start(rev uint64) {
	h.first, h.last, h.wake = rev, rev, make(chan struct{})
}

// add takes the events of one group of transactions, in order, and the newest revision of the group.
func (h *history) add(events []store.Event, rev uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range events {
		h.bytes += len(ev.Value)
	}
	h.events = append(h.events, events...)
	h.last = rev
	h.trim()
	h.notify()
}

// restart forgets everything when a commit whose outcome was unknown turns out to be in the file: nobody saw its events
// as durable, so watchers have to list again.
func (h *history) restart(rev uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev != h.last {
		h.events, h.bytes, h.first, h.last = nil, 0, rev, rev
		h.notify()
	}
}

// trim drops whole revisions from the front until the rest fits. The newest one always stays.
func (h *history) trim() {
	n := 0
	for len(h.events)-n > historyEvents || h.bytes > historyBytes {
		rev := h.events[n].Rev
		if rev == h.events[len(h.events)-1].Rev {
			break
		}
		for ; n < len(h.events) && h.events[n].Rev == rev; n++ {
			h.bytes -= len(h.events[n].Value)
		}
		h.first = rev
	}
	h.events = slices.Delete(h.events, 0, n)
}

func (h *history) notify() {
	close(h.wake)
	h.wake = make(chan struct{})
}

// end makes every watch return err once it has yielded what there is.
func (h *history) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	h.notify()
}

// after waits for changes of bucket after revision from. It returns them and the revision to go on from.
func (h *history) after(ctx context.Context, bucket string, from uint64) ([]store.Event, uint64, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		events, next, wake, err := h.take(bucket, from)
		if len(events) > 0 || err != nil {
			return events, next, err
		}
		from = next
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// take returns what is there now. It never splits a revision.
func (h *history) take(bucket string, from uint64) (events []store.Event, next uint64, wake <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if from < h.first || from > h.last {
		return nil, 0, nil, store.ErrCompacted
	}
	i, _ := slices.BinarySearchFunc(h.events, from+1, func(e store.Event, rev uint64) int {
		if e.Rev < rev {
			return -1
		}
		return 1
	})
	next = h.last
	for ; i < len(h.events); i++ {
		if len(events) >= watchBatch && h.events[i].Rev != next {
			return events, next, h.wake, nil
		}
		next = h.events[i].Rev
		if h.events[i].Key.Bucket == bucket {
			events = append(events, h.events[i])
		}
	}
	if len(events) > 0 {
		return events, h.last, h.wake, nil
	}
	return nil, h.last, h.wake, h.err
}
