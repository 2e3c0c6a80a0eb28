package client

import (
	"cmp"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker"
)

// held is a token with what is worked out once for all who read it. But for read it is never changed.
type held struct {
	token  tokenbroker.Token
	oauth2 *oauth2.Token // the same for libraries that want that; nil if it can't say what the token needs
	ends   time.Time     // the token's end by the monotonic clock; its Expiry is by the wall
	life   time.Duration // that it had when it came
	due    time.Time     // when the broker means to have a newer one; zero = it did not say
	read   atomic.Bool   // since somebody looked at this
}

func newHeld(t tokenbroker.Token, due, now time.Time) *held {
	life := t.Expiry.Sub(now)
	h := &held{token: t, ends: now.Add(life), life: life, due: due}
	if name, _ := t.Header(); name == "Authorization" {
		h.oauth2 = &oauth2.Token{AccessToken: t.AccessToken.Reveal(), TokenType: cmp.Or(t.Type, "Bearer"), Expiry: t.Expiry}
	}
	return h
}

// left is for how long the token is valid yet. A machine that slept has a monotonic clock that is behind, one whose clock was set has
// a wall clock that went anywhere: the more pessimistic of the two counts.
func (h *held) left(now time.Time) time.Duration {
	return min(h.ends.Sub(now), h.token.Expiry.Sub(now))
}

// askAt is when to ask for a newer one if nobody brings it: when the broker means to have it, but not at once again, so that a refresh
// that is due there, or fails, has its time.
func (h *held) askAt(now time.Time) time.Time {
	floor := now.Add(h.left(now) / 10)
	if h.due.After(floor) {
		return h.due
	}
	return floor
}

// late is when a token counts as stale: a little after the broker meant to have a newer one, which has to be fetched and to travel.
func (h *held) late() time.Time { return h.due.Add(min(10*time.Second, h.life/10)) }
