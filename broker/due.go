package broker

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// reschedule puts a variant on the schedule for the next moment at which something is to be done about it, if there is one.
func (b *Broker) reschedule(v *variant) {
	v.e.mu.Lock()
	at := v.nextAt(time.Now())
	moved := !at.IsZero() && !at.Equal(v.due)
	v.due = at
	v.idle.Store(at.IsZero())
	v.e.mu.Unlock()
	if moved {
		b.schedule.add(item{at: at, variant: v})
	}
}

// retryAt is reschedule for a variant whose backoff is over before its time.
func (b *Broker) retryAt(v *variant, at time.Time) {
	v.e.mu.Lock()
	if at.Before(v.next) {
		v.next = at
	}
	v.e.mu.Unlock()
	b.reschedule(v)
}

// due handles an item of the schedule. It does not block: a refresh is a flight of its own.
func (b *Broker) due(it item) {
	if it.entry != nil {
		b.startBackground(func() { b.exercise(it.entry) })
		return
	}
	v, now := it.variant, time.Now()
	v.e.mu.Lock()
	if !v.due.Equal(it.at) || v.gone || v.e.gone {
		v.e.mu.Unlock()
		return // there is a later item for it, or no need of one
	}
	v.due = time.Time{}
	s := v.snap.Load()
	ended := s.Token != nil && !s.usable(now)
	if ended {
		s = b.view(v, now)
	}
	fly := v.wantsRefresh(now)
	v.e.mu.Unlock()
	if ended {
		b.startBackground(func() { b.publish(v) })
	}
	if !fly {
		b.reschedule(v)
		return
	}
	b.flights.DoChan(v.id, func() (any, error) { return b.fly(v, want{after: s.Order.Generation}) })
}

// startBackground runs do apart from the schedule, counted like a flight.
func (b *Broker) startBackground(do func()) {
	if !b.enter() {
		return
	}
	go func() {
		defer b.running.Done()
		do()
	}()
}

// exercise brings a credential's own variant to life and refreshes it: because an exchange was cut off, or to keep its refresh
// token from dying of disuse.
func (b *Broker) exercise(e *entry) {
	v, err := b.variant(b.work, Selection{Credential: e.name})
	if err != nil {
		return
	}
	e.mu.Lock()
	e.exerciseAt = time.Time{}
	at := exerciseBy(e.grant, e.traits)
	needed := e.grant.Intent != nil || !at.IsZero() && !at.After(time.Now())
	e.mu.Unlock()
	if needed {
		_, _ = b.joinOnce(b.work, v, want{after: v.snap.Load().Order.Generation})
	}
	b.scheduleExercise(e)
}

// scheduleExercise sees to it that the schedule holds one item for the credential's refresh token, if that can die of disuse. A
// failed exercise is tried again an hour later.
func (b *Broker) scheduleExercise(e *entry) {
	e.mu.Lock()
	at := exerciseBy(e.grant, e.traits)
	dead := e.gone || e.cred.Disabled || e.grant.State == tokenbroker.StateReauthorize
	if at.IsZero() || dead || !e.exerciseAt.IsZero() {
		e.mu.Unlock()
		return
	}
	at = later(at, time.Now().Add(min(time.Hour, e.traits.IdleLife/20)))
	e.exerciseAt = at
	e.mu.Unlock()
	b.schedule.add(item{at: at, entry: e})
}

// wantsRefresh reports whether a refresh is due. e.mu is held.
func (v *variant) wantsRefresh(now time.Time) bool {
	if v.blocked(want{}, now) != nil || !v.alive(now) {
		return false
	}
	return !v.token.usable(now) || !now.Before(v.refreshAt)
}

// alive reports whether the variant is to be kept fresh: it is in use, or an exchange of its credential is to be recovered.
func (v *variant) alive(now time.Time) bool {
	return v.inUse(now) || v.e.grant.Intent != nil && v == v.e.own.Load()
}

// nextAt is when something is to be done about a variant: refresh it, or tell subscribers that its token has ended. Zero for
// never. e.mu is held.
func (v *variant) nextAt(now time.Time) time.Time {
	if v.gone || v.e.gone || !v.alive(now) {
		return time.Time{}
	}
	at := v.refreshDue(now)
	if s := v.snap.Load(); s.Token != nil {
		if end := v.token.end(now); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	return at
}

// refreshDue is when the next refresh is due, zero for never. e.mu is held.
func (v *variant) refreshDue(now time.Time) time.Time {
	e := v.e
	at := now
	if v.token.usable(now) {
		at = v.refreshAt
	}
	switch {
	case e.cred.Disabled:
		return time.Time{}
	case e.grant.State == tokenbroker.StateReauthorize || e.grant.State == tokenbroker.StateQuarantined:
		return time.Time{}
	case e.grant.State == tokenbroker.StateMisconfigured:
		at = later(at, e.probeAt)
	}
	if e.grant.Intent != nil {
		at = e.recoverAt(now)
	}
	return later(later(at, v.next), v.refusedTill)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
