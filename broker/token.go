package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// MaxMinValidity is the most that a caller may ask for as Request.MinValidity.
const MaxMinValidity = 24 * time.Hour

// Request asks for a token.
type Request struct {
	Selection
	MinValidity time.Duration // how long the token has to be valid yet; from 0 to MaxMinValidity
	Holder      string        // identity that the token is handed to
}

// want says what a flight is to bring, beyond what its variant has.
type want struct {
	after tokenbroker.Generation // a token of a later generation will do
	probe bool                   // a worker had a 401: an uncertain refresh token may be tried
	force bool                   // an operator asks: remembered refusals do not count
}

// Token returns a snapshot with a valid token: from memory, or by one exchange that all callers share. ctx governs the wait,
// not the exchange. Errors wrap a sentinel of package tokenbroker, or are ctx's.
func (b *Broker) Token(ctx context.Context, r Request) (*Snapshot, error) {
	v, err := b.variant(ctx, r.Selection)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	b.touch(v, now)
	s := v.snap.Load()
	if s.usable(now) && (r.MinValidity == 0 || s.validity(now) >= r.MinValidity) {
		v.hand(r.Holder, s.Order.Generation)
		return s, nil
	}
	if s, err = b.better(ctx, v, s, r.MinValidity); err != nil {
		return nil, err
	}
	v.hand(r.Holder, s.Order.Generation)
	return s, nil
}

// better gets a token that is valid for at least min, where s is not.
func (b *Broker) better(ctx context.Context, v *variant, s *Snapshot, least time.Duration) (*Snapshot, error) {
	now := time.Now()
	w := want{}
	if s.usable(now) {
		if err := v.worthwhile(s, now); err != nil {
			return nil, err
		}
		w.after = s.Order.Generation
	}
	s, err := b.join(ctx, v, w)
	if err != nil {
		return nil, err
	}
	if now = time.Now(); s.validity(now) < least {
		return nil, unattainable(s, now, "the provider gives no token that lives so long")
	}
	return s, nil
}

// worthwhile says whether a caller who wants a longer life may cause an exchange although there is a valid token.
func (v *variant) worthwhile(s *Snapshot, now time.Time) error {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if v.e.traits.KillsOld {
		return unattainable(s, now, "a refresh would end the token that others hold")
	}
	if now.Sub(v.fetched) < floor(v.e.traits, s.Token.Life(), 0) {
		return unattainable(s, now, "the token is as fresh as the floor interval allows")
	}
	return nil
}

func unattainable(s *Snapshot, now time.Time, why string) error {
	longest := max(0, s.validity(now)).Truncate(time.Second)
	return &tokenbroker.Problem{Err: tokenbroker.ErrMinValidity, Field: "minValidity",
		Detail:   why + "; the longest to be had now is " + longest.String(),
		Metadata: map[string]string{"longest": longest.String()}}
}

// hand notes that an identity got a generation.
func (v *variant) hand(holder string, g tokenbroker.Generation) {
	if holder == "" {
		return
	}
	h, ok := v.handed.Load(holder)
	if !ok {
		h, _ = v.handed.LoadOrStore(holder, new(atomic.Uint64))
	}
	for n := h.(*atomic.Uint64); ; {
		old := n.Load()
		if old >= uint64(g) || n.CompareAndSwap(old, uint64(g)) {
			return
		}
	}
}

// wasHanded reports whether an identity got that generation of the variant, or a later one.
func (v *variant) wasHanded(holder string, g tokenbroker.Generation) bool {
	h, ok := v.handed.Load(holder)
	return ok && h.(*atomic.Uint64).Load() >= uint64(g)
}

// join waits for the variant's flight, which it begins if there is none. A result that lost to a new grant is tried again, once.
func (b *Broker) join(ctx context.Context, v *variant, w want) (*Snapshot, error) {
	s, err := b.joinOnce(ctx, v, w)
	if errors.Is(err, tokenbroker.ErrSuperseded) {
		s, err = b.joinOnce(ctx, v, w)
	}
	return s, err
}

func (b *Broker) joinOnce(ctx context.Context, v *variant, w want) (*Snapshot, error) {
	v.waiters.Add(1)
	defer v.waiters.Add(-1)
	ch := b.flights.DoChan(v.id, func() (any, error) { return b.fly(v, w) })
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Snapshot), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
