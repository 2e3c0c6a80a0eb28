package broker

import (
	"context"
	"errors"
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
	Refuse      error         // what is answered where a token would have to be fetched or waited for; nil = that is done
}

// Token returns a snapshot with a valid token: from memory, or by one exchange that all callers share. ctx governs the wait,
// not the exchange. Errors wrap a sentinel of package tokenbroker, or are ctx's.
func (b *Broker) Token(ctx context.Context, r Request) (*Snapshot, error) {
	for range joinTries {
		v, err := b.variant(ctx, r.Selection)
		if err != nil {
			return nil, err
		}
		if s, err := b.serve(ctx, v, r); !errors.Is(err, errGone) {
			return s, err
		}
	}
	return nil, problem(tokenbroker.ErrBackoff, "reconfigured", retryBase)
}

func (b *Broker) serve(ctx context.Context, v *variant, r Request) (*Snapshot, error) {
	now := time.Now()
	if r.Refuse != nil && r.lacks(v.snap.Load(), now) { // nor is it fetched for the next who asks
		return nil, r.Refuse
	}
	b.touch(v, now)
	s := v.snap.Load()
	if r.lacks(s, now) {
		var err error
		if s, err = b.better(ctx, v, s, r.MinValidity); err != nil {
			return nil, err
		}
		now = time.Now()
	}
	v.hand(r.Holder, s, now)
	return s, nil
}

// lacks reports whether s is not what is asked for.
func (r Request) lacks(s *Snapshot, now time.Time) bool {
	return !s.usable(now) || r.MinValidity > 0 && s.validity(now) < r.MinValidity
}

// better gets a token that is valid for at least min, where s is not.
func (b *Broker) better(ctx context.Context, v *variant, s *Snapshot, least time.Duration) (*Snapshot, error) {
	now := time.Now()
	w := want{}
	if s.usable(now) {
		v.e.mu.Lock()
		err, newest := v.worthwhile(s, now), v.snap.Load()
		v.e.mu.Unlock()
		if newest != s && newest.usable(now) && newest.validity(now) >= least { // an exchange ended since
			return newest, nil
		}
		if err != nil {
			return nil, err
		}
		w.after, w.longer = s.Order.Generation, true
	}
	s, err := b.join(ctx, v, w)
	if err != nil {
		return nil, err
	}
	if now = time.Now(); !s.usable(now) { // it ended before this caller came to see it
		return nil, problem(tokenbroker.ErrUpstream, "expired_on_arrival", retryBase)
	}
	if s.validity(now) < least {
		return nil, unattainable(s, now, "the provider gives no token that lives so long")
	}
	return s, nil
}

// worthwhile says whether a caller who wants a longer life may cause an exchange although there is a valid token. e.mu is held.
func (v *variant) worthwhile(s *Snapshot, now time.Time) error {
	if v.e.lacking(now) != "" {
		return unattainable(s, now, "the grant has nothing to refresh it with")
	}
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
