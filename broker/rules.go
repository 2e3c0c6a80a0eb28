package broker

import (
	"math/rand/v2"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// The numbers of the refresh rules.
const (
	minLead     = time.Minute
	maxLead     = 15 * time.Minute
	maxGuard    = 10 * time.Second
	retryBase   = time.Second
	retryCap    = 5 * time.Minute
	localCap    = 10 * time.Second // in place of retryCap where no provider has to be spared: our own disk refused
	probeMin    = 30 * time.Minute // a refused configuration is tried again after this …
	probeMax    = 6 * time.Hour    // … to this
	variantMemo = 10 * time.Minute // a variant's own bad input is remembered for this long
	floorBase   = 30 * time.Second
	floorCap    = time.Hour
	proofLife   = time.Second // a durable write this recent shows that the store can be written
	minUse      = 10 * time.Minute
	barrenUse   = 10 * time.Second // how long a variant that never had a token keeps its place where places are short
	waitCap     = time.Hour        // the longest that a provider's Retry-After is obeyed at a time

	probeMargin   = 30 * time.Second // before the last valid token ends, when an uncertain refresh token is tried
	graceMargin   = time.Minute      // the most that is kept of a grace window for a request's own way
	exerciseRetry = time.Minute      // after an exercise that could not even be begun
	commitTimeout = 10 * time.Second // of one try to make a result durable
	drainPause    = time.Second      // the same once the broker drains
	joinTries     = 3
)

// guard is the only margin that stops a token from being served: min(10 s, 5 % of its life).
func guard(life time.Duration) time.Duration { return max(0, min(maxGuard, life/20)) }

// lead is how long before its expiry a token is refreshed: 20 % of its life, from 60 s to 15 min, and never over half the
// life. Where refreshing kills the old token, holders lose what is left, so it is a quarter of that.
func lead(life time.Duration, t tokenbroker.Traits) time.Duration {
	l := min(max(life/5, minLead), maxLead, life/2)
	if t.KillsOld {
		l /= 4
	}
	return max(l, 2*guard(life))
}

// refreshAt is when a token is to be refreshed. The jitter, in [0, 1), is drawn once per generation and moves the moment later
// by up to a quarter of the lead.
func refreshAt(tok tokenbroker.Token, t tokenbroker.Traits, jitter float64) time.Time {
	l := lead(tok.Life(), t)
	return tok.Expiry.Add(-l + time.Duration(jitter*float64(l)/4))
}

// unchangedAt is when to look again after a provider answered a refresh with the token we have: halfway to its end, but not
// sooner than the floor, so that a provider which caches its tokens is not asked in a loop.
func unchangedAt(now, end time.Time, t tokenbroker.Traits, life time.Duration) time.Time {
	return now.Add(max(end.Sub(now)/2, floor(t, life, 0)))
}

// backoff is how long to wait after n consecutive failures: full jitter, doubling from 1 s to most, and at least what the
// provider asked for.
func backoff(n int, most, retryAfter time.Duration, jitter float64) time.Duration {
	ceiling := min(most, retryBase<<min(max(0, n), 10))
	retryAfter = min(retryAfter, waitCap)
	// Half a second at the least: a jitter near 0 must not make a loop.
	d := max(time.Duration(jitter*float64(ceiling)), retryBase/2)
	return max(d, retryAfter+time.Duration(jitter*float64(retryAfter)/10))
}

// probeDelay is when a configuration that the provider refused is tried again without anybody having changed it.
func probeDelay(n int, jitter float64) time.Duration {
	ceiling := min(probeMax, probeMin<<min(max(0, n-1), 10))
	return probeMin/2 + time.Duration(jitter*float64(ceiling-probeMin/2))
}

// floor is the least time between refreshes that callers cause. It doubles with each report-driven refresh that did not help,
// and is at most half of a token's life unless it has doubled.
func floor(t tokenbroker.Traits, life time.Duration, doublings int) time.Duration {
	base := t.Floor
	if base <= 0 {
		base = floorBase
	}
	if life > 0 {
		base = min(base, life/2)
	}
	return min(base<<min(doublings, 12), max(floorCap, base))
}

// helped reports whether a report-driven refresh was of use although a worker reports again what it brought: its token was good for a quarter
// of its life, and for twice as long as a report would have had to wait. Who is refused all the time comes sooner than that.
func helped(t tokenbroker.Traits, life time.Duration, doublings int, good time.Duration) bool {
	return good >= max(life/4, 2*floor(t, life, doublings))
}

// inGrace reports whether a refresh token sent at begun may be sent once more because the provider forgives the previous one.
func inGrace(t tokenbroker.Traits, begun, now time.Time) bool { return graceLeft(t, begun, now) > 0 }

// graceLeft is for how long that may yet be done. A clock that went back counts as grace passed. A fifth of the window, at most a
// minute, is kept for the request's own way.
func graceLeft(t tokenbroker.Traits, begun, now time.Time) time.Duration {
	since := now.Sub(begun)
	if since < 0 {
		return 0
	}
	return t.Grace - min(t.Grace/5, graceMargin) - since
}

// strikes is how many consecutive invalid_grant condemn a grant.
func strikes(t tokenbroker.Traits) int { return max(1, t.Strikes) }

// LookAt is when a grant has to be looked at although nobody uses it: to keep its refresh token alive, or to warn of its end. Zero
// for never. It is for the store's summaries.
func LookAt(g tokenbroker.Grant, t tokenbroker.Traits) time.Time {
	at := first(exerciseBy(g, t), nextWarning(g, t, g.Exercised), endsAt(g))
	if g.Revoking != nil {
		at = first(at, g.Revoking.Next)
	}
	return at
}

// endsAt is when a grant ends that no exchange prolongs, zero for never: a static token, a password, a subject token, or an access token
// that came without a refresh token.
func endsAt(g tokenbroker.Grant) time.Time {
	if g.Serial == 0 || g.Holds == tokenbroker.HoldsRefreshToken {
		return time.Time{}
	}
	return g.RefreshEnd
}

// over reports whether a grant has reached such an end.
func over(g tokenbroker.Grant, now time.Time) bool {
	end := endsAt(g)
	return !end.IsZero() && !now.Before(end)
}

// exerciseBy is when an unused refresh token has to be used to stay alive; zero for never. Whether a use moves the end that the
// provider named is not known before it is tried.
func exerciseBy(g tokenbroker.Grant, t tokenbroker.Traits) time.Time {
	if g.Serial == 0 || g.Holds != tokenbroker.HoldsRefreshToken {
		return time.Time{}
	}
	at := after(g.Exercised, t.IdleLife*4/5)
	if g.RefreshEnd.IsZero() {
		return at
	}
	return first(at, after(g.Exercised, g.RefreshEnd.Sub(g.Exercised)*4/5))
}

// exerciseEvery is the least time between two tries to keep a grant alive: a twentieth of what it lives unused, at most an hour, and
// not so long that its end would come first.
func exerciseEvery(g tokenbroker.Grant, t tokenbroker.Traits, now time.Time) time.Duration {
	life := t.IdleLife
	if named := g.RefreshEnd.Sub(g.Exercised); !g.RefreshEnd.IsZero() && (life <= 0 || named < life) {
		life = named
	}
	every := min(time.Hour, life/20)
	if left := grantEnd(g, t).Sub(now); left > 0 {
		every = min(every, left/2)
	}
	return max(every, retryBase)
}

// grantEnd is when a refresh token dies, or what else a grant lives on, as far as is known; zero for never.
func grantEnd(g tokenbroker.Grant, t tokenbroker.Traits) time.Time {
	if g.Serial == 0 || g.Holds != tokenbroker.HoldsRefreshToken {
		return endsAt(g)
	}
	return first(g.RefreshEnd, after(g.Exercised, t.IdleLife), after(g.Consented, t.AbsoluteLife))
}

// warnDays are the days before the end of a refresh token at which operators are warned.
var warnDays = [...]int{30, 7, 1}

// warnings are the moments at which to warn of the end of a refresh token, zero where not. An end that a use can move is warned of
// only when the use that should have moved it is overdue, or did not; one that is as near as that all the time never is. An end that
// nothing moves is always warned of.
func warnings(g tokenbroker.Grant, t tokenbroker.Traits) (at [len(warnDays)]time.Time) {
	if g.Serial == 0 {
		return at
	}
	for i, days := range warnDays {
		ahead := time.Duration(days) * 24 * time.Hour
		warn := func(end time.Time, longest time.Duration) {
			if !end.IsZero() && ahead <= longest {
				at[i] = first(at[i], end.Add(-ahead))
			}
		}
		if g.Holds != tokenbroker.HoldsRefreshToken {
			warn(g.RefreshEnd, g.RefreshEnd.Sub(g.Consented))
			continue
		}
		warn(g.RefreshEnd, g.RefreshEnd.Sub(later(g.Prolonged, g.Consented))/5)
		warn(after(g.Exercised, t.IdleLife), t.IdleLife/5)
		warn(after(g.Consented, t.AbsoluteLife), t.AbsoluteLife/2)
	}
	return at
}

// nextWarning is the first warning after a moment, zero for none.
func nextWarning(g tokenbroker.Grant, t tokenbroker.Traits, from time.Time) (next time.Time) {
	for _, at := range warnings(g, t) {
		if at.After(from) {
			next = first(next, at)
		}
	}
	return next
}

// warned counts the warnings that are due.
func warned(g tokenbroker.Grant, t tokenbroker.Traits, now time.Time) (n int) {
	for _, at := range warnings(g, t) {
		if !at.IsZero() && !at.After(now) {
			n++
		}
	}
	return n
}

// first is the earliest of the moments that are not zero; zero if all are.
func first(moments ...time.Time) (at time.Time) {
	for _, m := range moments {
		if !m.IsZero() && (at.IsZero() || m.Before(at)) {
			at = m
		}
	}
	return at
}

func after(t time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return t.Add(d)
}

func draw() float64 { return rand.Float64() }
