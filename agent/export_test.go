package agent

import "golang.org/x/time/rate"

// Spend leaves a user no call to make.
func (a *Agent) Spend(uid uint32) {
	a.pace.mu.Lock()
	defer a.pace.mu.Unlock()
	a.pace.uids[uid] = rate.NewLimiter(0, 0)
}
