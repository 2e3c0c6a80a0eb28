package broker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// longestSleep bounds how late the schedule notices that the wall clock was set, or that the machine slept.
const longestSleep = time.Minute

// item is something to look at later. Each variant and each credential has one, so that the schedule never holds more than
// there is in memory.
type item struct {
	variant *variant // or
	entry   *entry   // a credential none of whose variants may be in memory, or neither: the secrets of OAuth clients

	// Guarded by the schedule's lock.
	at     time.Time
	index  int // in the heap
	listed bool
}

// schedule is one heap and one timer for everything that is to happen later.
type schedule struct {
	poke chan struct{}

	mu    sync.Mutex
	items items
}

func newSchedule() *schedule { return &schedule{poke: make(chan struct{}, 1)} }

// set says when an item is due: in place of what was said before. The zero time takes it off.
func (s *schedule) set(it *item, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case at.IsZero() && it.listed:
		heap.Remove(&s.items, it.index)
		return
	case at.IsZero():
		return
	}
	it.at = at
	if it.listed {
		heap.Fix(&s.items, it.index)
	} else {
		heap.Push(&s.items, it)
	}
	if it.index == 0 {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

// run hands out items when they are due, until ctx ends. do must not block.
func (s *schedule) run(ctx context.Context, do func(*item)) {
	timer := time.NewTimer(longestSleep)
	defer timer.Stop()
	for ctx.Err() == nil {
		it, wait := s.next(time.Now())
		if it != nil {
			do(it)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.poke:
		}
	}
}

// next takes the first item if it is due, else it says how long to wait.
func (s *schedule) next(now time.Time) (*item, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) == 0 {
		return nil, longestSleep
	}
	if wait := s.items[0].at.Sub(now); wait > 0 {
		return nil, min(wait, longestSleep)
	}
	return heap.Pop(&s.items).(*item), 0
}

// items implements heap.Interface.
type items []*item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h items) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *items) Push(x any) {
	it := x.(*item)
	it.index, it.listed = len(*h), true
	*h = append(*h, it)
}

func (h *items) Pop() any {
	old := *h
	it := old[len(old)-1]
	it.listed = false
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}
