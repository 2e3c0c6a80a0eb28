package broker

import (
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// handed knows which identity was handed which generation of a variant, to tell who may report it. It remembers those who
// hold one of the last two generations; who holds an older one has nothing to report that would help.
type handed struct {
	mu     sync.RWMutex
	newest map[string]tokenbroker.Generation // identity → highest generation handed to it
}

// hand notes that an identity gets what is in a snapshot of the variant: who may report it, and that the credential is used.
func (v *variant) hand(holder string, s *Snapshot, now time.Time) {
	v.handed.note(holder, s.Order.Generation)
	v.use(s, now)
}

// use notes, at most once a second, that the credential is used.
func (v *variant) use(s *Snapshot, now time.Time) {
	if n := now.UnixNano(); s.Token != nil && n-v.e.lastUse.Load() > int64(time.Second) {
		v.e.lastUse.Store(n)
	}
}

// note remembers that an identity got a generation. "" is nobody.
func (h *handed) note(holder string, g tokenbroker.Generation) {
	if holder == "" {
		return
	}
	h.mu.RLock()
	known := h.newest[holder]
	h.mu.RUnlock()
	if known >= g {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newest == nil {
		h.newest = map[string]tokenbroker.Generation{}
	}
	h.newest[holder] = max(h.newest[holder], g)
}

// has reports whether an identity got that generation, or a later one.
func (h *handed) has(holder string, g tokenbroker.Generation) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	got, ok := h.newest[holder]
	return ok && got >= g
}

// forget drops all who have only generations before g.
func (h *handed) forget(g tokenbroker.Generation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for holder, got := range h.newest {
		if got < g {
			delete(h.newest, holder)
		}
	}
}
