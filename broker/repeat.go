package broker

import "time"

// Repeat is a request that was answered from memory. The same request may be answered by it again, without finding and judging anew what it
// asks for, as long as nothing changed that the answer, or a decision to give it, could depend on.
type Repeat struct {
	of       *variant
	revision uint64 // of the snapshot that was the answer
	edition  uint64 // of the credential
}

// Edition numbers what a credential is: no two configurations, grants or sets of variants have the same, nor has one that was deleted and
// created anew. It is 0 for one that does not exist or was not used yet.
func (b *Broker) Edition(credential string) uint64 {
	b.mu.RLock()
	e := b.entries[credential]
	b.mu.RUnlock()
	if e == nil {
		return 0
	}
	return e.edition.Load()
}

// Repeat makes a Repeat of a snapshot that Token gave. The edition is the one that the credential had before anything of the request was
// resolved, judged or answered. It is false if the credential became another one since.
func (s *Snapshot) Repeat(edition uint64) (Repeat, bool) {
	r := Repeat{of: s.of, revision: s.Order.Revision, edition: edition}
	return r, edition != 0 && s.of != nil && s.of.e.edition.Load() == edition
}

// Again gives the snapshot once more, to the holder who got it before, if Token would do so from memory. The token has to be valid for at
// least as long as is asked.
func (b *Broker) Again(r Repeat, least time.Duration, now time.Time) (*Snapshot, bool) {
	v := r.of
	s := v.snap.Load()
	switch {
	case s.Order.Revision != r.revision, v.e.edition.Load() != r.edition, !s.usable(now), least > 0 && s.validity(now) < least:
		return nil, false
	}
	b.touch(v, now)
	v.use(s, now)
	return s, true
}

// changed gives the credential its next edition. e.mu is held.
func (e *entry) changed() { e.edition.Store(e.editions.Add(1)) }
