package consent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Consent says how a consent stands.
func (s *Service) Consent(ctx context.Context, id string) (tokenbroker.Consent, error) {
	c, err := s.cfg.Records.Consent(ctx, id)
	if errors.Is(err, tokenbroker.ErrTampered) {
		err = errors.Join(tokenbroker.ErrConsentNotFound, err)
	}
	return review(c, time.Now()), err
}

// Consents lists consents of a credential ("" = of all that allowed says yes to), the newest first, at most 1000.
func (s *Service) Consents(ctx context.Context, credential string, allowed func(credential string) bool) ([]tokenbroker.Consent, error) {
	var list []tokenbroker.Consent
	now := time.Now()
	for c, err := range s.cfg.Records.Consents(ctx) {
		if errors.Is(err, tokenbroker.ErrTampered) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if (credential == "" || c.Credential == credential) && allowed(c.Credential) && !forgotten(c, now) {
			list = append(list, review(c, now))
		}
	}
	slices.SortFunc(list, func(a, b tokenbroker.Consent) int { return b.Created.Compare(a.Created) })
	return list[:min(len(list), maxListed)], nil
}

// review shows a consent as it stands now, whether or not it was swept since its time was over.
func review(c tokenbroker.Consent, now time.Time) tokenbroker.Consent {
	if overdue(c, now) {
		c.State, c.Ended = tokenbroker.ConsentExpired, c.Expiry
	}
	c.Advice = advice(c)
	return c
}

// overdue reports whether the time of a consent is over. One that is being taken up has none.
func overdue(c tokenbroker.Consent, now time.Time) bool {
	return !c.State.Over() && c.Step == tokenbroker.StepNone && now.After(c.Expiry)
}

func forgotten(c tokenbroker.Consent, now time.Time) bool {
	return c.State.Over() && now.Sub(c.Ended) > keepEnded
}

// Accept takes the account that consented by a link for the right one.
func (s *Service) Accept(ctx context.Context, id, account string) (tokenbroker.Consent, error) {
	c, err := s.Consent(ctx, id)
	switch {
	case err != nil:
		return c, err
	case c.State != tokenbroker.ConsentAwaiting || c.Step != tokenbroker.StepNone:
		return c, notAwaiting(c)
	case c.Account != account:
		return c, &tokenbroker.Problem{Err: tokenbroker.ErrAccountMismatch, Field: "account", Detail: "the one that was named is not the one that consented; look at the consent again"}
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if stale(c) {
		if c, err = s.finish(ctx, withoutGrant(c), tokenbroker.ConsentFailed, codeStale); err == nil {
			err = ended(c)
		}
		return c, err
	}
	c.Step, c.StepTime = tokenbroker.StepAdopting, time.Now()
	if c, err = s.put(ctx, c); err != nil {
		return c, err
	}
	c, err = s.adopt(ctx, c, false)
	c.Advice = advice(c) // of how it stands now
	return c, err
}

func notAwaiting(c tokenbroker.Consent) error {
	if c.State == tokenbroker.ConsentPending {
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "nobody has consented yet"}
	}
	return ended(c)
}

// stale reports whether a grant that waited is of no use any more, and drops from one that is what is not.
func stale(c tokenbroker.Consent) bool {
	g := c.Grant
	if g.Token != nil && !time.Now().Before(g.Token.Expiry) {
		g.Token = nil
	}
	dead := !g.RefreshEnd.IsZero() && !time.Now().Before(g.RefreshEnd)
	return g.Token == nil && (g.RefreshToken.IsZero() || dead)
}

func withoutGrant(c tokenbroker.Consent) tokenbroker.Consent {
	c.Grant = nil
	return c
}

// Cancel ends a consent. What it brought, if it waits for acceptance, is revoked at the provider.
func (s *Service) Cancel(ctx context.Context, id string) (tokenbroker.Consent, error) {
	c, err := s.Consent(ctx, id)
	if err != nil {
		return c, err
	}
	if c.State.Over() || c.Step == tokenbroker.StepAdopting {
		return c, ended(c)
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if c, err = s.finish(ctx, c, tokenbroker.ConsentCancelled, ""); err != nil {
		return c, err
	}
	return s.revoke(ctx, c), nil
}
