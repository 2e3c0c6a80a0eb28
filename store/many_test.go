package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// TestACredentialWithEverNewVariantsStaysInItsRecord: tokens that live for a minute, each of another audience, come faster than they are dropped
// by their age. What a grant's record holds of each must not grow until the record can't be written, nor a refresh token be spent, any more.
func TestACredentialWithEverNewVariantsStaysInItsRecord(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	const many = 400
	o := outcome(c, 1, "", "at", "")
	for i := range many {
		o.Time = noon.Add(time.Duration(i) * time.Second)
		o.Token.Obtained, o.Token.Expiry = o.Time, o.Time.Add(time.Minute)
		o.Variant = tokenbroker.Variant{Audience: fmt.Sprint(i)}
		commit(t, s, o)
	}
	snap, err := p.engine.List(t.Context(), "token", "", 2*many)
	if err != nil || len(snap.Entries) > 256+1 {
		t.Errorf("tokens: got %d, %v, want no more than 256, as all but 60 have ended", len(snap.Entries), err)
	}
	for i := many - 60; i < many; i++ {
		if _, ok, err := s.Token(t.Context(), "a", c.UID, tokenbroker.Variant{Audience: fmt.Sprint(i)}.Key()); !ok || err != nil {
			t.Fatalf("token %d, which lives: got %t, %v", i, ok, err)
		}
	}
}
