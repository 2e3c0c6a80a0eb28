package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// place moves a slot to where it belongs now: to its variant, or among those that wait. It looks again if credentials changed
// meanwhile, since whoever changed them may have missed the slot.
func (b *Broker) place(ctx context.Context, s *slot) error {
	defer b.absolve(s)
	s.place.Lock()
	defer s.place.Unlock()
	for ctx.Err() == nil {
		seen := b.changes.Load()
		err := b.placeOnce(ctx, s)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil || b.changes.Load() == seen {
			return err
		}
	}
	return ctx.Err()
}

func (b *Broker) placeOnce(ctx context.Context, s *slot) error {
	if s.closed {
		return nil
	}
	v, err := b.admitted(ctx, s)
	switch {
	case err == nil && v == s.v:
		return nil
	case err == nil:
		b.unplace(s)
		return b.settleAt(ctx, s, v)
	case ofSelector(err):
		b.turnAway(s, err)
		return nil
	}
	return err
}

// expel takes a slot off the variant that it has, if it may not have it any more.
func (b *Broker) expel(s *slot) {
	defer b.absolve(s)
	s.place.Lock()
	defer s.place.Unlock()
	b.expelPlaced(s)
}

// expelPlaced is expel with s.place held.
func (b *Broker) expelPlaced(s *slot) {
	if s.closed || s.v == nil {
		return
	}
	if err := s.feed.cfg.Admit(s.sel.Credential, s.sel, s.v.v, s.v.otherwise()); ofSelector(err) {
		b.turnAway(s, err)
	}
}

// turnAway parks a slot and tells it why. s.place is held.
func (b *Broker) turnAway(s *slot, err error) {
	b.unplace(s)
	b.park(s)
	s.withdraw(err)
}

// ofSelector reports whether an error concerns one selector, so that the others of the feed go on.
func ofSelector(err error) bool {
	for _, one := range []error{tokenbroker.ErrNotFound, tokenbroker.ErrScopeNotAllowed, tokenbroker.ErrScopesTooWide, tokenbroker.ErrScopeNotGranted, tokenbroker.ErrQuarantined, tokenbroker.ErrTooMany} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// placeAll places every slot that speaks of a credential, after the credential was created, changed or deleted. former are its
// variants of before.
func (b *Broker) placeAll(name string, former []*variant) {
	var slots []*slot
	for _, v := range former {
		v.e.mu.Lock()
		slots = slices.AppendSeq(slots, maps.Keys(v.subs))
		v.e.mu.Unlock()
	}
	b.mu.RLock()
	slots = slices.AppendSeq(slots, maps.Keys(b.parked[name]))
	b.mu.RUnlock()
	for _, s := range slots {
		if err := b.place(b.work, s); err != nil {
			s.feed.fail(err)
		}
	}
}

// admitted finds the variant that a slot may subscribe to: the very one that Admit was asked about, or errGone.
func (b *Broker) admitted(ctx context.Context, s *slot) (*variant, error) {
	e, err := b.entry(ctx, s.sel.Credential)
	if err != nil {
		return nil, err
	}
	c := e.choose(s.sel)
	if err := s.feed.cfg.Admit(s.sel.Credential, s.sel, c.v, nil); err != nil {
		return nil, err
	}
	v, err := b.chosen(ctx, e, c)
	if err != nil {
		return v, err
	}
	if granted := v.otherwise(); granted != nil {
		return v, s.feed.cfg.Admit(s.sel.Credential, s.sel, v.v, granted)
	}
	return v, nil
}

// otherwise are the scopes of the variant's token, if a provider gave others than were asked for; else nil.
func (v *variant) otherwise() []string { return v.snap.Load().Otherwise() }

// settleAt subscribes a slot to a variant and offers it the state, under a revision that the slot has not seen.
func (b *Broker) settleAt(ctx context.Context, s *slot, v *variant) error {
	now := time.Now()
	last := s.lastOrder()
	v.e.mu.Lock()
	if v.gone || v.e.gone {
		v.e.mu.Unlock()
		return errGone
	}
	b.review(v, now)
	snap := v.snap.Load()
	if snap.Order.Compare(last) <= 0 {
		snap = b.view(v, now)
	}
	if len(v.subs) == 0 {
		v.published = snap // all who subscribe are about to be offered it
	}
	v.subscribe(s)
	ev := v.event(EventDeliver)
	v.e.mu.Unlock()
	s.v = v
	b.touch(v, now)
	b.reschedule(v)
	ev.Streams = []uint64{s.feed.ID}
	if err := b.audit(ctx, ev); err != nil {
		return err
	}
	if b.expelPlaced(s); s.v == v { // the policy may have changed while the record was written
		v.offer(s, snap)
	}
	return nil
}

// unplace takes a slot from where it is. s.place is held.
func (b *Broker) unplace(s *slot) {
	if v := s.v; v != nil {
		v.e.mu.Lock()
		v.unsubscribe(s)
		v.e.mu.Unlock()
		s.v = nil
	}
	if s.parked {
		b.mu.Lock()
		name := s.sel.Credential
		if delete(b.parked[name], s); len(b.parked[name]) == 0 {
			delete(b.parked, name)
		}
		b.mu.Unlock()
		s.parked = false
	}
}

// park puts a slot among those that wait for their credential. s.place is held.
func (b *Broker) park(s *slot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := s.sel.Credential
	if b.parked[name] == nil {
		b.parked[name] = map[*slot]struct{}{}
	}
	b.parked[name][s] = struct{}{}
	s.parked = true
}

// absolve judges a slot that is suspect, unless somebody is moving it, who judges it then: moving may wait for a record.
func (b *Broker) absolve(s *slot) {
	for s.suspect.Load() && s.place.TryLock() {
		if s.suspect.Swap(false) {
			b.expelPlaced(s)
		}
		s.place.Unlock()
	}
}
