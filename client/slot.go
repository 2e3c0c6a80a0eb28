package client

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// slot is what a client holds of one variant of a credential. Who asks for a token reads one pointer; whoever swaps a token in arms the
// timer that swaps it out at its end.
type slot struct {
	c        *Client
	key      string
	selector *tokenbrokerv1.Selector // as it was asked for; never changed
	variant  tokenbroker.Variant     // the same
	shard    *shard                  // keeps a stream for it; nil = it is not in use. Guarded by Client.mu
	bytes    int                     // of the selector, while it has a shard. Guarded by Client.mu
	inUse    atomic.Bool             // it has a shard
	now      atomic.Pointer[held]    // what there is to hand out without asking; nil = ask

	mu       sync.Mutex
	best     *held      // the newest, until it ends: what stands in when the broker does not answer
	state    Update     // the newest
	told     uint64     // counts states; 0 = none yet
	toldAll  uint64     // of them, those that Config.OnChange was told
	over     bool       // no state can follow
	watchers []*watcher // who is told
	by       *link      // the stream that answers for it; nil = none, and GetToken has to
	askAt    time.Time  // without a stream: when to ask; zero = not until somebody wants a token
	failures int        // in a row
	why      error      // of the last failure, while it counts
	asked    bool       // somebody has asked for a token, and not only watched
	used     time.Time  // when somebody was last seen to
	life     time.Duration
	timer    *time.Timer // looks at all this
	stopped  bool
}

// glance is how often a slot's clocks are looked at, at least: after a machine slept its timers are late.
const glance = 30 * time.Second

// leastLife is the least that counts as a token's life for how long a slot stays in use.
const leastLife = 30 * time.Second

// ready is the token, if there is one to hand out without asking.
func (s *slot) ready() *held {
	h := s.now.Load()
	if h != nil && !h.read.Load() { // written once per look, so that readers share the line
		h.read.Store(true)
	}
	return h
}

// good is the last good token that is valid for long enough; nil if there is none.
func (s *slot) good(least time.Duration) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.best != nil && s.best.left(time.Now()) > max(skew, least) {
		return s.best
	}
	return nil
}

// has reports whether what is held was granted exactly these scopes, which are sorted, and nothing is known of the credential having others.
func (s *slot) has(scopes []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := func(have []string) bool { return slices.Equal(tokenbroker.NewVariant(have, "", "").Scopes, scopes) }
	return s.best != nil && same(s.best.token.Scopes) && (len(s.state.Scopes) == 0 || same(s.state.Scopes))
}

// touch notes that somebody wants a token.
func (s *slot) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.used = true, time.Now()
}

// trouble is why there is no token, as far as that is known.
func (s *slot) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

func (s *slot) troubled(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = unreached(err)
}

// fetched takes the reply to a call, and returns the newest token. It knows no revision: only a newer generation is news.
func (s *slot) fetched(t *tokenbrokerv1.Token, u Update) *held {
	now, tok := time.Now(), fromProto(t)
	h := newHeld(tok, u.RefreshTime, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures, s.why = 0, nil
	if s.best != nil && s.best.left(now) > skew && s.best.token.Generation >= tok.Generation {
		h = s.renewLocked(h)
	}
	s.holdLocked(h, now)
	u.Order, u.Token = tokenbroker.Order{Generation: h.token.Generation}, &h.token
	u.Scopes, u.Subject, u.Audience = s.variant.Scopes, s.variant.Subject, s.variant.Audience
	if s.told == 0 || s.state.Err != nil || s.state.Order.Generation != u.Order.Generation {
		s.tellLocked(u)
	}
	return h
}

// renewLocked is the token that is held already, with what a reply says of its refresh.
func (s *slot) renewLocked(h *held) *held {
	if s.best.token.Generation > h.token.Generation || h.due.IsZero() {
		return s.best
	}
	if !s.best.due.IsZero() && !time.Now().Before(s.best.due) {
		h.due = s.best.due // what was due then still is
	}
	h.life = s.best.life
	return h
}

// holdLocked has a token handed out.
func (s *slot) holdLocked(h *held, now time.Time) {
	if s.best != nil && s.best != h && s.best.read.Load() {
		s.asked, s.used = true, now
	}
	s.best, s.life, s.askAt = h, h.life, h.askAt(now)
	if h.left(now) <= skew {
		h = nil
	}
	s.now.Store(h)
	s.armLocked(now)
}

// take takes an update of a stream.
func (s *slot) take(by *link, u Update) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by, s.failures, s.why = by, 0, nil
	defer s.armLocked(now)
	back := u.Order.Compare(s.state.Order)
	if back < 0 && (u.Token == nil || s.best != nil && s.best.left(now) > skew) {
		return // of a broker that is behind; better than nothing where there is nothing
	}
	if back == 0 && s.told > 0 && s.state.Err == nil && (u.Token == nil) == (s.now.Load() == nil) {
		return
	}
	s.tokenLocked(u, now)
	if back != 0 || s.told == 0 || s.state.Err != nil {
		s.tellLocked(u)
	}
}

// tokenLocked takes what an update says of the token. One that the broker has no more is not handed out without asking, and no more at
// all if somebody has seen to that.
func (s *slot) tokenLocked(u Update, now time.Time) {
	if u.Token != nil {
		h := newHeld(*u.Token, u.RefreshTime, now)
		if s.best != nil && s.best.token.Generation == h.token.Generation {
			h = s.renewLocked(h)
		}
		s.holdLocked(h, now)
		return
	}
	s.now.Store(nil)
	if u.State == tokenbroker.StateDisabled || u.State == tokenbroker.StateQuarantined {
		s.best = nil
	}
}

// tellLocked tells those who watch.
func (s *slot) tellLocked(u Update) {
	s.state = u
	s.told++
	for _, w := range s.watchers {
		w.note(s)
	}
	if s.c.all != nil {
		s.c.all.note(s)
	}
}

// deny takes it that the broker gives nothing. Whoever asks for a token from now on has to hear it from the broker; last says that no
// state can follow.
func (s *slot) deny(err error, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Store(nil)
	s.by, s.over = nil, last
	if s.state.Err == nil || s.state.Err.Error() != err.Error() {
		s.tellLocked(Update{Order: s.state.Order, Err: err})
	}
	s.armLocked(time.Now())
}

// removed takes it that a stream has nothing for the slot. If a token is held, that may be for want of a right to streams alone, so
// that the broker is asked.
func (s *slot) removed(err error) (ask bool) {
	if s.good(0) == nil || errors.Is(err, tokenbroker.ErrTooMany) {
		s.deny(err, false)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = nil
	s.now.Store(nil)
	return true
}

// leave notes that a stream answers no more.
func (s *slot) leave(by *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != by {
		return
	}
	now := time.Now()
	s.by = nil
	if soon := now.Add(time.Second + jitter(5)); s.askAt.Before(soon) {
		s.askAt = soon // the stream is likely back before that
	}
	s.armLocked(now)
}

// failed takes a call that failed: it puts off the next question, or forgets the token if the broker does not give it to this identity any
// more.
func (s *slot) failed(err error) {
	if errors.Is(err, tokenbroker.ErrMinValidity) {
		return // it says nothing to those who ask for less
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = err
	s.failures++
	wait := jitter(s.failures)
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		wait = max(wait, p.RetryAfter)
	}
	s.askAt = now.Add(max(wait, 100*time.Millisecond))
	switch {
	case unanswered(err):
		if s.best != nil && s.best.left(now) > skew {
			s.now.Store(s.best)
		}
	case refused(err):
		s.now.Store(nil)
		s.best, s.askAt = nil, time.Time{}
		if s.told > 0 && s.state.Err == nil {
			s.tellLocked(Update{Order: s.state.Order, Err: err})
		}
	default:
		s.now.Store(nil)
	}
	s.armLocked(now)
}

// look sees to what time has brought.
func (s *slot) look() {
	now := time.Now()
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	read := s.best != nil && s.best.read.Swap(false)
	if s.asked = s.asked || read; read || len(s.watchers) > 0 {
		s.used = now
	}
	if s.best != nil && s.best.left(now) <= skew {
		s.now.Store(nil)
		s.best = nil
	}
	idle := now.Sub(s.used) > 2*max(s.life, leastLife)
	ask := s.by == nil && !s.askAt.IsZero() && !now.Before(s.askAt)
	if ask {
		s.askAt = now.Add(callTimeout)
		if idle || !s.inUse.Load() {
			s.askAt = time.Time{}
			s.now.Store(nil)
		}
		ask = !s.askAt.IsZero()
	}
	s.armLocked(now)
	s.mu.Unlock()
	switch {
	case idle:
		s.c.dismiss(s)
	case ask:
		s.c.refresh(s)
	case read && !s.inUse.Load():
		s.c.enroll(s, false)
	}
}

// armLocked has the slot looked at in time.
func (s *slot) armLocked(now time.Time) {
	if s.stopped || s.best == nil && !s.inUse.Load() {
		return
	}
	next := glance
	if s.best != nil {
		next = min(next, s.best.left(now)-skew)
	}
	if s.by == nil && !s.askAt.IsZero() {
		next = min(next, s.askAt.Sub(now))
	}
	next = max(next, time.Millisecond)
	if s.timer == nil {
		s.timer = time.AfterFunc(next, s.look)
		return
	}
	s.timer.Reset(next)
}

// stop ends the slot's clock.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// watch has somebody told of each state from now on.
func (s *slot) watch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	s.watchers = append(s.watchers, w)
}

// unwatch undoes watch, and reports whether that was all that the slot was for.
func (s *slot) unwatch(w *watcher) (useless bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	s.watchers = slices.DeleteFunc(s.watchers, func(x *watcher) bool { return x == w })
	return len(s.watchers) == 0 && (s.best == nil || !s.asked && !s.best.read.Load())
}

// newest is the state, and how many there were.
func (s *slot) newest() (u Update, told uint64, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.told, s.over
}

// forAll is newest for Config.OnChange; fresh says that it was not told so before.
func (s *slot) forAll() (u Update, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = s.toldAll < s.told
	s.toldAll = s.told
	return s.state, fresh
}

// dead reports whether the broker can't read what was asked for.
func (s *slot) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}
