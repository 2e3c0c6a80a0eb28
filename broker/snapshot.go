package broker

import (
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Snapshot is the whole state of one variant at one moment. It is immutable and shared: nothing in it belongs to one caller.
type Snapshot struct {
	Credential string
	Variant    tokenbroker.Variant
	Default    Defaulted
	Order      tokenbroker.Order
	State      tokenbroker.State
	Recovery   tokenbroker.Recovery
	Since      time.Time          // when State was entered, as far as is known
	Code       string             // why, if not READY
	Cause      tokenbroker.Cause  // what is behind Code, where more is known
	Token      *tokenbroker.Token // nil if there is none that may be served
	TokenMAC   string             // what Config.MAC made of it
	RefreshAt  time.Time          // when the next refresh is due; zero if none is
	Encoded    any                // what Config.Encode made of it

	of      *variant
	wallEnd time.Time // Token's expiry less the guard, by the wall clock
	monoEnd time.Time // the same by the monotonic clock
}

// Defaulted says which parts of a variant are the credential's own.
type Defaulted struct{ Scopes, Subject, Audience bool }

// usable reports whether the snapshot's token may be served at now. Wall clock and monotonic clock both have to agree.
func (s *Snapshot) usable(now time.Time) bool {
	return s.Token != nil && now.Before(s.monoEnd) && now.Round(0).Before(s.wallEnd)
}

// remaining is how long the token may yet be served, by the more pessimistic clock; not positive if there is none.
func (s *Snapshot) remaining(now time.Time) time.Duration {
	if s.Token == nil {
		return 0
	}
	return min(s.monoEnd.Sub(now), s.wallEnd.Sub(now.Round(0)))
}

// validity is how long the provider is going to take the token yet, without the guard.
func (s *Snapshot) validity(now time.Time) time.Duration {
	if s.Token == nil {
		return 0
	}
	return s.remaining(now) + guard(s.Token.Life())
}

// Otherwise are the scopes of the token, if the provider gave others than were asked for; else nil.
func (s *Snapshot) Otherwise() []string {
	if t := s.Token; t != nil && len(t.Scopes) > 0 && !slices.Equal(t.Scopes, s.Variant.Scopes) {
		return t.Scopes
	}
	return nil
}

func defaulted(c tokenbroker.Credential, v tokenbroker.Variant) Defaulted {
	own := c.Variant(nil, "", "")
	return Defaulted{
		Scopes:   tokenbroker.NewVariant(v.Scopes, "", "").Key() == tokenbroker.NewVariant(own.Scopes, "", "").Key(),
		Subject:  v.Subject == own.Subject,
		Audience: v.Audience == own.Audience,
	}
}
