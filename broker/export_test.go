package broker

import (
	"context"
	"sync/atomic"
)

// RunCounting is Run, and counts what the schedule hands out.
func (b *Broker) RunCounting(ctx context.Context, ticks *atomic.Int64) error {
	b.schedule.run(ctx, func(it *item) {
		ticks.Add(1)
		b.due(it)
	})
	b.Drain()
	return ctx.Err()
}

// Scheduled returns how many items are on the schedule.
func (b *Broker) Scheduled() int {
	b.schedule.mu.Lock()
	defer b.schedule.mu.Unlock()
	return len(b.schedule.items)
}

// Handed returns how many identities the credential's own variant remembers.
func (b *Broker) Handed(name string) int {
	b.mu.RLock()
	v := b.entries[name].own.Load()
	b.mu.RUnlock()
	v.handed.mu.RLock()
	defer v.handed.mu.RUnlock()
	return len(v.handed.newest)
}

// Gates returns how many gates there are.
func (b *Broker) Gates() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.gates)
}

// Parked returns how many slots wait for their credential.
func (b *Broker) Parked() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := 0
	for _, slots := range b.parked {
		n += len(slots)
	}
	return n
}

// The pure rules, for their tables.
var (
	Guard       = guard
	Lead        = lead
	RefreshAt   = refreshAt
	UnchangedAt = unchangedAt
	Backoff     = backoff
	ProbeDelay  = probeDelay
	Floor       = floor
	InGrace     = inGrace
	GrantEnd    = grantEnd
	ExerciseBy  = exerciseBy
	Warnings    = warnings
)

// Alive returns how many variants there are in memory, of all credentials.
func (b *Broker) Alive() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := 0
	for _, e := range b.entries {
		e.mu.Lock()
		n += len(e.variants)
		e.mu.Unlock()
	}
	return n
}
