package broker

import (
	"context"
	"errors"
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
	// Admit says whether the holder may have a variant: nil, or an error wrapping ErrNotFound, ErrScopeNotAllowed or ErrScopesTooWide.
	// granted are the scopes that its token has, where they are others than were asked for, else nil. It is asked when a selector is
	// added, when its credential is created or changed, when a token with other scopes comes in, and at Reconsider. It must not block.
	Admit func(credential string, asked Selection, v tokenbroker.Variant, granted []string) error
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
	Removed   error     // wraps ErrNotFound, ErrScopeNotAllowed, ErrScopesTooWide, or for one selector alone ErrQuarantined or ErrTooMany
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
