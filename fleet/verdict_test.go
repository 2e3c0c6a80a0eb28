package fleet_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/client"
)

// verdicts are what became of all requests.
type verdicts struct {
	s    *site
	pace pace

	mu       sync.Mutex
	all      []outcome
	began    time.Time
	excused  map[string]int // why → failures
	failures []string
	pardons  []string // failures that nobody is to blame for
}

func (v *verdicts) add(o outcome) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, o)
}

// count is how many requests have ended.
func (v *verdicts) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.all)
}

// pardoned is why a request may fail: what it needs was not there.
const pardoned = "no good token was there or in reach"

// slow is why a request may fail although what it needs was there: the machine could not have used it in time.
const slow = "the machine was too slow"

// resigned is for how long a Transport may not wait again after it waited in vain.
const resigned = 3 * time.Second

// judge judges all requests.
func (v *verdicts) judge() {
	v.excused = map[string]int{}
	slices.SortFunc(v.all, func(a, b outcome) int { return a.from.Compare(b.from) })
	failed := map[string]time.Time{} // worker → when its last request ended that failed
	for _, o := range v.all {
		tries := v.s.api.tries(o.id)
		worker := o.id[:strings.LastIndexByte(o.id, '-')]
		o.vain = o.from.Sub(failed[worker]) < resigned
		if o.err != nil {
			failed[worker] = o.to
		}
		switch why := v.excuse(o, tries); why {
		case "none":
			v.failures = append(v.failures, fmt.Sprintf("%s of %s, %v to %v: %v; its tries: %s; there were: %s", o.id, o.credential,
				v.at(o.from), v.at(o.to), o.err, v.describe(tries), v.tokens(o)))
		case pardoned, slow:
			v.excused[why]++
			v.pardons = append(v.pardons, fmt.Sprintf("pardoned: %s, %v to %v: %v: %s", o.id, v.at(o.from), v.at(o.to), o.err, why))
		default:
			v.excused[why]++
		}
	}
}

// excuse says why the end of a request is in order; "none" if it is not.
func (v *verdicts) excuse(o outcome, tries []attempt) string {
	scope, isScope := errors.AsType[*client.ScopeError](o.err)
	lacked := len(tries) > 0 && tries[len(tries)-1].status == http.StatusForbidden
	switch {
	case o.err == nil:
		return "answered"
	case isScope != (lacked && o.typed), isScope && scope.Credential != o.credential:
		return "none"
	case lacked && (isScope || errors.Is(o.err, refusal{http.StatusForbidden})):
		return "lacked a scope"
	case o.typed && v.refusedTwice(tries):
		return "its second token was ended on the way, too"
	case o.typed && len(tries) == 1 && !o.vain && o.to.Sub(o.from) < v.s.plan.wait:
		return "none" // it did not wait for a newer token, which could come at any time
	case !v.hadToken(o, tries, 0):
		return pardoned
	case !v.hadToken(o, tries, v.pace.within(o.from, o.to)*time.Duration(o.beats)):
		return slow
	}
	return "none"
}

// refusedTwice reports whether the token that a request was repeated with had been good when its first was refused: one repetition is all
// that a Transport promises.
func (v *verdicts) refusedTwice(tries []attempt) bool {
	if len(tries) < 2 {
		return false
	}
	first, last := tries[len(tries)-2], tries[len(tries)-1]
	one, _ := v.s.ledger.find(last.token)
	return first.token != last.token && last.status == http.StatusUnauthorized && one.until().After(first.at)
}

// hadToken reports whether there was a good token for long enough, up to when a request failed or at any time before that. A machine that is
// busy needs so much longer.
func (v *verdicts) hadToken(o outcome, tries []attempt, busy time.Duration) bool {
	const step = 20 * time.Millisecond
	refused := map[string]time.Time{}
	for _, a := range tries {
		if _, again := refused[a.token]; !again && a.status == http.StatusUnauthorized {
			refused[a.token] = a.at
		}
	}
	v.s.ledger.mu.Lock()
	defer v.s.ledger.mu.Unlock()
	slack, travel := v.s.plan.slack+busy, time.Second+busy
	run := time.Duration(0)
	for t := o.from; t.Before(o.to); t = t.Add(step) {
		if run += step; !v.s.ledger.good(o, refused, t, travel) {
			run = 0
		}
		if run >= slack {
			return true
		}
	}
	for t := o.to; t.After(o.to.Add(-slack)); t = t.Add(-step) {
		if !v.s.ledger.good(o, refused, t, travel) {
			return false
		}
	}
	return true
}

// at is a time since the start.
func (v *verdicts) at(t time.Time) time.Duration { return t.Sub(v.began).Round(10 * time.Millisecond) }

func (v *verdicts) describe(tries []attempt) string {
	var all []string
	for _, a := range tries {
		one, _ := v.s.ledger.find(a.token)
		all = append(all, fmt.Sprintf("%v: %d for the token of %v that was good until %v", v.at(a.at), a.status, v.at(one.at), v.at(one.until())))
	}
	return cmp.Or(strings.Join(all, "; "), "none")
}

// tokens are those that there were while a request was made, and a while before that.
func (v *verdicts) tokens(o outcome) string {
	v.s.ledger.mu.Lock()
	defer v.s.ledger.mu.Unlock()
	var all []string
	for _, one := range v.s.ledger.of[o.credential] {
		if one.until().After(o.from.Add(-v.s.plan.life)) && one.asked.Before(o.to.Add(v.s.plan.life)) {
			all = append(all, fmt.Sprintf("%v to %v%s", v.at(one.at), v.at(one.until()), map[bool]string{true: " (lost)"}[one.lost]))
		}
	}
	return strings.Join(all, ", ")
}

// report fails the test for each failure, and tells of the rest.
func (v *verdicts) report(t testing.TB) {
	t.Helper()
	t.Logf("%d requests: %v", len(v.all), v.excused)
	t.Logf("the broker was in reach %s", v.s.ledger.spans(v.began))
	for _, p := range v.pardons {
		t.Log(p)
	}
	for i, f := range v.failures {
		if i == 50 {
			t.Errorf("and %d more", len(v.failures)-i)
			break
		}
		t.Error(f)
	}
}
