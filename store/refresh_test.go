package store_test

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func TestARefreshFromIntentToToken(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	g := begin(t, s, c, 1, "try-1")
	if g.RefreshToken.Reveal() != "rt-1" || g.Intent == nil || g.Intent.Attempt != "try-1" || g.Intent.Sends != 1 || len(g.Intent.TokenHash) != 32 {
		t.Errorf("begun: got %+v, want rt-1 and an intent", g)
	}
	p.stop(t)
	s = p.open(t) // the intent is durable before anything is sent
	_, g = load(t, s, "a")
	if g.Intent == nil || g.Intent.Serial != 1 {
		t.Fatalf("after a restart: got %+v, want the intent", g)
	}
	o := outcome(c, 1, "try-1", "at-1", "rt-2")
	g, tok := commit(t, s, o)
	want := tokenbroker.Grant{
		UID: c.UID, Serial: 2, RefreshToken: canary("rt-2"), Previous: canary("rt-1"), Rotated: o.Time, Consented: c.Created,
		Exercised: o.Time, State: tokenbroker.StateReady, Since: o.Time, SecretID: "secret-1", LastUse: noon,
	}
	if diff := cmp.Diff(want, g, revealed); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
	p.stop(t)
	s = p.open(t)
	if _, got := load(t, s, "a"); cmp.Diff(want, got, revealed) != "" {
		t.Errorf("grant after a restart (-want +got):\n%s", cmp.Diff(want, got, revealed))
	}
	stored, ok, err := s.Token(t.Context(), "a", c.UID, o.Variant.Key())
	if diff := cmp.Diff(tok, stored, revealed); !ok || err != nil || diff != "" {
		t.Errorf("token: %t, %v (-want +got):\n%s", ok, err, diff)
	}
	if tok.Generation <= c.Generation || tok.AccessToken.Reveal() != "at-1" {
		t.Errorf("token: got %q of generation %d, want at-1 above %d", tok.AccessToken.Reveal(), tok.Generation, c.Generation)
	}
	for sum, err := range s.Summaries(t.Context()) {
		want := tokenbroker.Summary{Name: "a", UID: c.UID, Provider: "example", State: tokenbroker.StateReady, Expiry: tok.Expiry}
		if diff := cmp.Diff(want, sum); diff != "" || err != nil {
			t.Errorf("summary: %v (-want +got):\n%s", err, diff)
		}
	}
}

func TestASummaryTellsOfAStandingIntent(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	states := func() []tokenbroker.State {
		var list []tokenbroker.State
		for sum, err := range s.Summaries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, sum.State)
		}
		return list
	}
	begin(t, s, c, 1, "try-1")
	if got, want := states(), []tokenbroker.State{tokenbroker.StateUncertain}; !slices.Equal(got, want) {
		t.Errorf("with an intent: got %v, want %v", got, want)
	}
	if _, g := load(t, s, "a"); g.State != tokenbroker.StatePending {
		t.Errorf("the grant itself: got %s, want PENDING", g.State)
	}
	v := tokenbroker.Verdict{Credential: "a", UID: c.UID, Serial: 1, Attempt: "try-1", ClearIntent: true, State: tokenbroker.StatePending, Time: noon}
	if _, err := s.Abort(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if got, want := states(), []tokenbroker.State{tokenbroker.StatePending}; !slices.Equal(got, want) {
		t.Errorf("with the intent cleared: got %v, want %v", got, want)
	}
}

func TestBeginRefuses(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	b := tokenbroker.Begin{Credential: "a", UID: c.UID, Serial: 1, Attempt: "one", Time: noon}
	if _, err := s.Begin(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*tokenbroker.Begin)
		want error
	}{
		{"another UID", func(b *tokenbroker.Begin) { b.UID = "x" }, tokenbroker.ErrNotFound},
		{"another serial", func(b *tokenbroker.Begin) { b.Serial = 2 }, tokenbroker.ErrSuperseded},
		{"a standing intent", func(b *tokenbroker.Begin) { b.Attempt = "two" }, tokenbroker.ErrUncertain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := b
			tt.edit(&b)
			if _, err := s.Begin(t.Context(), b); !errors.Is(err, tt.want) {
				t.Errorf("error: got %v, want %v", err, tt.want)
			}
		})
	}
	b.Replay, b.Attempt, b.Time = true, "two", noon.Add(time.Minute)
	g, err := s.Begin(t.Context(), b)
	if err != nil || g.Intent.Attempt != "two" || g.Intent.Sends != 2 || !g.Intent.Begun.Equal(noon) {
		t.Errorf("replay: got %+v, %v, want the second send of what began at noon", g.Intent, err)
	}
}

func TestCommitOfAnEqualRefreshTokenKeepsTheSerial(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	for _, rt := range []string{"rt-1", ""} {
		g, _ := commit(t, s, outcome(c, 1, "", "at", rt))
		if g.Serial != 1 || g.RefreshToken.Reveal() != "rt-1" || !g.Previous.IsZero() || !g.Exercised.Equal(noon.Add(time.Second)) {
			t.Errorf("refresh token %q: got %+v, want serial 1 and rt-1, exercised", rt, g)
		}
	}
}

func TestALateResultIsKeptApartAndOverwritesNothing(t *testing.T) {
	for _, tt := range []struct {
		name      string
		meanwhile func(*testing.T, *storeUnderTest)
	}{
		{"after a consent", func(t *testing.T, s *storeUnderTest) {
			a := tokenbroker.Adoption{Credential: "a", UID: s.made.UID, RefreshToken: canary("rt-consent"), Time: noon}
			if _, _, err := s.Adopt(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}},
		{"after another commit", func(t *testing.T, s *storeUnderTest) { commit(t, s.Store, outcome(s.made, 1, "", "at-0", "rt-0")) }},
		{"after a delete", func(t *testing.T, s *storeUnderTest) {
			if err := s.DeleteCredential(t.Context(), "a", 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"after a delete and a create", func(t *testing.T, s *storeUnderTest) {
			if err := s.DeleteCredential(t.Context(), "a", 0); err != nil {
				t.Fatal(err)
			}
			create(t, s.Store, "a")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			s := &storeUnderTest{Store: p.open(t)}
			s.made = create(t, s.Store, "a")
			begin(t, s.Store, s.made, 1, "try-1")
			tt.meanwhile(t, s)
			_, before, beforeErr := s.Load(t.Context(), "a")
			o := outcome(s.made, 1, "try-1", "at-late", "rt-late")
			if _, _, err := s.Commit(t.Context(), o); !errors.Is(err, tokenbroker.ErrSuperseded) {
				t.Errorf("error: got %v, want ErrSuperseded", err)
			}
			_, after, afterErr := s.Load(t.Context(), "a")
			if diff := cmp.Diff(before, after, revealed); diff != "" || (beforeErr == nil) != (afterErr == nil) {
				t.Errorf("grant: %v, %v (-before +after):\n%s", beforeErr, afterErr, diff)
			}
			p.stop(t)
			kept := orphans(t, p.open(t))
			if len(kept) != 1 || kept[0].Stored.IsZero() || kept[0].ID == "" {
				t.Fatalf("orphans: got %+v, want one", kept)
			}
			if diff := cmp.Diff(o, kept[0].Outcome, revealed); diff != "" {
				t.Errorf("orphan (-want +got):\n%s", diff)
			}
		})
	}
}

// storeUnderTest is a store and the credential that was made in it.
type storeUnderTest struct {
	*store.Store
	made tokenbroker.Credential
}

// A late result that could not be kept apart must not look as if it was: its refresh token would be dropped.
func TestALateResultThatCanNotBeKeptIsNotSuperseded(t *testing.T) {
	p := newPlace(t)
	f := &faulty{Engine: p.start(t)}
	s := openOn(t, f, p.kek)
	c := create(t, s, "a")
	o := outcome(c, 7, "try-7", "at-7", "rt-7")
	f.before = func(store.Txn) error { return syscall.ENOSPC }
	_, _, err := s.Commit(t.Context(), o)
	if !errors.Is(err, tokenbroker.ErrStoreUnavailable) || errors.Is(err, tokenbroker.ErrSuperseded) || errors.Is(err, tokenbroker.ErrTampered) {
		t.Errorf("on a full disk: got %v, want ErrStoreUnavailable alone", err)
	}
	f.before = nil
	if _, _, err := s.Commit(t.Context(), o); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("again: got %v, want ErrSuperseded", err)
	}
	if kept := orphans(t, s); len(kept) != 1 || kept[0].Outcome.RefreshToken.Reveal() != "rt-7" {
		t.Errorf("orphans: got %+v, want rt-7", kept)
	}
}

func TestALateResultWithoutTokensLeavesNoOrphan(t *testing.T) {
	s := newPlace(t).open(t)
	o := tokenbroker.Outcome{Credential: "a", UID: "x", Serial: 1}
	if _, _, err := s.Commit(t.Context(), o); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("error: got %v, want ErrSuperseded", err)
	}
	if kept := orphans(t, s); len(kept) != 0 {
		t.Errorf("orphans: got %+v, want none", kept)
	}
}

func TestARefreshTokenAloneKeepsTheState(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	o := outcome(c, 1, "try-1", "", "rt-2")
	o.Token = nil
	g, tok := commit(t, s, o)
	if g.Serial != 2 || g.Intent != nil || g.State != tokenbroker.StatePending || tok.Generation != 0 {
		t.Errorf("got %+v and generation %d, want serial 2, PENDING, no intent, no token", g, tok.Generation)
	}
}

func TestAnIntentOfAnotherAttemptStandsWhileItsRefreshTokenIsCurrent(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	if g, _ := commit(t, s, outcome(c, 1, "other", "at", "")); g.Intent == nil || g.Intent.Attempt != "try-1" {
		t.Errorf("same refresh token: got intent %+v, want that of try-1", g.Intent)
	}
	if g, _ := commit(t, s, outcome(c, 1, "other", "at", "rt-2")); g.Intent != nil {
		t.Errorf("new refresh token: got intent %+v, want none", g.Intent)
	}
	begin(t, s, c, 2, "try-2")
}

func TestTheSameTokenKeepsItsGeneration(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	o := outcome(c, 1, "", "at", "")
	_, first := commit(t, s, o)
	o.SameToken = true
	o.Token.Expiry = noon.Add(2 * time.Hour)
	_, same := commit(t, s, o)
	if same.Generation != first.Generation || !same.Expiry.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("same: got generation %d until %s, want %d until 14:00", same.Generation, same.Expiry, first.Generation)
	}
	if stored, _, err := s.Token(t.Context(), "a", c.UID, o.Variant.Key()); err != nil || !stored.Expiry.Equal(same.Expiry) {
		t.Errorf("stored: got %s, %v, want 14:00", stored.Expiry, err)
	}
	o.Token.AccessToken = canary("not the same at all")
	if _, other := commit(t, s, o); other.Generation <= first.Generation {
		t.Errorf("another token said to be the same: got generation %d, want above %d", other.Generation, first.Generation)
	}
	o.Variant.Subject = "nobody yet"
	if _, other := commit(t, s, o); other.Generation <= first.Generation {
		t.Errorf("another variant: got generation %d, want above %d", other.Generation, first.Generation)
	}
}

func TestAbort(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	v := tokenbroker.Verdict{
		Credential: "a", UID: c.UID, Serial: 1, Attempt: "try-1", State: tokenbroker.StateUncertain, Code: "timeout", Strikes: 1, Time: noon,
	}
	g, err := s.Abort(t.Context(), v)
	if err != nil || g.Intent == nil || g.State != tokenbroker.StateUncertain || g.Code != "timeout" || g.Strikes != 1 || !g.Since.Equal(noon) {
		t.Errorf("ambiguous: got %+v, %v, want UNCERTAIN with the intent", g, err)
	}
	before, _ := p.engine.Read(t.Context())
	if _, err := s.Abort(t.Context(), v); err != nil {
		t.Errorf("again: %v", err)
	}
	if after, _ := p.engine.Read(t.Context()); after.Rev != before.Rev {
		t.Error("an abort that changes nothing wrote")
	}
	v.Attempt, v.ClearIntent = "try-2", true
	if g, err := s.Abort(t.Context(), v); err != nil || g.Intent == nil {
		t.Errorf("another attempt: got %+v, %v, want the intent of try-1 to stand", g.Intent, err)
	}
	v.Attempt, v.State, v.Code = "try-1", tokenbroker.StateReauthorize, "invalid_grant"
	if g, err := s.Abort(t.Context(), v); err != nil || g.Intent != nil || g.State != tokenbroker.StateReauthorize {
		t.Errorf("dead: got %+v, %v, want REAUTHORIZE without an intent", g, err)
	}
	v.Serial = 2
	if _, err := s.Abort(t.Context(), v); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("another serial: got %v, want ErrSuperseded", err)
	}
	v.Serial, v.UID = 1, "x"
	if _, err := s.Abort(t.Context(), v); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("another UID: got %v, want ErrSuperseded", err)
	}
}

func TestAdopt(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	a := tokenbroker.Adoption{Credential: "a", UID: c.UID, RefreshToken: canary("rt-2"), RefreshEnd: noon.Add(48 * time.Hour), Time: noon}
	g, _, err := s.Adopt(t.Context(), a)
	if err != nil || g.Serial != 2 || g.State != tokenbroker.StatePending || g.Intent != nil || g.Previous.Reveal() != "rt-1" || !g.Consented.Equal(noon) {
		t.Errorf("before any token: got %+v, %v, want serial 2, PENDING, no intent", g, err)
	}
	for sum, err := range s.Summaries(t.Context()) {
		if err != nil || !sum.Exercise.Equal(noon.Add(24*time.Hour)) {
			t.Errorf("summary: got %+v, %v, want to be exercised half-way to its end", sum, err)
		}
	}
	commit(t, s, outcome(c, 2, "", "at", ""))
	v := tokenbroker.Verdict{Credential: "a", UID: c.UID, Serial: 2, State: tokenbroker.StateReauthorize, Code: "invalid_grant", Strikes: 2, Time: noon}
	if _, err := s.Abort(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	a.RefreshToken = canary("rt-3")
	if g, _, err = s.Adopt(t.Context(), a); err != nil || g.Serial != 3 || g.State != tokenbroker.StateReady || g.Code != "" || g.Strikes != 0 {
		t.Errorf("after a token: got %+v, %v, want serial 3, READY", g, err)
	}
	a.UID = "x"
	if _, _, err := s.Adopt(t.Context(), a); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("another UID: got %v, want ErrNotFound", err)
	}
	a.RefreshToken = tokenbroker.Secret{}
	if _, _, err := s.Adopt(t.Context(), a); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
		t.Errorf("no token: got %v, want ErrInvalidArgument", err)
	}
}

func TestTokensThatExpiredLongAgoAreDropped(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	o := outcome(c, 1, "", "at", "")
	for i := range 5 {
		o.Variant.Subject = fmt.Sprint(i)
		commit(t, s, o)
	}
	o.Time = noon.Add(100 * time.Hour)
	o.Token.Obtained, o.Token.Expiry = o.Time, o.Time.Add(time.Hour)
	commit(t, s, o) // subject 4 has a new token, the others' are long gone
	snap, err := p.engine.List(t.Context(), "token", "", 100)
	if err != nil || len(snap.Entries) != 1 {
		t.Errorf("tokens: got %d, %v, want 1", len(snap.Entries), err)
	}
	if _, ok, err := s.Token(t.Context(), "a", c.UID, tokenbroker.Variant{Subject: "0"}.Key()); ok || err != nil {
		t.Errorf("dropped: got %t, %v, want none", ok, err)
	}
	if _, ok, err := s.Token(t.Context(), "a", c.UID, tokenbroker.Variant{Subject: "4"}.Key()); !ok || err != nil {
		t.Errorf("kept: got %t, %v, want one", ok, err)
	}
}

func TestAnEndThatMovesIsToldFromOneThatStays(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	day := 24 * time.Hour
	for _, step := range []struct {
		name           string
		at             time.Duration
		end, prolonged time.Duration
	}{
		{"named for the first time", 0, 90 * day, 0},
		{"the same end, counted anew in seconds", day, 90*day + 2*time.Second, 0},
		{"a later one", 2 * day, 92 * day, 2 * day},
		{"an earlier one", 3 * day, 60 * day, 2 * day},
		{"one that moves a little", 3*day + 50*time.Second, 60*day + 50*time.Second, 2 * day},
		{"and a little more", 3*day + 100*time.Second, 60*day + 100*time.Second, 3*day + 100*time.Second},
	} {
		o := outcome(c, 1, "", "at", "")
		o.Time, o.RefreshEnd = noon.Add(step.at), noon.Add(step.end)
		g, _, err := s.Commit(t.Context(), o)
		if off := g.RefreshEnd.Sub(noon.Add(step.end)).Abs(); err != nil || off >= time.Minute || !g.Prolonged.Equal(noon.Add(step.prolonged)) {
			t.Errorf("%s: got end %v, prolonged %v, %v", step.name, g.RefreshEnd, g.Prolonged, err)
		}
	}
	g, _, err := s.Adopt(t.Context(), tokenbroker.Adoption{Credential: "a", UID: c.UID, RefreshToken: canary("rt-2"), RefreshEnd: noon.Add(50 * day), Time: noon.Add(4 * day)})
	if err != nil || !g.Prolonged.Equal(noon.Add(4*day)) {
		t.Errorf("another consent: got %v, %v, want it counted from there", g.Prolonged, err)
	}
	o := outcome(c, 2, "", "at", "rt-3")
	o.Time = noon.Add(5 * day)
	if g, _, err := s.Commit(t.Context(), o); err != nil || !g.RefreshEnd.IsZero() || !g.Prolonged.IsZero() {
		t.Errorf("a new one without an end: got %v, %v, %v, want none", g.RefreshEnd, g.Prolonged, err)
	}
}
