package sandbox_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// waiting is one device as RFC 8628 §3.5 has it, written down apart from the server.
type waiting struct {
	reply    reply
	end      time.Time
	interval time.Duration
	last     time.Time
	answer   string // "" = none yet, else "allow" or "deny"
	done     bool
}

// expect says what a poll brings now.
func (d *waiting) expect(now time.Time) string {
	early := !d.last.IsZero() && now.Sub(d.last) < d.interval
	if d.done {
		return "invalid_grant"
	}
	d.last = now
	switch {
	case !now.Before(d.end):
		return "expired_token"
	case early:
		d.interval += 5 * time.Second
		return "slow_down"
	case d.answer == "deny":
		return "access_denied"
	case d.answer == "":
		return "authorization_pending"
	}
	d.done = true
	return ""
}

// TestDevicesAgreeWithASecondReading polls and answers devices at random, and compares each answer with the reading above.
func TestDevicesAgreeWithASecondReading(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pollAtRandom(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func pollAtRandom(t *testing.T, r *rand.Rand) {
	t.Helper()
	w := newWorld(t, people())
	var all []*waiting
	seen := map[string]int{}
	for step := range 300 {
		if len(all) < 3 || r.IntN(25) == 0 {
			for _, old := range all { // a new device sweeps out those that expired ten minutes ago
				old.done = old.done || !time.Now().Before(old.end.Add(10*time.Minute))
			}
			all = append(all, &waiting{reply: w.begin(), end: time.Now().Add(10 * time.Minute), interval: 5 * time.Second})
		}
		d := all[len(all)-1-r.IntN(min(3, len(all)))]
		if r.IntN(8) == 0 {
			answer(w, d, r.IntN(3) > 0)
		}
		want := d.expect(time.Now())
		if got := w.poll(d.reply); got.str("error") != want {
			t.Fatalf("step %d: got %q, want %q", step, got.str("error"), want)
		}
		seen[want]++
		time.Sleep(time.Duration(r.IntN(9000)) * time.Millisecond)
		if r.IntN(40) == 0 {
			time.Sleep(4 * time.Minute)
		}
	}
	if len(seen) < 5 {
		t.Errorf("got only %v: the test shows too little", seen)
	}
}

// answer is a person at the page. One who comes too late, or again, finds nothing.
func answer(w *world, d *waiting, allow bool) {
	w.t.Helper()
	var err error
	if allow {
		err = w.srv.Approve("acme", d.reply.str("user_code"), "ann@corp.test")
	} else {
		err = w.srv.Deny("acme", d.reply.str("user_code"))
	}
	open := d.answer == "" && !d.done && time.Now().Before(d.end)
	if (err == nil) != open {
		w.t.Errorf("got %v, want the code open %t", err, open)
	}
	if open {
		d.answer = map[bool]string{true: "allow", false: "deny"}[allow]
	}
}
