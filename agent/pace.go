package agent

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tokenbroker/tokenbroker"
)

// pace bounds how many calls a user makes in a second: each costs a record in the trail that all share, and many a call at the broker.
type pace struct {
	perSecond int

	mu   sync.Mutex
	uids map[uint32]*rate.Limiter
}

const (
	callsPerSecond = 500 // unless the config says otherwise
	burstSeconds   = 10  // so many seconds' calls may come at once
	maxPacedUIDs   = 1024
)

func newPace(perSecond int) *pace {
	return &pace{perSecond: perSecond, uids: map[uint32]*rate.Limiter{}}
}

// take reports whether a user may make a call now.
func (p *pace) take(uid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.uids[uid]
	if l == nil {
		if len(p.uids) >= maxPacedUIDs {
			clear(p.uids)
		}
		l = rate.NewLimiter(rate.Limit(p.perSecond), burstSeconds*p.perSecond)
		p.uids[uid] = l
	}
	return l.Allow()
}

// hurried is the error of a call that is one too many in its second. It is not recorded: the log has a line of it now and then.
func (a *Agent) hurried(uid uint32) error {
	if a.pace.take(uid) {
		return nil
	}
	a.hurry.Do(func() {
		a.cfg.Log.Warn("a user makes more calls than one may: some are refused, and not recorded", "uid", uid, "per_second", a.pace.perSecond)
	})
	return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: fmt.Sprintf("calls of this user in a second, which may be %d", a.pace.perSecond), RetryAfter: time.Second}
}
