package usage

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How much a Book keeps.
const (
	MaxIdentities = 1_000  // of one credential
	MaxRules      = 10_000 // of all policies that were in force
)

// Book is the count. All its methods are safe for concurrent use, and do nothing on a nil Book.
type Book struct {
	saving sync.Mutex // held while the book is written

	mu     sync.RWMutex
	since  time.Time
	of     map[string]*ledger    // credential → who used it
	rules  map[string]*ruleEntry // rule → when it was of use
	doomed map[string]bool       // credentials whose documents are to be deleted
	dirty  bool                  // since, or when a rule was of use, is not saved
}

// ledger is who used one credential.
type ledger struct {
	by    map[string]*entry // identity → its use
	dirty bool
}

// entry is one identity's use of one credential. What is not atomic is guarded by the book's lock.
type entry struct {
	credential, identity string
	last                 atomic.Int64 // minutes since 1970; 0 = not used yet
	first                int64        // seconds since 1970
	rule                 string       // that allowed it last
}

// ruleEntry is when a rule was of use.
type ruleEntry struct {
	name string
	last atomic.Int64 // minutes since 1970; 0 = not of use yet
}

// Use is one identity's way to one credential by one rule. It may be kept, so that the next use has nothing to look up.
type Use struct {
	book *Book
	by   *entry
	rule *ruleEntry
}

// User is who used a credential.
type User struct {
	Identity string
	Rule     string    // that allowed it last
	First    time.Time // since the book counts
	Last     time.Time // to the minute
}

// New begins a book that counts since now.
func New(now time.Time) *Book {
	return &Book{since: now.UTC().Truncate(time.Second), of: map[string]*ledger{}, rules: map[string]*ruleEntry{}, doomed: map[string]bool{}, dirty: true}
}

// Use finds the way of an identity to a credential by a rule. Nothing is counted until it is marked.
func (b *Book) Use(credential, identity, rule string) Use {
	if b == nil {
		return Use{}
	}
	b.mu.RLock()
	u := Use{book: b, rule: b.rules[rule]}
	if l := b.of[credential]; l != nil {
		u.by = l.by[identity]
	}
	b.mu.RUnlock()
	if u.by != nil && u.rule != nil {
		return u
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return Use{book: b, by: b.entryLocked(credential, identity), rule: b.ruleLocked(rule)}
}

// Mark counts a use.
func (u Use) Mark(now time.Time) {
	minute := now.Unix() / 60
	if u.book == nil || u.by.last.Load() == minute && u.rule.last.Load() == minute {
		return
	}
	u.book.mark(u, now.Unix())
}

// mark is Mark for the first use of a minute. What the book has dropped meanwhile comes in anew.
func (b *Book) mark(u Use, second int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	minute := second / 60
	u.by.last.Store(minute)
	u.rule.last.Store(minute)
	e, r := b.entryLocked(u.by.credential, u.by.identity), b.ruleLocked(u.rule.name)
	if e.first == 0 {
		e.first = second
	}
	e.rule = r.name
	e.last.Store(minute)
	r.last.Store(minute)
	b.of[e.credential].dirty, b.dirty = true, true
	delete(b.doomed, e.credential)
}

// entryLocked finds what is kept of an identity and a credential, or makes room for it.
func (b *Book) entryLocked(credential, identity string) *entry {
	l := b.of[credential]
	if l == nil {
		l = &ledger{by: map[string]*entry{}}
		b.of[credential] = l
	}
	e := l.by[identity]
	if e == nil {
		shrink(l.by, MaxIdentities, func(e *entry) int64 { return e.last.Load() })
		e = &entry{credential: credential, identity: identity}
		l.by[identity] = e
	}
	return e
}

func (b *Book) ruleLocked(name string) *ruleEntry {
	r := b.rules[name]
	if r == nil {
		shrink(b.rules, MaxRules, func(r *ruleEntry) int64 { return r.last.Load() })
		r = &ruleEntry{name: name}
		b.rules[name] = r
	}
	return r
}

// shrink makes room in a full map: a tenth of it goes, the oldest, so that it need not be searched for each that comes.
func shrink[T any](m map[string]T, most int, last func(T) int64) {
	if len(m) < most {
		return
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(last(m[a]), last(m[b])) })
	for _, name := range names[:most/10] {
		delete(m, name)
	}
}

// Forget drops what is known of a credential, which was deleted.
func (b *Book) Forget(credential string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, credential)
	b.doomed[credential] = true
}

// Users lists who used a credential, the latest first.
func (b *Book) Users(credential string) []User {
	if b == nil {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	l := b.of[credential]
	if l == nil {
		return nil
	}
	var all []User
	for _, e := range l.used() {
		u := User{Identity: e.identity, Rule: e.rule, First: time.Unix(e.first, 0).UTC(), Last: atMinute(e.last.Load())}
		if u.Last.Before(u.First) { // in the same minute
			u.Last = u.First
		}
		all = append(all, u)
	}
	return all
}

// used are those who used it, the latest first. The book's lock is held.
func (l *ledger) used() []*entry {
	var all []*entry
	for _, e := range l.by {
		if e.last.Load() > 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.last.Load(), a.last.Load()), cmp.Compare(a.identity, b.identity))
	})
	return all
}

// Rules says when each rule was last of use, to the minute. One that was of none is left out.
func (b *Book) Rules() map[string]time.Time {
	all := map[string]time.Time{}
	if b == nil {
		return all
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for name, r := range b.rules {
		if last := r.last.Load(); last > 0 {
			all[name] = atMinute(last)
		}
	}
	return all
}

// Since says since when the book counts; zero if nobody does.
func (b *Book) Since() time.Time {
	if b == nil {
		return time.Time{}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.since
}

// atMinute is the start of a minute, or the zero time for none.
func atMinute(minute int64) time.Time { return time.Unix(minute*60, 0).UTC() }
