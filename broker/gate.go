package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tokenbroker/tokenbroker"
)

const (
	breakerAfter = 5                // failures in a row that open a breaker
	smearMost    = 30 * time.Second // over which a backlog is spread when a provider is back
)

type gateKey struct{ provider, client string }

// gate is what every exchange of one OAuth client at one provider passes: a token bucket in which callers who wait go before
// background refreshes, a pause that the provider asked for, and a breaker.
type gate struct {
	key     gateKey
	limiter *rate.Limiter

	mu       sync.Mutex
	queue    []*turn
	timer    *time.Timer
	paused   time.Time // the provider asked for it
	failures int       // in a row
	openTill time.Time
	trial    *turn // whose exchange tries whether the provider is back; nil = nobody's
	shut     bool  // the broker drains
}

// turn is a flight's, to wait for and then to use.
type turn struct {
	gate  *gate
	v     *variant
	hurry bool // it replays a refresh token that the provider forgives for a while yet
	ready chan struct{}
	err   error // once ready: why the turn is none
	given bool  // it has a place in the bucket
}

func (t *turn) urgent() bool { return t.v.waiters.Load() > 0 }

// gate finds the gate of a credential's provider and client.
func (b *Broker) gate(e *entry) *gate {
	e.mu.Lock()
	key := gateKey{e.cred.Provider, e.cred.Client}
	e.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.gates[key]
	if g == nil {
		g = newGate(key, b.limit(key.provider))
		g.shut = b.draining
		b.gates[key] = g
	}
	return g
}

func (b *Broker) limit(provider string) Limit {
	var l Limit
	if b.cfg.Limits != nil {
		l = b.cfg.Limits(provider)
	}
	if l.PerSecond <= 0 {
		l.PerSecond = 100
	}
	if l.Burst <= 0 {
		l.Burst = 200
	}
	return l
}

func newGate(key gateKey, l Limit) *gate {
	return &gate{key: key, limiter: rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)}
}

// pass waits for the variant's turn. It refuses, also those who wait already, while the provider wants us to wait or seems to be
// down, and once the broker drains. Who got a turn has to tell its result, or that it was unused.
func (g *gate) pass(ctx context.Context, v *variant) (*turn, error) {
	t := &turn{gate: g, v: v, hurry: v.e.forgiven(time.Now()), ready: make(chan struct{})}
	g.mu.Lock()
	if err := g.refusal(t, time.Now()); err != nil {
		g.mu.Unlock()
		return nil, err
	}
	g.queue = append(g.queue, t)
	g.dispatchLocked()
	g.mu.Unlock()
	select {
	case <-t.ready:
		if t.err != nil {
			return nil, t.err
		}
		return t, nil
	case <-ctx.Done():
		t.unused()
		return nil, ctx.Err()
	}
}

// forgiven reports whether the answer to a refresh was lost and the refresh token may be sent again now.
func (e *entry) forgiven(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.grant.Intent != nil && inGrace(e.traits, e.grant.Intent.Begun, now)
}

// refusal is the answer while nobody may pass. g.mu is held.
func (g *gate) refusal(t *turn, now time.Time) error {
	switch {
	case g.shut:
		return tokenbroker.ErrDraining
	case now.Before(g.paused):
		return &tokenbroker.Problem{Err: tokenbroker.ErrThrottled, RetryAfter: g.paused.Sub(now)}
	case t.hurry: // the grant would be lost to a breaker that opens again too late
		return nil
	case now.Before(g.openTill):
		return &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, Detail: "its last requests all failed", RetryAfter: g.openTill.Sub(now)}
	case g.failures >= breakerAfter && g.trial != nil && g.trial != t:
		return &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, Detail: "its last requests all failed, one is on trial", RetryAfter: retryBase}
	case g.failures >= breakerAfter:
		g.trial = t
	}
	return nil
}

// dispatchLocked lets pass whoever the bucket has room for, those with callers first, and sets the timer for the next. What was
// learnt since a turn was queued counts for it too.
func (g *gate) dispatchLocked() {
	for now := time.Now(); len(g.queue) > 0; {
		i := max(0, slices.IndexFunc(g.queue, (*turn).urgent))
		t := g.queue[i]
		if t.err = g.refusal(t, now); t.err != nil {
			t.overLocked()
		} else if d := g.delay(now); d > 0 {
			g.rearm(d)
			return
		} else {
			t.given = true
		}
		close(t.ready)
		g.queue = slices.Delete(g.queue, i, i+1)
	}
}

// delay takes a place in the bucket, or says when there is one. g.mu is held.
func (g *gate) delay(now time.Time) time.Duration {
	r := g.limiter.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// close refuses all who wait, and all who come.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	g.dispatchLocked()
}

func (g *gate) rearm(d time.Duration) {
	if g.timer == nil {
		g.timer = time.AfterFunc(d, g.dispatch)
		return
	}
	g.timer.Reset(d)
}

func (g *gate) dispatch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dispatchLocked()
}

// unused gives back a turn that led to no exchange, or that was not waited for: others may have its place.
func (t *turn) unused() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = slices.DeleteFunc(g.queue, func(o *turn) bool { return o == t })
	t.overLocked()
	if t.given {
		t.given = false
		g.limiter.AllowN(time.Now(), -1)
		g.dispatchLocked()
	}
}

func (t *turn) overLocked() {
	if t.gate.trial == t {
		t.gate.trial = nil
	}
}

// result tells the gate how an exchange ended. True means that the provider is back after an outage.
func (t *turn) result(err error) bool {
	g := t.gate
	var f *tokenbroker.Failure
	errors.As(err, &f)
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.dispatchLocked()
	t.overLocked()
	switch {
	case f != nil && f.Class == tokenbroker.ClassThrottled:
		if till := time.Now().Add(min(f.RetryAfter, waitCap)); till.After(g.paused) {
			g.paused = till
		}
		return false
	case f != nil && (f.Class == tokenbroker.ClassTransient || f.Class == tokenbroker.ClassAmbiguous):
		if g.failures++; g.failures >= breakerAfter {
			g.openTill = time.Now().Add(backoff(g.failures-breakerAfter, retryCap, f.RetryAfter, draw()))
		}
		return false
	}
	back := g.failures >= breakerAfter
	g.failures, g.openTill = 0, time.Time{}
	return back
}

// spread puts the refreshes that an outage kept back on the schedule, over a while, those first whose tokens end first.
func (b *Broker) spread(g *gate) {
	now := time.Now()
	held := b.heldBack(g.key, now)
	if len(held) == 0 {
		return
	}
	slices.SortFunc(held, func(x, y heldBack) int { return x.end.Compare(y.end) })
	span := min(smearMost, time.Duration(float64(len(held))/float64(g.limiter.Limit())*float64(time.Second)))
	step := span / time.Duration(len(held))
	for i, h := range held {
		b.retryAt(h.v, now.Add(step*time.Duration(i)))
	}
}

// heldBack is a variant that an outage keeps waiting, and when its token ends.
type heldBack struct {
	v   *variant
	end time.Time
}

func (b *Broker) heldBack(key gateKey, now time.Time) []heldBack {
	var held []heldBack
	for _, e := range b.loadedWith(key.client) {
		e.mu.Lock()
		for _, v := range e.variants {
			if e.cred.Provider == key.provider && now.Before(v.next) && v.alive(now) && outage(v.lastErr) {
				h := heldBack{v: v}
				if v.token != nil {
					h.end = v.token.end(now)
				}
				held = append(held, h)
			}
		}
		e.mu.Unlock()
	}
	return held
}

// outage reports whether an error comes of a provider that is down.
func outage(err error) bool {
	if f, ok := errors.AsType[*tokenbroker.Failure](err); ok {
		return f.Class == tokenbroker.ClassTransient || f.Class == tokenbroker.ClassAmbiguous
	}
	return errors.Is(err, tokenbroker.ErrUpstream)
}

// retryAt brings forward the next try of a variant.
func (b *Broker) retryAt(v *variant, at time.Time) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if at.Before(v.next) {
		v.next = at
	}
	if v.e.grant.Intent != nil && at.Before(v.e.recoverNext) {
		v.e.recoverNext = at
	}
	b.plan(v, time.Now())
}
