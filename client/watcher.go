package client

import "sync"

// watcher is told that slots have news. Whoever tells it never waits; of a slot with much news the newest is left.
type watcher struct {
	wake chan struct{} // holds a value while there may be news

	mu     sync.Mutex
	queue  []*slot // with news, oldest first
	queued map[*slot]bool
}

func newWatcher() *watcher {
	return &watcher{wake: make(chan struct{}, 1), queued: map[*slot]bool{}}
}

// note notes that a slot has news.
func (w *watcher) note(s *slot) {
	w.mu.Lock()
	if !w.queued[s] {
		w.queued[s] = true
		w.queue = append(w.queue, s)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next is the slot whose news wait longest; nil if there are none.
func (w *watcher) next() *slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.queue = nil
		return nil
	}
	s := w.queue[0]
	w.queue[0] = nil
	w.queue = w.queue[1:]
	delete(w.queued, s)
	return s
}
