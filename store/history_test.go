package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

// fact is what a store has to know of one credential.
type fact struct {
	UID, Refresh, Previous, Attempt string // Attempt: of the standing intent
	Version, Serial                 uint64
	Sends                           int
	State                           tokenbroker.State
	Tokens                          map[string]string // subject → access token
}

// facts is what a store has to know.
type facts struct {
	Credentials map[string]fact
	Orphans     []string // their refresh tokens, sorted
}

func (f facts) clone() facts {
	c := facts{maps.Clone(f.Credentials), slices.Clone(f.Orphans)}
	for name, one := range c.Credentials {
		one.Tokens = maps.Clone(one.Tokens)
		c.Credentials[name] = one
	}
	return c
}

// deed is one call, the error that it has to end with, and what is to be known after it.
type deed struct {
	what string
	do   func(context.Context, *store.Store) error
	want error
	next facts
}

// history runs random deeds over a store, or two that share an engine, and keeps the facts beside them.
type history struct {
	*rand.Rand
	now    facts
	stores int
	given  map[tokenbroker.Generation]bool
	newest map[string]tokenbroker.Generation // by UID; under "" of the whole store
	serial int                               // makes every text unique
}

var subjects = []string{"", "alice"}

func (h *history) text(prefix string) string {
	h.serial++
	return fmt.Sprint(prefix, "-", h.serial)
}

// other is n mostly, and sometimes another number.
func (h *history) other(n uint64) uint64 {
	if h.IntN(5) == 0 {
		return n + 1
	}
	return n
}

func (h *history) deed() deed {
	name := []string{"a", "a/b", "z"}[h.IntN(3)]
	f, there := h.now.Credentials[name]
	if !there && h.IntN(2) == 0 {
		return h.create(name)
	}
	if h.IntN(8) == 0 {
		f.UID = "of another life"
	}
	makers := []func(string, fact, bool) deed{h.edit, h.begin, h.begin, h.commit, h.commit, h.commit, h.abort, h.adopt}
	if h.IntN(12) == 0 {
		return h.remove(name, there)
	}
	return makers[h.IntN(len(makers))](name, f, there)
}

// become is what is to be known once f is of name.
func (h *history) become(name string, f fact) facts {
	next := h.now.clone()
	next.Credentials[name] = f
	return next
}

// rise checks a generation: it is new, above all of its credential, and above all of the store where nobody else gives them out.
func (h *history) rise(uid string, g tokenbroker.Generation) error {
	floor := h.newest[uid]
	if h.stores == 1 {
		floor = h.newest[""]
	}
	if g <= floor || h.given[g] {
		return fmt.Errorf("generation %d was given out after %d", g, floor)
	}
	h.given[g], h.newest[uid], h.newest[""] = true, g, g
	return nil
}

func (h *history) create(name string) deed {
	rt := h.text("rt")
	return deed{what: "create " + name, do: func(ctx context.Context, s *store.Store) error {
		c, err := s.CreateCredential(ctx, credential(name), tokenbroker.Grant{RefreshToken: canary(rt)})
		if err != nil {
			return err
		}
		if h.newest[c.UID] != 0 {
			return fmt.Errorf("UID %s was given out twice", c.UID)
		}
		return h.rise(c.UID, c.Generation)
	}, next: h.become(name, fact{Version: 1, Serial: 1, Refresh: rt, State: tokenbroker.StatePending, Tokens: map[string]string{}})}
}

func (h *history) remove(name string, there bool) deed {
	d := deed{what: "delete " + name, next: h.now.clone(), do: func(ctx context.Context, s *store.Store) error {
		return s.DeleteCredential(ctx, name, 0)
	}}
	if delete(d.next.Credentials, name); !there {
		d.want = tokenbroker.ErrNotFound
	}
	return d
}

func (h *history) edit(name string, f fact, there bool) deed {
	version, owner := h.other(f.Version), h.text("owner")
	d := deed{what: fmt.Sprintf("edit %s at %d", name, version), next: h.now, do: func(ctx context.Context, s *store.Store) error {
		c := credential(name)
		c.Owner = owner
		_, err := s.UpdateCredential(ctx, c, version)
		return err
	}}
	switch {
	case !there:
		d.want = tokenbroker.ErrNotFound
	case version != f.Version:
		d.want = tokenbroker.ErrETagMismatch
	default:
		f = h.now.Credentials[name] // whoever edits names no UID
		f.Version++
		d.next = h.become(name, f)
	}
	return d
}

func (h *history) begin(name string, f fact, there bool) deed {
	b := tokenbroker.Begin{Credential: name, UID: f.UID, Serial: h.other(f.Serial), Attempt: h.text("try"), Replay: h.IntN(3) == 0, Time: noon}
	d := deed{what: fmt.Sprintf("begin %+v", b), next: h.now, do: func(ctx context.Context, s *store.Store) error {
		_, err := s.Begin(ctx, b)
		return err
	}}
	switch {
	case !there || f.UID != h.now.Credentials[name].UID:
		d.want = tokenbroker.ErrNotFound
	case b.Serial != f.Serial:
		d.want = tokenbroker.ErrSuperseded
	case f.Attempt != "" && !b.Replay:
		d.want = tokenbroker.ErrUncertain
	default:
		f.Attempt, f.Sends = b.Attempt, f.Sends+1
		d.next = h.become(name, f)
	}
	return d
}

func (h *history) commit(name string, f fact, there bool) deed {
	c := tokenbroker.Credential{Name: name, UID: f.UID}
	o := outcome(c, h.other(f.Serial), f.Attempt, h.text("at"), "")
	o.Variant.Subject = subjects[h.IntN(len(subjects))]
	if h.IntN(4) > 0 {
		o.RefreshToken = canary(h.text("rt"))
	}
	if h.IntN(5) == 0 {
		o.Attempt = "of somebody else"
	}
	d := deed{what: fmt.Sprintf("commit %s, serial %d, attempt %s", name, o.Serial, o.Attempt), do: func(ctx context.Context, s *store.Store) error {
		_, tok, err := s.Commit(ctx, o)
		if err == nil {
			err = h.rise(f.UID, tok.Generation)
		}
		return err
	}}
	if !there || f.UID != h.now.Credentials[name].UID || o.Serial != f.Serial {
		d.want, d.next = tokenbroker.ErrSuperseded, h.now.clone()
		d.next.Orphans = append(d.next.Orphans, o.RefreshToken.Reveal())
		slices.Sort(d.next.Orphans)
		return d
	}
	f.State, f.Tokens = tokenbroker.StateReady, maps.Clone(f.Tokens)
	f.Tokens[o.Variant.Subject] = o.Token.AccessToken.Reveal()
	if !o.RefreshToken.IsZero() {
		f.Serial, f.Previous, f.Refresh = f.Serial+1, f.Refresh, o.RefreshToken.Reveal()
	}
	if !o.RefreshToken.IsZero() || o.Attempt == f.Attempt {
		f.Attempt, f.Sends = "", 0
	}
	d.next = h.become(name, f)
	return d
}

func (h *history) abort(name string, f fact, there bool) deed {
	states := []tokenbroker.State{tokenbroker.StateUncertain, tokenbroker.StateReauthorize, tokenbroker.StateMisconfigured}
	v := tokenbroker.Verdict{
		Credential: name, UID: f.UID, Serial: h.other(f.Serial), Attempt: f.Attempt, ClearIntent: h.IntN(2) == 0,
		State: states[h.IntN(len(states))], Time: noon,
	}
	d := deed{what: fmt.Sprintf("abort %+v", v), next: h.now, do: func(ctx context.Context, s *store.Store) error {
		_, err := s.Abort(ctx, v)
		return err
	}}
	if !there || f.UID != h.now.Credentials[name].UID || v.Serial != f.Serial {
		d.want = tokenbroker.ErrSuperseded
		return d
	}
	if f.State = v.State; v.ClearIntent {
		f.Attempt, f.Sends = "", 0
	}
	d.next = h.become(name, f)
	return d
}

func (h *history) adopt(name string, f fact, there bool) deed {
	a := tokenbroker.Adoption{Credential: name, UID: f.UID, RefreshToken: canary(h.text("rt")), Time: noon}
	d := deed{what: "adopt " + name, next: h.now, do: func(ctx context.Context, s *store.Store) error {
		_, _, err := s.Adopt(ctx, a)
		return err
	}}
	if !there || f.UID != h.now.Credentials[name].UID {
		d.want = tokenbroker.ErrNotFound
		return d
	}
	f.Serial, f.Previous, f.Refresh, f.Attempt, f.Sends = f.Serial+1, f.Refresh, a.RefreshToken.Reveal(), "", 0
	if f.State = tokenbroker.StatePending; len(f.Tokens) > 0 {
		f.State = tokenbroker.StateReady
	}
	d.next = h.become(name, f)
	return d
}

// observe reads the facts out of a store.
func observe(t *testing.T, s *store.Store) facts {
	t.Helper()
	f := facts{Credentials: map[string]fact{}}
	for sum, err := range s.Summaries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		c, g := load(t, s, sum.Name)
		one := fact{
			UID: c.UID, Version: c.Version, Serial: g.Serial, Refresh: g.RefreshToken.Reveal(), Previous: g.Previous.Reveal(),
			State: g.State, Tokens: map[string]string{},
		}
		if g.Intent != nil {
			one.Attempt, one.Sends = g.Intent.Attempt, g.Intent.Sends
			if g.Intent.Serial != g.Serial {
				t.Errorf("%s: the intent is of serial %d, and %d is current", sum.Name, g.Intent.Serial, g.Serial)
			}
		}
		for _, subject := range subjects {
			tok, ok, err := s.Token(t.Context(), sum.Name, c.UID, tokenbroker.Variant{Subject: subject}.Key())
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				one.Tokens[subject] = tok.AccessToken.Reveal()
			}
		}
		f.Credentials[sum.Name] = one
	}
	for _, o := range orphans(t, s) {
		f.Orphans = append(f.Orphans, o.Outcome.RefreshToken.Reveal())
	}
	slices.Sort(f.Orphans)
	return f
}

// is reports how got differs from f, and learns the UIDs that creates made.
func (h *history) is(f, got facts) string {
	f = f.clone()
	for name, one := range f.Credentials {
		if uid := got.Credentials[name].UID; one.UID == "" && h.now.Credentials[name].UID != uid {
			one.UID = uid
			f.Credentials[name] = one
		}
	}
	return cmp.Diff(f, got, revealed)
}

// trouble is what goes wrong with one deed: nothing, no room, or an answer that is lost.
type trouble struct {
	err    error
	struck bool
}

func (h *history) trouble(f *faulty) *trouble {
	tr := &trouble{}
	strike := func() error { tr.struck = true; return tr.err }
	f.before, f.after = nil, nil
	switch h.IntN(8) {
	case 0:
		tr.err, f.before = syscall.ENOSPC, func(store.Txn) error { return strike() }
	case 1:
		tr.err, f.after = store.ErrUnknown, strike
	}
	return tr
}

func (h *history) step(t *testing.T, f *faulty, stores []*store.Store) {
	t.Helper()
	d, tr := h.deed(), h.trouble(f)
	err := d.do(t.Context(), stores[h.IntN(len(stores))])
	f.before, f.after = nil, nil
	got := observe(t, stores[h.IntN(len(stores))])
	asBefore, asAfter := h.is(h.now, got), h.is(d.next, got)
	switch {
	case tr.struck && !errors.Is(err, tr.err):
		t.Fatalf("%s with %v: got %v", d.what, tr.err, err)
	case tr.struck && (asBefore == "" || asAfter == "" && errors.Is(err, store.ErrUnknown)):
	case tr.struck:
		t.Fatalf("%s with %v: neither as before nor as after (-want +got):\n%s", d.what, tr.err, asAfter)
	case !errors.Is(err, d.want):
		t.Fatalf("%s: got %v, want %v", d.what, err, d.want)
	case asAfter != "":
		t.Fatalf("%s (-want +got):\n%s", d.what, asAfter)
	}
	h.now = got
	for _, one := range got.Credentials { // whose create was not answered, too
		h.newest[one.UID] = max(h.newest[one.UID], 1)
	}
}

// TestARandomHistoryLeavesWhatItsModelSays runs every kind of write in random order, with full disks, answers that are lost, and
// restarts, and compares all that the store says with a model after each.
func TestARandomHistoryLeavesWhatItsModelSays(t *testing.T) {
	for _, tt := range []struct {
		stores int // that share one engine, as processes do
		seed   uint64
	}{{1, 1}, {1, 2}, {2, 3}} {
		t.Run(fmt.Sprintf("%d stores, seed %d", tt.stores, tt.seed), func(t *testing.T) {
			h := &history{
				Rand: rand.New(rand.NewPCG(tt.seed, 0)), now: facts{Credentials: map[string]fact{}}, stores: tt.stores,
				given: map[tokenbroker.Generation]bool{}, newest: map[string]tokenbroker.Generation{},
			}
			p := newPlace(t)
			began := time.Now()
			steps := 0
			for range 6 {
				f := &faulty{Engine: p.start(t)}
				var stores []*store.Store
				for range tt.stores {
					stores = append(stores, openOn(t, f, p.kek))
				}
				for range 30 + h.IntN(30) {
					h.step(t, f, stores)
					steps++
				}
				p.stop(t)
			}
			t.Logf("seed %d: %d steps in %s, %d orphans", tt.seed, steps, time.Since(began).Round(time.Millisecond), len(h.now.Orphans))
		})
	}
}
