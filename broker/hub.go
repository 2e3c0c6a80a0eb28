package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// errShut answers an Add after Close.
var errShut = errors.New("the feed is closed")

// FeedConfig is what a feed needs.
type FeedConfig struct {
	// Holder is the identity that is going to get what the feed gives.
	Holder string
	// Group tells what feeds are told in a row, as it pays for those of one connection. 0 is a group like the others.
	Group uint64
	// Admit says whether the holder may have a variant: nil, or an error wrapping ErrNotFound or ErrScopeNotAllowed. It is asked
	// when a selector is added, when its credential is created or changed, and at Reconsider. It must not block.
	Admit func(credential string, asked Selection, v tokenbroker.Variant) error
	// Wake is called when Next has something new. It must not block, nor call the feed: the feed is locked meanwhile.
	Wake func()
}

// Feed is one subscriber: a slot per selector, in each the newest state that it has not taken yet. All methods are safe for
// concurrent use.
type Feed struct {
	ID  uint64 // what audit records call the stream
	b   *Broker
	cfg FeedConfig

	mu    sync.Mutex
	slots []*slot
	ready []*slot // those with something to take, oldest first
	err   error
	shut  bool
}

// slot is one selector of a feed. Guarded by feed.mu, but for v, which is guarded by the place lock.
type slot struct {
	feed *Feed
	sel  Selection

	place   sync.Mutex  // held while the slot moves between a variant and the parked ones
	suspect atomic.Bool // to be judged anew by whoever holds place, once it lets go
	v       *variant
	parked  bool
	closed  bool
	pending *Snapshot
	removed error // pending instead of a snapshot
	queued  bool
	last    tokenbroker.Order // newest that was taken or is pending
	told    bool              // the last thing offered was a removal
}

// Update is one thing to tell a subscriber.
type Update struct {
	Selection Selection // as it was asked for
	Snapshot  *Snapshot // nil if Removed is set
	Removed   error     // wraps ErrNotFound, ErrScopeNotAllowed, or for one selector alone ErrQuarantined or ErrTooMany
}

// NewFeed makes a feed without selectors. Close it.
func (b *Broker) NewFeed(cfg FeedConfig) *Feed {
	return &Feed{ID: b.feeds.Add(1), b: b, cfg: cfg}
}

// Add subscribes to a selector. Its current state, or that there is none, is ready to be taken when Add returns. A feed that was
// closed takes no more.
func (f *Feed) Add(ctx context.Context, sel Selection) error {
	s := &slot{feed: f, sel: sel}
	f.mu.Lock()
	shut := f.shut
	if !shut {
		f.slots = append(f.slots, s)
	}
	f.mu.Unlock()
	if shut {
		return errShut
	}
	return f.b.place(ctx, s)
}

// Reconsider asks Admit again about every selector. What is not allowed any more is withdrawn before anything is added, since that
// needs no audit record. An error ends the feed: what it holds could not be judged.
func (f *Feed) Reconsider(ctx context.Context) error {
	f.mu.Lock()
	slots := slices.Clone(f.slots)
	f.mu.Unlock()
	f.Withdraw()
	for _, s := range slots {
		if err := f.b.place(ctx, s); err != nil {
			f.fail(err)
			return err
		}
	}
	return nil
}

// Withdraw is the first half of Reconsider: it takes away what is not allowed any more, at once and without I/O.
func (f *Feed) Withdraw() {
	f.mu.Lock()
	slots := slices.Clone(f.slots)
	f.mu.Unlock()
	for _, s := range slots {
		s.suspect.Store(true)
		f.b.absolve(s)
	}
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

// Next takes what is to be told next; false if there is nothing. An error ends the feed. A token that was taken counts as
// handed to the holder, who may report it as rejected.
func (f *Feed) Next() (Update, bool, error) {
	for {
		u, ok, err := f.next()
		switch s := u.Snapshot; {
		case s == nil || s.Token == nil:
			return u, ok, err
		case s.usable(time.Now()):
			s.of.hand(f.cfg.Holder, s, time.Now())
			return u, ok, err
		default: // it ended in the slot
			f.b.startBackground(func() { f.b.outlive(s.of) })
		}
	}
}

func (f *Feed) next() (Update, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || len(f.ready) == 0 {
		return Update{}, false, f.err
	}
	s := f.ready[0]
	f.ready[0] = nil
	f.ready = f.ready[1:]
	u := Update{Selection: s.sel, Snapshot: s.pending, Removed: s.removed}
	s.pending, s.removed, s.queued = nil, nil, false
	return u, true, nil
}

// Close ends all subscriptions. Nothing is woken after it returned.
func (f *Feed) Close() {
	f.mu.Lock()
	f.shut = true
	slots := f.slots
	f.slots, f.ready = nil, nil
	f.mu.Unlock()
	for _, s := range slots {
		s.place.Lock()
		f.b.unplace(s)
		s.closed = true
		s.place.Unlock()
	}
}

// offer puts a state into the slot, unless the slot has or had a newer one.
func (s *slot) offer(snap *Snapshot) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut || snap.Order.Compare(s.last) <= 0 {
		return
	}
	s.last, s.told = snap.Order, false
	s.pending, s.removed = snap, nil
	f.enqueueLocked(s)
}

// withdraw puts a removal into the slot, unless that is the last thing it was told.
func (s *slot) withdraw(err error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut || s.told {
		return
	}
	s.told = true
	s.pending, s.removed = nil, err
	f.enqueueLocked(s)
}

func (f *Feed) enqueueLocked(s *slot) {
	if !s.queued {
		s.queued = true
		f.ready = append(f.ready, s)
	}
	f.cfg.Wake()
}

// fail ends the feed with an error.
func (f *Feed) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut || f.err != nil {
		return
	}
	f.err = err
	f.cfg.Wake()
}

func (s *slot) lastOrder() tokenbroker.Order {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return s.last
}

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
	if err := s.feed.cfg.Admit(s.sel.Credential, s.sel, s.v.judged()); ofSelector(err) {
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
	for _, one := range []error{tokenbroker.ErrNotFound, tokenbroker.ErrScopeNotAllowed, tokenbroker.ErrQuarantined, tokenbroker.ErrTooMany} {
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
	if err := s.feed.cfg.Admit(s.sel.Credential, s.sel, c.v); err != nil {
		return nil, err
	}
	v, err := b.chosen(ctx, e, c)
	if err != nil || !v.widened() {
		return v, err
	}
	return v, s.feed.cfg.Admit(s.sel.Credential, s.sel, v.judged())
}

// judged is the variant as its token has it: a provider may have given other scopes than were asked.
func (v *variant) judged() tokenbroker.Variant {
	out := v.v
	if t := v.snap.Load().Token; t != nil && len(t.Scopes) > 0 {
		out.Scopes = t.Scopes
	}
	return out
}

func (v *variant) widened() bool {
	t := v.snap.Load().Token
	return t != nil && len(t.Scopes) > 0 && !slices.Equal(t.Scopes, v.v.Scopes)
}

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
