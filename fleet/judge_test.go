package fleet_test

import (
	"net/http"
	"testing"
	"time"
)

// A run proves nothing if its judge lets everything pass: these are requests of 10 s that all ended with 401, each by a broker that was there from
// the start to 20 s, and from 30 s on.
func TestTheJudgeOfARunPardonsNoRequestThatCouldHaveHadAToken(t *testing.T) {
	start := time.Now().Add(-time.Hour)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	token := func(from, to float64) *issued {
		return &issued{secret: start.String() + at(from).String(), asked: at(from), at: at(from), ends: at(to)}
	}
	lost := token(19, 40)
	lost.lost = true
	for name, c := range map[string]struct {
		from    float64
		forgets bool // asks for each token
		tokens  []*issued
		refused int // of the tokens, the one that it was refused with at its start; -1 = none
		failed  bool
	}{
		"a good token all the time":                            {from: 1, tokens: []*issued{token(0, 20)}, refused: -1, failed: true},
		"a good token that it was refused with":                {from: 2, tokens: []*issued{token(0, 20), token(8.5, 20)}, refused: 0, failed: true},
		"a good token at the end, for longer than it may take": {from: 5, tokens: []*issued{token(0, 5), token(10, 20)}, refused: -1, failed: true},
		"a good token at the end, for a moment":                {from: 0, tokens: []*issued{token(-1, 0), token(1, 1.1), token(3, 4), token(6, 7), token(9, 20)}, refused: -1},
		"none, and nobody asked for one":                       {from: 5, tokens: []*issued{token(0, 5)}, refused: -1, failed: true},
		"two that ended at once, and the next in time":         {from: 0, tokens: []*issued{token(-5, 0), token(1, 1.1), token(3.1, 4.5), token(6.6, 20)}, refused: 0},
		"one from before an outage":                            {from: 20, tokens: []*issued{token(15, 40)}, refused: -1, failed: true},
		"one from before an outage, for who asks each time":    {from: 19.5, forgets: true, tokens: []*issued{token(15, 40)}, refused: -1},
		"one that came as the outage began":                    {from: 19.5, tokens: []*issued{token(19.5, 40)}, refused: -1},
		"one that was lost with the broker":                    {from: 21, tokens: []*issued{token(0, 19), lost}, refused: -1},
		"none after an outage, and nobody asked for one":       {from: 29, tokens: []*issued{token(0, 19)}, refused: -1, failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			l.ups = []span{{from: at(-1), to: at(20)}, {from: at(30)}}
			l.of["example/one"] = c.tokens
			v := &verdicts{s: &site{ledger: l, plan: plan{slack: 4 * time.Second}}}
			var tries []attempt
			if c.refused >= 0 {
				tries = append(tries, attempt{at: at(c.from), token: c.tokens[c.refused].secret, status: http.StatusUnauthorized})
			}
			o := outcome{credential: "example/one", remembers: !c.forgets, from: at(c.from), to: at(c.from + 10), err: refusal{http.StatusUnauthorized}}
			if got, want := v.excuse(o, tries), map[bool]string{true: "none", false: pardoned}[c.failed]; got != want {
				t.Errorf("got the excuse %q, want %q", got, want)
			}
			v.pace.beats, o.beats = []beat{{o.from.Add(-5 * time.Second), o.from}, {o.from, o.from.Add(3 * time.Second)}}, 3
			if got, want := v.excuse(o, tries), map[bool]string{true: slow, false: pardoned}[c.failed]; got != want {
				t.Errorf("on a machine that takes 3 s for a beat: got the excuse %q, want %q", got, want)
			}
		})
	}
}
