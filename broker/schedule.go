package broker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// item is something to look at: a variant, or a credential none of whose variants may be in memory.
type item struct {
	at      time.Time
	variant *variant
	entry   *entry
}

// schedule is one heap and one timer for everything that is to happen later.
type schedule struct {
	poke chan struct{}

	mu    sync.Mutex
	items items
}

func newSchedule() *schedule { return &schedule{poke: make(chan struct{}, 1)} }

// add puts an item on the schedule. An item that is there already is not moved: whoever handles it looks whether it is still
// due.
func (s *schedule) add(it item) {
	s.mu.Lock()
	heap.Push(&s.items, it)
	first := s.items[0].at.Equal(it.at)
	s.mu.Unlock()
	if first {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

// run hands out items when they are due, until ctx ends. do must not block.
func (s *schedule) run(ctx context.Context, do func(item)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		it, wait, ok := s.next(time.Now())
		if ok {
			do(it)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.poke:
		}
	}
}

// next takes the first item if it is due, else it says how long to wait.
func (s *schedule) next(now time.Time) (item, time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) == 0 {
		return item{}, time.Hour, false
	}
	if wait := s.items[0].at.Sub(now); wait > 0 {
		return item{}, min(wait, time.Hour), false // an hour at most: a wall clock that was set is noticed
	}
	return heap.Pop(&s.items).(item), 0, true
}

// items implements heap.Interface.
type items []item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h items) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *items) Push(x any)        { *h = append(*h, x.(item)) }
func (h *items) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = item{}
	*h = old[:len(old)-1]
	return it
}
