package server

import (
	"slices"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	"github.com/tokenbroker/tokenbroker/usage"
)

// basis is by which rules a subscription lives, and for how long.
type basis struct {
	lapsed chan struct{} // holds a value once a rule that it lives by has ended

	basisMu sync.Mutex
	lapse   *time.Timer // fills lapsed; nil = no rule that it lives by ends
	until   time.Time   // when it does
	rules   []ruled
	over    bool
}

// ruled is the rule by which a subscription has a credential.
type ruled struct {
	credential, rule string
	use              usage.Use
}

// lives notes what the policy allows. Where that ends by itself, the subscription is judged anew then.
func (sub *subscription) lives(credential string, d policy.Decision) {
	use := sub.s.cfg.Usage.Use(credential, sub.call.Identity, d.Rule)
	sub.basisMu.Lock()
	defer sub.basisMu.Unlock()
	now := ruled{credential, d.Rule, use}
	if i := sub.ruleOfLocked(credential); i < 0 {
		sub.rules = append(sub.rules, now)
	} else {
		sub.rules[i] = now
	}
	if d.Mode == policy.ModeAudit {
		sub.lastsLocked(d.Until)
	}
}

func (b *basis) ruleOfLocked(credential string) int {
	return slices.IndexFunc(b.rules, func(r ruled) bool { return r.credential == credential })
}

// lastsLocked sets the clock to the first end of a rule.
func (b *basis) lastsLocked(until time.Time) {
	now := time.Now()
	switch {
	case b.over, b.until.After(now) && !until.Before(b.until):
		return
	case b.lapse == nil:
		b.lapse = time.AfterFunc(until.Sub(now), b.fill)
	default:
		b.lapse.Reset(until.Sub(now))
	}
	b.until = until
}

// fill has the handler judge the subscription anew.
//
// The clock may ring early, as the wall clock that rules go by can be set back: then it is wound up again.
func (b *basis) fill() {
	b.basisMu.Lock()
	b.until = time.Time{}
	b.basisMu.Unlock()
	select {
	case b.lapsed <- struct{}{}:
	default:
	}
}

// used counts a token that was given.
func (sub *subscription) used(s *broker.Snapshot) {
	if s.Token == nil || sub.s.cfg.Usage == nil {
		return
	}
	sub.basisMu.Lock()
	i := sub.ruleOfLocked(s.Credential)
	var use usage.Use
	if i >= 0 {
		use = sub.rules[i].use
	}
	sub.basisMu.Unlock()
	use.Mark(time.Now())
}

// end stops the clock.
func (b *basis) end() {
	b.basisMu.Lock()
	defer b.basisMu.Unlock()
	if b.over = true; b.lapse != nil {
		b.lapse.Stop()
	}
}
