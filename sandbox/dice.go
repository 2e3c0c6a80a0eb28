package sandbox

import (
	"math/rand/v2"
	"sync"
	"time"
)

// dice is where chance comes from: the same seed and the same requests in the same order bring the same faults.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{rng: rand.New(rand.NewPCG(seed, 0))} }

// strikes reports whether something that has a chance happens; 0 stands for always.
func (d *dice) strikes(chance float64) bool {
	if chance == 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < chance
}

// between draws a duration, evenly; from, if to is not after it.
func (d *dice) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return from + time.Duration(d.rng.Int64N(int64(to-from)+1))
}
