package client

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker"
)

const (
	mostSelectors = 256                    // of a stream; fewer if the broker says so
	mostBytes     = 96 << 10               // of them, which is what a broker takes of a request and some room
	settle        = 50 * time.Millisecond  // between openings of a stream, so that many names cause few
	settleMost    = 2 * time.Second        // the same where the set of names changes all the time: each opening is work for the broker
	calm          = 10 * time.Second       // without an opening; then the next one is soon again
	unusedFor     = time.Minute            // a selector that nobody uses stays: to open a stream anew costs the broker more
	deniedFor     = 5 * time.Minute        // until a broker that allows no streams is asked again
	crowdedFor    = 30 * time.Second       // until a credential with too many variants in use is asked for again
	ebbing        = 500 * time.Millisecond // at most, until a stream of a broker that drains is opened elsewhere
)

// shard keeps a stream open for the slots that it is given. Another set of them, or a broker that is about to end, has a new stream
// opened; the old one stays until the new one has told all that there is.
type shard struct {
	c       *Client
	changed chan struct{} // holds a value when the set has changed
	events  chan event    // of its links

	// Guarded by Client.mu.
	slots  map[*slot]bool
	bytes  int  // of their selectors
	urgent bool // somebody waits for the stream to tell
	waning bool // the change is no more than that slots went
}

// event is what a link tells its shard.
type event struct {
	of   *link
	kind eventKind
	err  error // with ended
}

type eventKind int

const (
	snapshot eventKind = iota // every slot was answered once
	away                      // the broker is about to end
	crowded                   // a slot has to be asked for again later
	ended
)

// enroll brings a slot into use. urgent says that somebody waits for what the stream tells, and not for a token.
func (c *Client) enroll(s *slot, urgent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || s.shard != nil || !c.holds(s) {
		return
	}
	c.placeLocked(s)
	s.inUse.Store(true)
	s.shard.urgent = s.shard.urgent || urgent
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armLocked(time.Now())
}

// placeLocked gives a slot to a shard.
func (c *Client) placeLocked(s *slot) {
	size := proto.Size(s.selector) + 8
	sh := c.shardLocked(size)
	sh.slots[s], sh.bytes, sh.waning = true, sh.bytes+size, false
	s.shard, s.bytes = sh, size
	sh.poke()
}

// shardLocked is a shard with room.
func (c *Client) shardLocked(size int) *shard {
	for _, sh := range c.shards {
		if len(sh.slots) < c.most && sh.bytes+size <= mostBytes {
			return sh
		}
	}
	sh := &shard{c: c, changed: make(chan struct{}, 1), events: make(chan event), slots: map[*slot]bool{}}
	c.shards = append(c.shards, sh)
	c.begin(sh)
	return sh
}

// dismiss takes a slot out of use, unless somebody watches it.
func (c *Client) dismiss(s *slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	watched := len(s.watchers) > 0
	s.mu.Unlock()
	if !watched {
		c.dropLocked(s)
	}
}

func (c *Client) dropLocked(s *slot) {
	sh := s.shard
	if sh == nil {
		return
	}
	sh.waning = sh.waning || len(sh.changed) == 0
	sh.remove(s)
	s.shard = nil
	s.inUse.Store(false)
	sh.poke()
}

func (sh *shard) remove(s *slot) {
	delete(sh.slots, s)
	sh.bytes -= s.bytes
}

func (sh *shard) poke() {
	select {
	case sh.changed <- struct{}{}:
	default:
	}
}

// upkeep is what a shard's goroutine knows.
type upkeep struct {
	sh        *shard
	cur, next *link // the stream that tells, and the one that is to take its place; nil = none
	anew      bool  // open one even if the set is the same
	failures  int   // in a row
	opened    time.Time
	hurried   int         // openings in a row with less than calm between them
	timer     *time.Timer // to the next opening
	at        time.Time   // when that is; zero = none is planned
	links     sync.WaitGroup
}

// run keeps the stream until ctx ends.
func (sh *shard) run(ctx context.Context) {
	u := &upkeep{sh: sh, timer: time.NewTimer(time.Hour)}
	u.timer.Stop()
	defer u.timer.Stop()
	defer u.links.Wait()
	for {
		select {
		case <-sh.changed:
			u.change()
		case <-u.timer.C:
			u.at = time.Time{}
			u.open(ctx)
		case e := <-sh.events:
			u.on(e)
		case <-ctx.Done():
			return
		}
	}
}

// change plans for another set of slots.
func (u *upkeep) change() {
	c := u.sh.c
	c.mu.Lock()
	urgent, waning := u.sh.urgent, u.sh.waning && len(u.sh.slots) > 0 // to end a stream costs nothing
	u.sh.urgent, u.sh.waning = false, false
	c.mu.Unlock()
	switch {
	case u.failures > 0 && !u.at.IsZero(): // its time comes, and no sooner for this
	case waning:
		u.plan(unusedFor)
	case urgent:
		u.plan(u.pace() - time.Since(u.opened))
	default:
		u.plan(u.pace())
	}
}

// pace is how long to wait before an opening for another set of slots.
func (u *upkeep) pace() time.Duration {
	if time.Since(u.opened) >= calm {
		return settle
	}
	return min(settle<<min(u.hurried, 10), settleMost)
}

// plan has a stream opened after d, unless that is planned for sooner.
func (u *upkeep) plan(d time.Duration) {
	at := time.Now().Add(max(d, 0))
	if !u.at.IsZero() && u.at.Before(at) {
		return
	}
	u.at = at
	u.timer.Reset(max(d, 0))
}

// open opens a stream for the slots that there are now.
func (u *upkeep) open(ctx context.Context) {
	c := u.sh.c
	c.mu.Lock()
	slots := make([]*slot, 0, len(u.sh.slots))
	for s := range u.sh.slots {
		slots = append(slots, s)
	}
	c.mu.Unlock()
	if u.next != nil {
		if u.next.covers(slots) {
			return
		}
		u.next.cancel()
		u.next = nil
	}
	if len(slots) == 0 || u.cur != nil && !u.anew && u.cur.covers(slots) {
		u.drop(len(slots) == 0)
		return
	}
	if u.hurried++; time.Since(u.opened) >= calm {
		u.hurried = 0
	}
	u.opened, u.anew = time.Now(), false
	next, life := newLink(ctx, slots)
	u.next = next
	u.links.Go(func() {
		err := next.follow(life, c.tokens, func(k eventKind) { next.tell(ctx, u.sh, event{of: next, kind: k}) })
		next.cancel()
		next.tell(ctx, u.sh, event{of: next, kind: ended, err: err})
	})
}

// drop ends the stream if nobody is left to use it.
func (u *upkeep) drop(all bool) {
	if all && u.cur != nil {
		u.cur.cancel()
		u.cur = nil
	}
}

// on acts on what a link tells.
func (u *upkeep) on(e event) {
	switch {
	case e.of != u.cur && e.of != u.next: // it was given up
	case e.kind == snapshot && e.of == u.next:
		if u.cur != nil {
			u.cur.cancel()
		}
		u.cur, u.next, u.failures = e.of, nil, 0
	case e.kind == away && e.of == u.cur:
		u.anew = true
		u.plan(upTo(ebbing))
	case e.kind == crowded:
		u.anew = true
		u.plan(crowdedFor + upTo(crowdedFor))
	case e.kind == ended && e.of == u.cur:
		u.cur = nil
		u.plan(jitter(2))
	case e.kind == ended:
		u.next = nil
		u.failures++
		u.plan(u.failed(e))
	}
}

// failed is how long to wait after a stream that did not come to tell all.
func (u *upkeep) failed(e event) time.Duration {
	err := fromStatus(e.err)
	p, _ := errors.AsType[*tokenbroker.Problem](err)
	switch status.Code(e.err) {
	case codes.InvalidArgument:
		return u.malformed(e.of, p, err)
	case codes.PermissionDenied, codes.Unimplemented: // whoever has a token gets it by GetToken
		for _, s := range e.of.slots {
			if s.good(0) == nil {
				s.deny(err, false)
			}
		}
		return deniedFor + upTo(deniedFor)
	default:
		wait := jitter(u.failures)
		if p != nil {
			wait += p.RetryAfter
		}
		return wait
	}
}

// malformed finds out which slots the broker can't read: one that it names, or more than it takes of a stream.
func (u *upkeep) malformed(l *link, p *tokenbroker.Problem, err error) time.Duration {
	i := -1
	if p != nil {
		i = indexOf(p.Field)
	}
	c := u.sh.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case i >= 0 && i < len(l.slots):
		c.dropLocked(l.slots[i])
		l.slots[i].deny(err, true)
	case len(l.slots) == 1:
		c.dropLocked(l.slots[0])
		l.slots[0].deny(err, true)
	default:
		c.most = min(c.most, (len(l.slots)+1)/2)
		c.spreadLocked(u.sh)
	}
	u.failures = 0
	return 0
}

// indexOf reads "selectors[3].credential"; -1 if it is not of that form.
func indexOf(field string) int {
	rest, ok := strings.CutPrefix(field, "selectors[")
	digits, _, closed := strings.Cut(rest, "]")
	i, err := strconv.Atoi(digits)
	if !ok || !closed || err != nil {
		return -1
	}
	return i
}

// spreadLocked moves slots for which a shard has no room to others.
func (c *Client) spreadLocked(sh *shard) {
	for s := range sh.slots {
		if len(sh.slots) <= c.most {
			return
		}
		sh.remove(s)
		c.placeLocked(s)
	}
}
