package fleet_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
)

// record is what a record of the broker's trail says of a token that somebody could have got.
type record struct {
	Kind       audit.Kind `json:"kind"`
	Action     string     `json:"action"`
	Credential string     `json:"credential"`
	Generation uint64     `json:"generation"`
	Ends       time.Time  `json:"expire_time"`
}

// records are those of the broker's trail that tell of a token.
func (s *site) records() (all []record) {
	s.t.Helper()
	for line := range bytes.Lines(s.read("audit.jsonl")) {
		var r record
		must(s.t, json.Unmarshal(line, &r))
		got := r.Kind == audit.KindExchangeResult || r.Kind == audit.KindDeliver || r.Kind == audit.KindCall && strings.HasPrefix(r.Action, "token.")
		if got && r.Generation > 0 {
			all = append(all, r)
		}
	}
	return all
}

// generations counts those that the trail tells of. Numbers alone say nothing: some are passed over when the broker starts anew, and a
// credential that is made takes one.
func generations(all []record) int {
	seen := map[uint64]bool{}
	for _, r := range all {
		seen[r.Generation] = true
	}
	return len(seen)
}

// losses marks the tokens that nobody could ever get: the broker was killed between the provider's reply and its own record. A record's token
// was asked for a life before it ends: after the one before it had come, and before the provider was asked.
func (s *site) losses(all []record) (lost int) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for name, tokens := range s.ledger.of {
		before := time.Time{}
		for _, one := range tokens {
			one.lost = true
			for _, r := range all {
				if sent := r.Ends.Add(-s.plan.life); r.Credential == name && sent.After(before) && !sent.After(one.asked) {
					one.lost = false
				}
			}
			if before = one.at; !one.lost {
				continue
			}
			lost++
			if !s.ledger.killedAfter(one.asked) {
				s.t.Errorf("%s: the broker has no record of a token that it got, and was not killed", name)
			}
		}
	}
	return lost
}

// killedAfter reports whether the life of the broker that a moment falls into ended by a kill. l.mu is held.
func (l *ledger) killedAfter(t time.Time) bool {
	for i, s := range l.ups {
		if !t.Before(s.from) && (i+1 == len(l.ups) || t.Before(l.ups[i+1].from)) {
			for _, k := range l.kills {
				if k.Equal(s.to) {
					return true
				}
			}
		}
	}
	return false
}
