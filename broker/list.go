package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Credentials lists up to limit credentials in name order, from after a name on, of those that allowed says yes to. next is the name to
// go on from, "" at the end.
func (b *Broker) Credentials(ctx context.Context, after string, limit int, allowed func(name string) bool) (list []Status, next string, err error) {
	limit = max(1, limit)
	for _, name := range b.names(after) {
		if !allowed(name) {
			continue
		}
		if len(list) == limit {
			return list, list[limit-1].Credential.Name, nil
		}
		st, err := b.glance(ctx, name)
		switch {
		case errors.Is(err, tokenbroker.ErrNotFound):
			continue
		case errors.Is(err, tokenbroker.ErrQuarantined):
			st = Status{Credential: tokenbroker.Credential{Name: name},
				Snapshot: &Snapshot{State: tokenbroker.StateQuarantined, Recovery: tokenbroker.RecoveryAskOperator, Code: "tampered"}}
		case err != nil:
			return nil, "", err
		}
		list = append(list, st)
	}
	return list, "", nil
}

// Subscribers lists the identities that subscribe to a credential, sorted, each once.
func (b *Broker) Subscribers(ctx context.Context, name string) ([]string, error) {
	e, err := b.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	found := map[string]struct{}{}
	for _, v := range e.variants {
		for s := range v.subs {
			found[s.feed.cfg.Holder] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// glance is Credential for a list: what it alone brought to life goes again, so that a list of many does not fill the memory.
func (b *Broker) glance(ctx context.Context, name string) (Status, error) {
	e, err := b.entry(ctx, name)
	if err != nil {
		return Status{}, err
	}
	alive := e.own.Load() != nil
	st, err := b.Credential(ctx, name)
	if !alive {
		b.letGo(e)
	}
	return st, err
}

// letGo drops a credential's own variant if nobody ever asked for it.
func (b *Broker) letGo(e *entry) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if v := e.own.Load(); v != nil && !v.alive(now) && v.read.Load() == 0 && v.attempted.IsZero() {
		b.forget(v)
		e.own.Store(nil)
		delete(e.variants, v.v.Key())
	}
}

// names returns the names of all credentials after one, sorted.
func (b *Broker) names(after string) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	names := make([]string, 0, len(b.entries))
	for name := range b.entries {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
