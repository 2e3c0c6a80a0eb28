package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// reschedule puts a variant on the schedule for the next moment at which something is to be done about it, if there is one.
func (b *Broker) reschedule(v *variant) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	b.plan(v, time.Now())
}

// plan is reschedule with e.mu held. The variant is called idle before it is looked at: a reader notes its read first and
// looks for idle then, so that one of the two sees the other.
func (b *Broker) plan(v *variant, now time.Time) {
	v.idle.Store(true)
	at := v.nextAt(now)
	if !at.IsZero() {
		v.idle.Store(false)
	}
	b.schedule.set(&v.item, at)
}

// due handles an item of the schedule. It does not block: a refresh is a flight of its own.
func (b *Broker) due(it *item) {
	if it.entry == nil && it.variant == nil {
		b.startBackground(func() { b.lookAtAllSecrets(b.work) })
		return
	}
	if it.entry != nil {
		b.startBackground(func() { b.exercise(it.entry) })
		return
	}
	v, now := it.variant, time.Now()
	v.e.mu.Lock()
	if v.gone || v.e.gone {
		v.e.mu.Unlock()
		return
	}
	b.review(v, now)
	tell := v.untold()
	at := v.refreshDue(now)
	fly := v.alive(now) && !at.IsZero() && !at.After(now)
	if !fly {
		b.plan(v, now)
	}
	after := v.snap.Load().Order.Generation
	v.e.mu.Unlock()
	if tell {
		b.startBackground(func() { b.publish(v) })
	}
	if fly {
		b.flights.DoChan(v.id, func() (any, error) { return b.fly(v, want{after: after, due: true}) })
	}
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
		b.exerciseLater(e)
		return
	}
	if v.e != e {
		return // deleted and created again: another entry, with an item of its own
	}
	e.mu.Lock()
	at := exerciseBy(e.grant, e.traits)
	now := time.Now()
	needed := !e.cred.Disabled && (e.grant.Intent != nil || !at.IsZero() && !at.After(now))
	ended := over(e.grant, now) && e.grant.State != tokenbroker.StateReauthorize
	warning, tell := e.warn(now)
	e.mu.Unlock()
	if tell {
		b.observe(warning)
	}
	if ended {
		b.condemn(e)
	}
	b.pursue(b.work, e)
	if needed {
		after := v.snap.Load().Order.Generation
		r := <-b.flights.DoChan(v.id, func() (any, error) { return b.fly(v, want{after: after}) })
		if errors.Is(r.Err, errGone) {
			b.exerciseLater(e)
			return
		}
	}
	b.scheduleExercise(e)
}

// condemn makes durable that a grant has reached its end.
func (b *Broker) condemn(e *entry) {
	now := time.Now()
	e.mu.Lock()
	v := tokenbroker.Verdict{Credential: e.name, UID: e.cred.UID, Serial: e.grant.Serial, State: tokenbroker.StateReauthorize,
		Code: e.lacking(now), Time: now}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.work, commitTimeout)
	defer cancel()
	g, err := b.cfg.Store.Abort(ctx, v)
	if err != nil { // what memory shows is the same; the next start tries again
		return
	}
	e.mu.Lock()
	e.keep(g)
	e.mu.Unlock()
	b.publishAll(e)
}

// exerciseLater tries an exercise again of which not even the beginning worked.
func (b *Broker) exerciseLater(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.gone {
		b.schedule.set(&e.item, time.Now().Add(exerciseRetry))
	}
}

// warn makes the event that tells of a refresh token's end coming near, once for each of the warnings that is due. e.mu is held.
func (e *entry) warn(now time.Time) (Event, bool) {
	due := warned(e.grant, e.traits, now)
	tell := due > e.warned
	e.warned = due
	return Event{Kind: EventExpiring, Credential: e.name, Provider: e.cred.Provider, Client: e.cred.Client, Grant: e.cred.Grant,
		Holds: e.grant.Holds, Serial: e.grant.Serial, State: e.grant.State, Expiry: grantEnd(e.grant, e.traits)}, tell
}

// scheduleExercise sees to it that the schedule looks at the credential's refresh token in time, if that can die of disuse or if its
// end has to be warned of. A failed exercise is tried again an hour later.
func (b *Broker) scheduleExercise(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		b.schedule.set(&e.item, time.Time{})
		return
	}
	at := e.lookAt(time.Now())
	if r := e.grant.Revoking; r != nil {
		at = first(at, r.Next)
	}
	b.schedule.set(&e.item, at)
}

// lookAt is when a credential's grant is to be looked at although nobody uses it; zero for never. e.mu is held.
func (e *entry) lookAt(now time.Time) time.Time {
	if e.grant.State == tokenbroker.StateReauthorize {
		return time.Time{}
	}
	at := exerciseBy(e.grant, e.traits)
	switch {
	case e.cred.Disabled: // it is kept, and so its end is warned of
		at = time.Time{}
	case !at.IsZero():
		at = later(at, now.Add(exerciseEvery(e.grant, e.traits, now)))
	}
	if due := warned(e.grant, e.traits, now); due > e.warned {
		at = now // an edit or a reply brought the end near
	} else {
		e.warned = due // and one that moved it away is warned of anew
	}
	if end := endsAt(e.grant); !end.IsZero() {
		at = first(at, later(end, now.Add(exerciseRetry)))
	}
	return first(at, nextWarning(e.grant, e.traits, now))
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

// refreshDue is when the next refresh is due, zero for never. Where it is not later than now, blocked has no objection: the
// schedule would turn in a circle otherwise. e.mu is held.
func (v *variant) refreshDue(now time.Time) time.Time {
	e := v.e
	if e.cred.Disabled || e.grant.State == tokenbroker.StateReauthorize || e.grant.State == tokenbroker.StateQuarantined || e.lacking(now) != "" {
		return time.Time{}
	}
	at := now
	if v.token.usable(now) {
		at = v.refreshAt
	}
	if e.grant.Intent != nil {
		at = e.recoverAt(now)
	}
	if e.grant.State == tokenbroker.StateMisconfigured {
		at = later(at, e.probeAt)
	}
	return later(later(at, v.next), v.refusedTill)
}

// nextTry is when the next refresh is due if nobody asks for one sooner; zero if none is.
func (v *variant) nextTry(now time.Time) time.Time {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if v.gone || v.e.gone || !v.alive(now) {
		return time.Time{}
	}
	return v.refreshDue(now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
