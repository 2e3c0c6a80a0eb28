package consent

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	minInterval = time.Second
	slowDown    = 5 * time.Second // RFC 8628 §3.5
	maxBackoff  = time.Minute
)

func (s *Service) startDevice(ctx context.Context, start *tokenbroker.ConsentStart, p party) error {
	d, err := s.cfg.Devices.StartDevice(ctx, tokenbroker.DeviceRequest{Credential: p.credential, Client: p.client, Secret: p.secret(), Scopes: start.Consent.Scopes})
	if err != nil {
		return upstream(err)
	}
	c := &start.Consent
	c.DeviceCode, c.Interval = d.DeviceCode, max(d.Interval, minInterval)
	c.Expiry = c.Created.Add(deviceMost)
	if !d.Expiry.IsZero() && d.Expiry.Before(c.Expiry) {
		c.Expiry = d.Expiry
	}
	start.UserCode, start.VerificationURI, start.VerificationURIComplete = d.UserCode, d.VerificationURI, d.VerificationURIComplete
	return nil
}

// upstream is a failure at a provider, for a caller.
func upstream(err error) error {
	f, ok := errors.AsType[*tokenbroker.Failure](err)
	if err == nil || !ok {
		return err
	}
	p := &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, Detail: "the provider answers " + cleanCode(f.Code), RetryAfter: f.RetryAfter,
		Metadata: map[string]string{"code": cleanCode(f.Code)}}
	switch f.Class {
	case tokenbroker.ClassConfiguration, tokenbroker.ClassDeadGrant:
		p.Err = tokenbroker.ErrMisconfigured
	case tokenbroker.ClassThrottled:
		p.Err = tokenbroker.ErrThrottled
	case tokenbroker.ClassTransient, tokenbroker.ClassAmbiguous, tokenbroker.ClassClockSkew:
	}
	return p
}

// poll has Run ask the provider until a device code is consented to. If Run has not begun it finds the consent by itself.
func (s *Service) poll(id string) {
	select {
	case s.devices <- id:
	default:
	}
}

// pollUntilOver asks the provider about one device code until that is over, or ctx is.
func (s *Service) pollUntilOver(ctx context.Context, id string) {
	wait := time.Duration(0) // besides the interval
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		c, err := s.cfg.Records.Consent(ctx, id)
		if errors.Is(err, tokenbroker.ErrConsentNotFound) || errors.Is(err, tokenbroker.ErrTampered) {
			return
		}
		if err == nil && (c.State.Over() || c.Step != tokenbroker.StepNone || overdue(c, time.Now())) {
			return
		}
		timer.Reset(max(c.Interval, minInterval) + wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err == nil {
			wait = s.pollOnce(ctx, id, wait)
		}
	}
}

// pollOnce asks once, and says how much longer than the interval to wait for the next time.
func (s *Service) pollOnce(ctx context.Context, id string, waited time.Duration) time.Duration {
	c, err := s.cfg.Records.Consent(ctx, id)
	if err != nil || c.State.Over() || overdue(c, time.Now()) {
		return 0
	}
	p, err := s.partyOf(ctx, c)
	if err != nil {
		return backoff(waited, c.Interval)
	}
	secret := p.secret()
	reply, err := s.cfg.Devices.PollDevice(ctx, tokenbroker.DevicePoll{Credential: p.credential, Client: p.client, Secret: secret, Scopes: c.Scopes, DeviceCode: c.DeviceCode})
	if err != nil && reply.RefreshToken.IsZero() {
		return s.pollFailed(ctx, c, err, waited)
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := s.audit(ctx, "consent.device", c); err != nil {
		s.log.Error("a device code was consented to, and is lost: the audit log can't be written", "consent", c.ID, "error", err)
		_, _ = s.finish(ctx, c, tokenbroker.ConsentFailed, "audit_unavailable")
		return 0
	}
	if _, err := s.settle(ctx, c, p, outcome{reply, secret.ID, err}); err != nil {
		s.log.Warn("a device code was consented to in vain", "consent", c.ID, "credential", c.Credential, "error", err)
	}
	return 0
}

// pollFailed judges a poll that brought nothing (RFC 8628 §3.5).
func (s *Service) pollFailed(ctx context.Context, c tokenbroker.Consent, err error, waited time.Duration) time.Duration {
	f, ok := errors.AsType[*tokenbroker.Failure](err)
	if !ok {
		return backoff(waited, c.Interval)
	}
	switch f.Code {
	case "authorization_pending":
		return 0
	case "slow_down":
		c.Interval += slowDown
		if _, err := s.put(ctx, c); err != nil {
			s.log.Warn("an interval is not kept", "consent", c.ID, "error", err)
			return slowDown
		}
		return 0
	case codeExpired:
		_, _ = s.finish(ctx, c, tokenbroker.ConsentExpired, f.Code)
		return 0
	}
	switch f.Class {
	case tokenbroker.ClassTransient, tokenbroker.ClassAmbiguous, tokenbroker.ClassThrottled, tokenbroker.ClassClockSkew:
		return max(backoff(waited, c.Interval), f.RetryAfter)
	case tokenbroker.ClassConfiguration, tokenbroker.ClassDeadGrant:
	}
	_, _ = s.refused(ctx, c, f)
	return 0
}

// backoff doubles the time between polls where the network fails (RFC 8628 §3.5).
func backoff(waited, interval time.Duration) time.Duration {
	return min(2*waited+max(interval, minInterval), maxBackoff)
}
