package broker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// variant is one variant that is alive in memory.
type variant struct {
	e       *entry
	v       tokenbroker.Variant
	id      string // what flights go by
	isOwn   bool   // of the credential's own scopes, subject and audience
	snap    atomic.Pointer[Snapshot]
	idle    atomic.Bool  // not on the schedule; the next read puts it there
	read    atomic.Int64 // unix nanoseconds of the last read, within a second
	waiters atomic.Int64
	handed  handed
	item    item // on the schedule

	// Guarded by e.mu.
	token       *held
	generation  tokenbroker.Generation // of the newest token ever, valid or not
	failures    int                    // consecutive, without a definitive answer
	code        string
	cause       tokenbroker.Cause // behind code
	lastErr     error
	next        time.Time // not before then
	refusedTill time.Time // the variant's own input was refused
	refusedAs   error     // what callers are told until then
	refusals    int       // of the variant's own input, in a row
	refreshAt   time.Time
	fetched     time.Time              // when an exchange last brought or confirmed a token
	attempted   time.Time              // when an exchange was last begun
	reported    int                    // report-driven refreshes in a row that did not help
	rejected    tokenbroker.Generation // the newest that an API refused with 401
	lost        int                    // flights in a row whose result lost to a new grant
	published   *Snapshot              // what subscribers were last told of
	subs        map[*slot]struct{}
	inOrder     []*slot // subs, as they are told; nil after a change
	gone        bool
	born        time.Time
}

// held is a token with the moments after which it is not served.
type held struct {
	tokenbroker.Token
	wallEnd, monoEnd time.Time
	mac              string // "" until a snapshot holds it
}

// holds reports whether a token is the one that the variant has, alive or not.
func (v *variant) holds(t *tokenbroker.Token) bool {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return v.holdsLocked(t)
}

func (v *variant) holdsLocked(t *tokenbroker.Token) bool {
	return t != nil && v.token != nil && v.token.AccessToken == t.AccessToken
}

// hold computes the ends of a token. sent carries a monotonic reading if the token was obtained by this process.
func hold(t tokenbroker.Token, sent time.Time) *held {
	life := t.Life() - guard(t.Life())
	wall := t.Obtained.Round(0).Add(life)
	return &held{Token: t, wallEnd: wall, monoEnd: sent.Add(life)}
}

// holdStored is hold for a token of the store: only the wall clock knows when it was obtained.
func holdStored(t tokenbroker.Token, now time.Time) *held {
	h := hold(t, t.Obtained)
	h.monoEnd = now.Add(min(h.wallEnd.Sub(now.Round(0)), t.Life()-guard(t.Life()))) // a clock that was set back gives no longer life
	return h
}

func (h *held) usable(now time.Time) bool {
	return h != nil && now.Before(h.monoEnd) && now.Round(0).Before(h.wallEnd)
}

// end is when the token stops being served, by the more pessimistic clock.
func (h *held) end(now time.Time) time.Time {
	return now.Add(min(h.monoEnd.Sub(now), h.wallEnd.Sub(now.Round(0))))
}

// vivify loads a variant's token, if it ever had one, and adds the variant.
func (b *Broker) vivify(ctx context.Context, e *entry, c choice) (*variant, error) {
	key := c.v.Key()
	ch := b.loads.DoChan(fmt.Sprintf("%s\x00%s\x00%d\x00%s", e.name, c.uid, c.generation, key), func() (any, error) {
		tok, ok, err := b.cfg.Store.Token(b.work, e.name, c.uid, key)
		if err != nil && !isTampered(err) {
			return nil, err
		}
		if err != nil { // a token that does not open is as good as none: the next exchange replaces it
			b.observe(Event{Kind: EventTampered, Credential: e.name, Variant: c.v, Code: codeOf(err)})
			ok = false
		}
		return b.add(e, c, tok, ok)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*variant), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// add puts a variant beside the others of its credential, if there is room.
func (b *Broker) add(e *entry, c choice, tok tokenbroker.Token, had bool) (*variant, error) {
	now, key := time.Now(), c.v.Key()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.of(c) {
		return nil, errGone
	}
	if v := e.variants[key]; v != nil {
		return v, nil
	}
	own := e.cred.Variant(nil, "", "").Key()
	if err := b.makeRoom(e, key == own, now); err != nil {
		return nil, err
	}
	v := &variant{e: e, v: c.v, id: c.uid + "\x00" + key, isOwn: key == own, born: now, subs: map[*slot]struct{}{}}
	v.idle.Store(true)
	v.item.variant = v
	if had && tok.Generation >= e.cred.Generation { // an older one belongs to a former configuration
		v.generation = tok.Generation
		v.token = holdStored(tok, now)
		v.refreshAt = refreshAt(tok, e.traits, draw())
	}
	e.variants[key] = v
	b.view(v, now)
	if key == own {
		e.own.Store(v)
	}
	return v, nil
}

// makeRoom sees to the bound on variants: those that never had a token go, then those nobody uses, else the new one is refused.
// Asking for what there is no token of does not hold a place for long: made-up audiences would lock others out. e.mu is held.
func (b *Broker) makeRoom(e *entry, own bool, now time.Time) error {
	most := b.cfg.MaxVariants
	if t := e.traits.LiveTokens; t > 0 {
		most = min(most, t)
	}
	if e.own.Load() == nil {
		most-- // a place is kept for it
	}
	if own || len(e.variants) < most {
		return nil
	}
	wait := minUse
	for _, idle := range []func(*variant) bool{
		func(v *variant) bool { return v.barren() && now.Sub(v.born) >= barrenUse },
		func(v *variant) bool { return !v.inUse(now) },
	} {
		for key, v := range e.variants {
			if v != e.own.Load() && idle(v) {
				b.forget(v)
				delete(e.variants, key)
			}
			if v.barren() {
				wait = barrenUse
			}
		}
		if len(e.variants) < most {
			return nil
		}
	}
	return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, RetryAfter: wait,
		Detail: "the credential has as many variants (scopes, subject, audience) in use as are allowed"}
}

// forget marks a variant that goes out of memory. e.mu is held.
func (b *Broker) forget(v *variant) {
	v.gone = true
	v.e.changed()
	b.schedule.set(&v.item, time.Time{})
}

// barren reports whether the variant never had a token and nobody subscribes or waits. e.mu is held.
func (v *variant) barren() bool {
	return v.token == nil && v.generation == 0 && len(v.subs) == 0 && v.waiters.Load() == 0
}

// inUse reports whether anybody subscribes to the variant or read it within its last two lives. e.mu is held.
func (v *variant) inUse(now time.Time) bool {
	if len(v.subs) > 0 || v.waiters.Load() > 0 {
		return true
	}
	window := minUse
	if v.token != nil {
		window = 2 * v.token.Life()
	}
	return now.Sub(time.Unix(0, v.read.Load())) < window
}

// touch notes a read, at most once a second, and puts an idle variant back on the schedule.
func (b *Broker) touch(v *variant, now time.Time) {
	if n := now.UnixNano(); n-v.read.Load() > int64(time.Second) {
		v.read.Store(n)
	}
	if v.idle.Load() {
		b.reschedule(v)
	}
}

// view makes a variant's snapshot anew, with a new revision, and returns it. e.mu is held.
func (b *Broker) view(v *variant, now time.Time) *Snapshot {
	e := v.e
	s := &Snapshot{
		of:         v,
		Credential: e.name,
		Variant:    v.v,
		Default:    defaulted(e.cred, v.v),
		Order:      tokenbroker.Order{Generation: max(v.generation, e.cred.Generation), Revision: b.revision()},
		RefreshAt:  v.refreshAt,
	}
	if v.token.usable(now) && !e.cred.Disabled && e.grant.State != tokenbroker.StateQuarantined {
		t := v.token.Token
		s.Token, s.wallEnd, s.monoEnd = &t, v.token.wallEnd, v.token.monoEnd
		if v.token.mac == "" {
			v.token.mac = b.mac(t.AccessToken)
		}
		s.TokenMAC = v.token.mac
	}
	stands := standingOf(v, now)
	s.State, s.Code, s.Cause, s.Recovery = stands.state, stands.code, stands.cause, stands.recovery()
	if s.State == tokenbroker.StateDisabled || s.State == tokenbroker.StateReauthorize || s.State == tokenbroker.StateQuarantined {
		s.RefreshAt = time.Time{}
	}
	s.Since = v.since(s.State, now)
	if b.cfg.Encode != nil {
		s.Encoded = b.cfg.Encode(s)
	}
	old := v.snap.Swap(s)
	if old == nil || old.standing() != stands {
		b.observe(v.event(EventState))
	}
	return s
}

// since is when a state was entered that holds now. What was before this process is known of the states that are stored. e.mu is held.
func (v *variant) since(state tokenbroker.State, now time.Time) time.Time {
	switch old, e := v.snap.Load(), v.e; {
	case old != nil && old.State == state:
		return old.Since
	case old == nil && e.grant.State == state:
		return e.grant.Since
	case old == nil && state == tokenbroker.StateDisabled:
		return e.cred.Updated
	}
	return now
}

// review makes the snapshot anew if it says something else than what holds. e.mu is held.
func (b *Broker) review(v *variant, now time.Time) {
	s := v.snap.Load()
	holds := v.token.usable(now) && !v.e.cred.Disabled && v.e.grant.State != tokenbroker.StateQuarantined
	if standingOf(v, now) != s.standing() || holds != (s.Token != nil) {
		b.view(v, now)
	}
}

// event describes the variant as it stands. e.mu is held.
func (v *variant) event(k Kind) Event {
	e, s := v.e, v.snap.Load()
	ev := Event{Kind: k, Credential: e.name, Provider: e.cred.Provider, Client: e.cred.Client, Grant: e.cred.Grant,
		Variant: v.v, Own: v.isOwn, Serial: e.grant.Serial}
	if s != nil {
		ev.Order, ev.State, ev.Code = s.Order, s.State, s.Code
		if s.Token != nil {
			ev.Expiry, ev.TokenMAC, ev.Granted = s.Token.Expiry, s.TokenMAC, s.Token.Scopes
		}
	}
	return ev
}
