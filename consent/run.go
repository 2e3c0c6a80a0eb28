package consent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const sweepEvery = time.Minute

// Run polls for device codes, finishes what was cut short, and sweeps, until ctx ends. It waits for all that it began.
func (s *Service) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	polled := map[string]chan struct{}{} // consent → closed when its polling ended
	poll := func(id string) {
		if done := polled[id]; done != nil && !closed(done) {
			return
		}
		done := make(chan struct{})
		polled[id] = done
		wg.Go(func() {
			defer close(done)
			s.pollUntilOver(ctx, id)
		})
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for _, id := range s.sweep(ctx, time.Now()) {
			poll(id)
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case id := <-s.devices:
				poll(id)
			case <-tick.C:
				again = false
			}
		}
		for id, done := range polled {
			if closed(done) {
				delete(polled, id)
			}
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sweep ends what is overdue, goes on with what was cut short, and forgets what ended long ago. It returns the consents to poll for.
func (s *Service) sweep(ctx context.Context, now time.Time) (devices []string) {
	var old []tokenbroker.Consent
	for c, err := range s.cfg.Records.Consents(ctx) {
		switch {
		case errors.Is(err, tokenbroker.ErrTampered):
			s.log.Error("the record of a consent does not open", "consent", c.ID)
			continue
		case err != nil:
			if ctx.Err() == nil {
				s.log.Error("consents can't be read", "error", err)
			}
			return devices
		case c.State.Over():
			old = append(old, c)
		case c.Flow == tokenbroker.FlowDevice && c.Step == tokenbroker.StepNone && !overdue(c, now):
			devices = append(devices, c.ID)
		}
		s.resume(ctx, c, now)
	}
	s.forget(ctx, old, now)
	return devices
}

// resume does what is due for one consent. The steps of calls that are on their way are young, and left to them.
func (s *Service) resume(ctx context.Context, c tokenbroker.Consent, now time.Time) {
	cutShort := c.StepTime.Before(s.started) || now.Sub(c.StepTime) > 2*finishTime
	switch {
	case overdue(c, now):
		s.expire(ctx, c)
	case c.Step == tokenbroker.StepRedeeming && cutShort:
		_, _ = s.finish(ctx, c, tokenbroker.ConsentFailed, codeInterrupted)
	case c.Step == tokenbroker.StepAdopting && cutShort:
		if _, err := s.adopt(ctx, c, true); err != nil && ctx.Err() == nil {
			s.log.Warn("a consent is not taken up yet", "consent", c.ID, "credential", c.Credential, "error", err)
		}
	case c.Step == tokenbroker.StepRevoking && (cutShort || now.Sub(c.StepTime) >= sweepEvery):
		s.revoke(ctx, c)
	}
}

// expire ends a consent whose time is over. What nobody accepted is revoked.
func (s *Service) expire(ctx context.Context, c tokenbroker.Consent) {
	if c.Grant != nil && s.audit(ctx, "consent.expire", c) != nil {
		return // the next sweep tries again
	}
	if c, err := s.finish(ctx, c, tokenbroker.ConsentExpired, ""); err == nil {
		s.revoke(ctx, c)
	}
}

// forget deletes what ended a day ago, and of what ended since all but the newest.
func (s *Service) forget(ctx context.Context, old []tokenbroker.Consent, now time.Time) {
	slices.SortFunc(old, func(a, b tokenbroker.Consent) int { return b.Ended.Compare(a.Ended) })
	for i, c := range old {
		if forgotten(c, now) || i >= maxEnded {
			if c.Grant != nil {
				s.log.Error("a grant that nobody took could not be revoked for a day: end it at the provider", "consent", c.ID, "credential", c.Credential, "account", c.Account)
			}
			_ = s.cfg.Records.DeleteConsent(ctx, c.ID)
		}
	}
}
