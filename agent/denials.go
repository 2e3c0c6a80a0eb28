package agent

import (
	"sync"

	"golang.org/x/time/rate"
)

// denials bounds how many denied calls of a user are recorded: what one without a rule does must not fill the log.
type denials struct {
	mu   sync.Mutex
	uids map[uint32]*denied
}

type denied struct {
	limit  *rate.Limiter
	passed uint64 // over since the last record
}

const (
	denialsPerSecond = 1
	denialsBurst     = 20
	maxDeniedUIDs    = 1024
)

func newDenials() *denials { return &denials{uids: map[uint32]*denied{}} }

// take reports whether a denial is to be recorded, and how many were not since the last one that was.
func (d *denials) take(uid uint32) (passed uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.uids[uid]
	if u == nil {
		if len(d.uids) >= maxDeniedUIDs {
			clear(d.uids)
		}
		u = &denied{limit: rate.NewLimiter(denialsPerSecond, denialsBurst)}
		d.uids[uid] = u
	}
	if !u.limit.Allow() {
		u.passed++
		return 0, false
	}
	passed, u.passed = u.passed, 0
	return passed, true
}
