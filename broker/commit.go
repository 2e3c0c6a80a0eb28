package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// commit makes an outcome durable. If it holds a new refresh token, which is the only copy there is, commit does not give up
// before the broker ends, and tries once more then: the spend lock stays taken, and nobody sees the token that came with it. Who
// waits for the token is told after the first failure.
func (b *Broker) commit(ctx context.Context, t try, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token, error) {
	for n, last := 0, false; ; n++ {
		grant, tok, err := b.commitOnce(ctx, o)
		switch {
		case err == nil:
			b.wrote()
			return grant, tok, nil
		case errors.Is(err, tokenbroker.ErrSuperseded), isTampered(err): // the store keeps it apart
			b.observe(t.failed(EventOrphan, err))
			b.reread(ctx, t.v.e)
			b.endLate(ctx, t, o)
			return grant, tok, err
		case o.RefreshToken.IsZero() || o.RefreshToken == t.sent: // the store has what there is
			b.markUnspent(t)
			return grant, tok, err
		}
		if n&(n-1) == 0 || last { // ever more seldom: it may last for days
			b.observe(t.failed(EventCommitErr, err))
		}
		if last {
			return grant, tok, err
		}
		if n == 0 {
			defer t.v.e.stall()()
		}
		last = b.breathe(ctx, min(50*time.Millisecond<<min(n, 12), localCap)) != nil
	}
}

// commitOnce does not end with the broker: what a provider gave must not be lost to a shutdown.
func (b *Broker) commitOnce(ctx context.Context, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	return b.cfg.Store.Commit(ctx, o)
}

// breathe waits before the next try: no longer than a second once the broker drains, and not at all when that begins.
func (b *Broker) breathe(ctx context.Context, d time.Duration) error {
	drain := b.drain
	select {
	case <-drain:
		d, drain = min(d, drainPause), nil
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-drain:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed describes what became of the attempt's result.
func (t try) failed(k Kind, err error) Event {
	ev := t.event(k)
	ev.Code = codeOf(err)
	return ev
}

// stall tells all who wait for a token of the credential that none can be had for now, since the spend lock is held by a result
// that can't be stored. What it returns ends that.
func (e *entry) stall() (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stalls++; e.stalls == 1 {
		close(e.stalled)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.stalls--; e.stalls == 0 {
			e.stalled = make(chan struct{})
		}
	}
}

// stalling is closed while a result of the credential can't be stored.
func (e *entry) stalling() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stalled
}

// markUnspent remembers that the attempt's intent could not be cleared although its refresh token is not spent.
func (b *Broker) markUnspent(t try) {
	e := t.v.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.rotating && !t.replay && e.grant.Serial == t.serial {
		e.unspent = true
	}
}
