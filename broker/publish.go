package broker

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// auditBatch is how many streams one record of a delivery names: a record makes its batch wait, and its line must not grow too long.
const auditBatch = 2000

// publish offers a variant's state to its subscribers, after a record that names them. It waits for no subscriber. Where the record
// can't be written the streams end instead: no audit record, no token.
func (b *Broker) publish(v *variant) {
	v.e.mu.Lock()
	snap := v.snap.Load()
	v.published = snap
	ev := v.event(EventDeliver)
	v.e.mu.Unlock()
	if v.otherwise() != nil {
		for _, s := range v.subscribers() {
			b.expel(s)
		}
	}
	slots := v.subscribers()
	for batch := range slices.Chunk(slots, auditBatch) {
		ev.Streams = make([]uint64, len(batch))
		for i, s := range batch {
			ev.Streams[i] = s.feed.ID
		}
		err := b.audit(b.work, ev)
		for _, s := range batch {
			if err != nil {
				s.feed.fail(err)
				continue
			}
			v.offer(s, snap)
		}
	}
}

// offer offers a state to a slot that subscribes still. While the record was written it may have been taken off the variant, and told so:
// nothing may come after that.
func (v *variant) offer(s *slot, snap *Snapshot) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if _, ok := v.subs[s]; ok {
		s.offer(snap)
	}
}

// subscribers lists who subscribes, those of one group in a row. Nobody may change the list, which serves until who subscribes changes.
func (v *variant) subscribers() []*slot {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if v.inOrder == nil {
		v.inOrder = slices.SortedFunc(maps.Keys(v.subs), func(s, t *slot) int {
			return cmp.Or(cmp.Compare(s.feed.cfg.Group, t.feed.cfg.Group), cmp.Compare(s.feed.ID, t.feed.ID))
		})
	}
	return v.inOrder
}

// subscribe and unsubscribe keep the list of subscribers. e.mu is held.
func (v *variant) subscribe(s *slot) {
	v.subs[s] = struct{}{}
	v.inOrder = nil
	v.e.streams.Add(1)
}

func (v *variant) unsubscribe(s *slot) {
	if _, ok := v.subs[s]; ok {
		delete(v.subs, s)
		v.inOrder = nil
		v.e.streams.Add(-1)
	}
}

// untold reports whether subscribers have yet to be told of the variant's state. e.mu is held.
func (v *variant) untold() bool { return len(v.subs) > 0 && v.published != v.snap.Load() }

// tell publishes a variant's state unless its subscribers know it.
func (b *Broker) tell(v *variant) {
	v.e.mu.Lock()
	untold := v.untold()
	v.e.mu.Unlock()
	if untold {
		b.publish(v)
	}
}

// outlive tells subscribers that a variant's token has ended, if they do not know.
func (b *Broker) outlive(v *variant) {
	v.e.mu.Lock()
	b.review(v, time.Now())
	v.e.mu.Unlock()
	b.tell(v)
}

// publishAll is for a change that may concern every variant of a credential: each is looked at anew, told of if its state is
// another one, and put on the schedule.
func (b *Broker) publishAll(e *entry) {
	now := time.Now()
	e.mu.Lock()
	all := make([]*variant, 0, len(e.variants))
	for _, v := range e.variants {
		b.review(v, now)
		all = append(all, v)
	}
	e.mu.Unlock()
	for _, v := range all {
		b.tell(v)
		b.reschedule(v)
	}
}
