package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

func revoke(t *testing.T, s *store.Store, c tokenbroker.Credential, at time.Time) tokenbroker.Grant {
	t.Helper()
	g, err := s.Revoke(t.Context(), c.Name, c.UID, at)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func doomed(g tokenbroker.Grant) (list []string) {
	for _, d := range g.Revoking.Tokens {
		list = append(list, string(d.Kind)+" "+d.Token.Reveal())
	}
	return list
}

func TestRevokeTakesAllThatCouldBeUsed(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	o := outcome(c, 1, "try-1", "at-1", "rt-2")
	commit(t, s, o)
	other := outcome(c, 2, "", "at-2", "")
	other.Variant.Subject = "other"
	commit(t, s, other)
	begin(t, s, c, 2, "try-2")

	g := revoke(t, s, c, o.Token.Obtained)
	if g.Lives() || !g.RefreshToken.IsZero() || !g.Previous.IsZero() || g.Intent != nil || g.State != tokenbroker.StateReauthorize || g.Code != "revoked" || g.Serial != 3 {
		t.Errorf("got %+v, want nothing left, REAUTHORIZE", g)
	}
	list := doomed(g)
	slices.Sort(list[1:])
	if !slices.Equal(list, []string{"refresh_token rt-2", "access_token at-1", "access_token at-2"}) {
		t.Errorf("got %v to be ended, want the refresh token first", list)
	}
	if !g.Revoking.Until.Equal(o.Token.Expiry) {
		t.Errorf("got tokens until %v, want %v", g.Revoking.Until, o.Token.Expiry)
	}
	for _, v := range []tokenbroker.Variant{o.Variant, other.Variant} {
		if _, ok, err := s.Token(t.Context(), "a", c.UID, v.Key()); ok || err != nil {
			t.Errorf("%+v: got a token %t, %v; want none", v, ok, err)
		}
	}
	if snap, err := p.engine.List(t.Context(), "token", "", 100); err != nil || len(snap.Entries) != 0 {
		t.Errorf("got %d token records, %v; want none", len(snap.Entries), err)
	}
	late := outcome(c, 2, "try-2", "at-late", "rt-late")
	if _, _, err := s.Commit(t.Context(), late); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("the exchange under way: got %v, want it kept apart", err)
	}
}

func TestARevocationIsKeptUntilItIsDone(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	g := revoke(t, s, c, noon)
	r := *g.Revoking
	r.Tries, r.Next, r.Code = 3, noon.Add(time.Hour), "http_503"
	if _, err := s.Revoked(t.Context(), "a", c.UID, &r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Adopt(t.Context(), tokenbroker.Adoption{Credential: "a", UID: c.UID, RefreshToken: canary("rt-new"), Time: noon}); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	s = p.open(t)
	_, g, err := s.Load(t.Context(), "a")
	if err != nil || g.Revoking == nil || g.Revoking.Tries != 3 || g.Revoking.Code != "http_503" || !g.Revoking.Next.Equal(r.Next) || !slices.Equal(doomed(g), []string{"refresh_token rt-1"}) {
		t.Errorf("got %+v, %v; want what was noted, also after a new consent", g.Revoking, err)
	}
	if g.RefreshToken.Reveal() != "rt-new" {
		t.Error("got another refresh token than the new one")
	}
	if g, err = s.Revoked(t.Context(), "a", c.UID, nil); err != nil || g.Revoking != nil {
		t.Errorf("got %+v, %v; want it gone", g.Revoking, err)
	}
	for name, err := range map[string]error{
		"another UID": func() error { _, err := s.Revoke(t.Context(), "a", "x", noon); return err }(),
		"missing":     func() error { _, err := s.Revoke(t.Context(), "b", "x", noon); return err }(),
		"noted":       func() error { _, err := s.Revoked(t.Context(), "a", "x", nil); return err }(),
	} {
		if !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", name, err)
		}
	}
}

func TestAConsentThatBroughtNoRefreshToken(t *testing.T) {
	s := newPlace(t).open(t)
	c, err := s.CreateCredential(t.Context(), tokenbroker.Credential{Name: "a", Provider: "p", Client: "c", Grant: tokenbroker.GrantAuthorizationCode}, tokenbroker.Grant{Holds: tokenbroker.HoldsNothing})
	if err != nil {
		t.Fatal(err)
	}
	end := noon.Add(60 * 24 * time.Hour)
	a := tokenbroker.Adoption{Credential: "a", UID: c.UID, Time: noon, Account: "jo", Granted: []string{"x"},
		Token: &tokenbroker.Token{AccessToken: canary("at"), Type: "Bearer", Obtained: noon, Expiry: end}}
	g, tok, err := s.Adopt(t.Context(), a)
	if err != nil || g.Lives() || g.Holds != tokenbroker.HoldsNothing || !g.RefreshEnd.Equal(end) || g.Serial != 1 || g.State != tokenbroker.StateReady || tok.Generation == 0 {
		t.Errorf("got %+v, %v; want the token as all there is", g, err)
	}
	for sum, err := range s.Summaries(t.Context()) {
		if err != nil || sum.Exercise.IsZero() {
			t.Errorf("got %+v, %v; want it looked at before its end", sum, err)
		}
	}
	a.RefreshToken, a.Account, a.Granted = canary("rt"), "", nil
	if g, _, err = s.Adopt(t.Context(), a); err != nil || !g.Lives() || !g.RefreshEnd.IsZero() || g.Account != "" || g.Granted != nil {
		t.Errorf("got %+v, %v; want the refresh token, and an account that nobody named", g, err)
	}
	serial := g.Serial
	a.RefreshToken = tokenbroker.Secret{}
	if g, _, err = s.Adopt(t.Context(), a); err != nil || g.RefreshToken.Reveal() != "rt" || g.Serial != serial {
		t.Errorf("got serial %d, %v; want the refresh token that works kept", g.Serial, err)
	}
	v := tokenbroker.Verdict{Credential: "a", UID: c.UID, Serial: serial, State: tokenbroker.StateReauthorize, Code: "invalid_grant", Cause: "user_left", Time: noon}
	if g, err = s.Abort(t.Context(), v); err != nil || g.Cause != "user_left" {
		t.Errorf("got cause %q, %v", g.Cause, err)
	}
	if g, _, err = s.Adopt(t.Context(), a); err != nil || g.Lives() || g.Serial != serial+1 || g.Cause != "" {
		t.Errorf("got serial %d, %v; want a dead one not kept", g.Serial, err)
	}
}

func TestAPasswordLeavesNoTrace(t *testing.T) {
	s := newPlace(t).open(t)
	c, err := s.CreateCredential(t.Context(), tokenbroker.Credential{Name: "a", Provider: "p", Client: "c", Grant: tokenbroker.GrantPassword},
		tokenbroker.Grant{RefreshToken: canary("hunter1"), Holds: tokenbroker.HoldsPassword})
	if err != nil {
		t.Fatal(err)
	}
	a := tokenbroker.Adoption{Credential: "a", UID: c.UID, RefreshToken: canary("hunter2"), Holds: tokenbroker.HoldsPassword, Time: noon}
	g, _, err := s.Adopt(t.Context(), a)
	if err != nil || !g.Previous.IsZero() || g.RefreshToken.Reveal() != "hunter2" {
		t.Errorf("got a previous one %t, %v; want the next password alone", !g.Previous.IsZero(), err)
	}
	o := outcome(c, 2, "", "at", "rt-1")
	o.Account, o.Granted = "jo", []string{"x"}
	if g, _ = commit(t, s, o); g.Holds != tokenbroker.HoldsRefreshToken || !g.Previous.IsZero() || g.Account != "jo" || !slices.Equal(g.Granted, []string{"x"}) {
		t.Errorf("got %q, previous %t; want the refresh token alone", g.Holds, !g.Previous.IsZero())
	}
	o = outcome(c, 3, "", "at", "rt-2")
	o.Account = "eve"
	if g, _ = commit(t, s, o); g.Account != "jo" || !slices.Equal(g.Granted, []string{"x"}) || g.Previous.Reveal() != "rt-1" {
		t.Errorf("got account %q, granted %v; want both kept", g.Account, g.Granted)
	}
}

func TestWhatIsAskedForMakesAGeneration(t *testing.T) {
	s := newPlace(t).open(t)
	c := create(t, s, "a")
	for _, tt := range []struct {
		name   string
		change func(*tokenbroker.Credential)
		rises  bool
	}{
		{"owner", func(c *tokenbroker.Credential) { c.Owner = "x" }, false},
		{"resources", func(c *tokenbroker.Credential) { c.Resources = []string{"https://api.example"} }, true},
		{"parameters", func(c *tokenbroker.Credential) { c.Parameters = map[string]string{"account_id": "7"} }, true},
		{"source", func(c *tokenbroker.Credential) { c.Source = "b" }, true},
	} {
		before := c
		tt.change(&c)
		var err error
		if c, err = s.UpdateCredential(t.Context(), c, c.Version); err != nil || (c.Generation > before.Generation) != tt.rises {
			t.Errorf("%s: got generation %d after %d, %v; want it to rise: %t", tt.name, c.Generation, before.Generation, err, tt.rises)
		}
	}
	for sum, err := range s.Summaries(t.Context()) {
		if err != nil || sum.Source != "b" {
			t.Errorf("got source %q, %v; want b", sum.Source, err)
		}
	}
}
