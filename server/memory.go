package server

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// What is refused while memory is short, by how short it is. What a level refuses those above it refuse too.
const (
	shedNothing = iota
	shedNew     // connections and subscriptions
	shedMisses  // GetToken without a token in memory
)

// When memory is short, in percent of what there is. A level ends lower than it begins, so that it does not come and go.
const (
	shortAt, shortUntil         = 80, 70
	veryShortAt, veryShortUntil = 90, 80

	lookEvery  = 250 * time.Millisecond
	freshEvery = 20 // looks, while memory is short: it takes a collection of garbage to see that it no longer is
)

// errMemory is what is refused while memory is short.
func errMemory(after time.Duration) error {
	return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "the broker is short of memory", RetryAfter: after,
		Metadata: map[string]string{"limit": "memory"}}
}

// shedder knows how short memory is.
type shedder struct {
	limit int64 // bytes; 0 = no end
	lives func(fresh bool) int64
	told  func(level int)
	log   *slog.Logger
	now   atomic.Int32
}

func newShedder(c Config) *shedder {
	s := &shedder{limit: c.Limits.Memory, lives: c.Lives, told: c.Edge.shed, log: c.Log}
	if s.lives == nil {
		s.lives = livingMemory
	}
	return s
}

func (s *shedder) level() int { return int(s.now.Load()) }

// WatchMemory looks at the memory in use until ctx ends. Without it, nothing is refused for want of memory.
func (s *Server) WatchMemory(ctx context.Context) {
	if s.shedder.limit <= 0 {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		s.shedder.look(looks%freshEvery == 0)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look judges the memory anew.
func (s *shedder) look(fresh bool) {
	old := s.level()
	used := s.lives(fresh && old > shedNothing)
	level := shedLevel(old, used, s.limit)
	if level == old {
		return
	}
	s.now.Store(int32(level))
	s.told(level)
	if level > old {
		s.log.Warn("memory is short", "used", used, "limit", s.limit, "level", level)
		return
	}
	s.log.Info("memory is less short", "used", used, "limit", s.limit, "level", level)
}

// shedLevel is the level after old.
func shedLevel(old int, used, limit int64) int {
	percent := used * 100 / limit
	switch {
	case percent >= veryShortAt, old == shedMisses && percent >= veryShortUntil:
		return shedMisses
	case percent >= shortAt, old >= shedNew && percent >= shortUntil:
		return shedNew
	}
	return shedNothing
}

// livingMemory is what the process uses, without garbage: that is only collected when there is need.
func livingMemory(fresh bool) int64 {
	if fresh {
		runtime.GC()
	}
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	value := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	return value(0) - value(1) - value(2) - value(3) - value(4) + value(5)
}
