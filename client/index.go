package client

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// manySlots are a reason to look for those that are of no use any more.
const manySlots = 1024

// index finds slots by what they are of. Readers look into a copy that nobody changes; what they miss there they find under the lock, and when
// that was as often as there are slots a new copy is made.
type index struct {
	quick atomic.Pointer[map[string]*slot] // credential and variant → slot; a copy

	guard   sync.Mutex // is taken after Client.mu, before a slot's
	slots   map[string]*slot
	misses  int
	sweepAt int
}

// known is the slot of a credential's own variant; nil if it is not in the copy.
func (x *index) known(credential string) *slot {
	if quick := x.quick.Load(); quick != nil {
		return (*quick)[credential]
	}
	return nil
}

// find is the slot of a key, or what make makes; without make it is nil if there is none.
func (x *index) find(key string, make func() *slot) *slot {
	if s := x.known(key); s != nil {
		return s
	}
	x.guard.Lock()
	defer x.guard.Unlock()
	s := x.slots[key]
	if s == nil && make != nil {
		x.sweepLocked()
		s = make()
		x.putLocked(s)
	}
	if x.misses++; x.misses >= len(x.slots) {
		x.copyLocked()
	}
	return s
}

func (x *index) putLocked(s *slot) {
	if x.slots == nil {
		x.slots = map[string]*slot{}
	}
	x.slots[s.key] = s
}

func (x *index) copyLocked() {
	quick := maps.Clone(x.slots)
	x.quick.Store(&quick)
	x.misses = 0
}

// sweepLocked drops the slots that nobody uses and that hold nothing, when there are many: a worker may ask for another subject each time.
func (x *index) sweepLocked() {
	if len(x.slots) < max(x.sweepAt, manySlots) {
		return
	}
	maps.DeleteFunc(x.slots, func(_ string, s *slot) bool { return !s.inUse.Load() && s.good(0) == nil })
	x.sweepAt = 2 * len(x.slots)
	x.copyLocked()
}

// holds reports whether a slot is the one of its key. If there is none it becomes that.
func (x *index) holds(s *slot) bool {
	x.guard.Lock()
	defer x.guard.Unlock()
	if x.slots[s.key] == nil {
		x.putLocked(s)
	}
	return x.slots[s.key] == s
}

// each does something with all slots.
func (x *index) each(do func(*slot)) {
	x.guard.Lock()
	all := slices.Collect(maps.Values(x.slots))
	x.guard.Unlock()
	for _, s := range all {
		do(s)
	}
}

// slot finds or makes the slot of what a caller wants, and says for how long the token has to be valid.
func (c *Client) slot(credential string, opts []Option) (s *slot, least time.Duration) {
	a := asked(opts)
	return c.slotOf(credential, a), a.minValidity
}

// keyOf names a variant; the credential's own, the most frequent, by its credential.
func keyOf(credential string, v tokenbroker.Variant) string {
	if len(v.Scopes) == 0 && v.Subject == "" && v.Audience == "" {
		return credential
	}
	return credential + "\x00" + v.Key()
}

func (c *Client) slotOf(credential string, a ask) *slot {
	v := tokenbroker.NewVariant(a.scopes, a.subject, a.audience)
	key := keyOf(credential, v)
	return c.find(key, func() *slot {
		return &slot{c: c, key: key, variant: v, selector: &tokenbrokerv1.Selector{Credential: credential, Scopes: v.Scopes,
			Subject: v.Subject, Audience: v.Audience}}
	})
}
