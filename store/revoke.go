package store

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// maxDoomed bounds the tokens of one revocation: more than there are variants in memory.
const maxDoomed = 64

// Revoke takes from a credential all that could be used of it: what its grant lives on, the secret before, and every access token.
// What the provider can end is kept apart in Grant.Revoking, the refresh token first, until Revoked says that it has. The state is
// REAUTHORIZE, the serial rises, so that an exchange under way ends up apart. Errors: tokenbroker.ErrNotFound if the credential is not
// there or was re-created; tokenbroker.ErrTampered.
func (s *Store) Revoke(ctx context.Context, name, uid string, at time.Time) (tokenbroker.Grant, error) {
	return s.mutate(ctx, name, func(c *chain, d *draft) (bool, error) {
		if c.index.UID != uid || c.grant.UID != uid {
			return false, tokenbroker.ErrNotFound
		}
		doomed, until, err := s.doomed(ctx, c, at)
		if err != nil {
			return false, err
		}
		d.txn.Vital = true // a grant that was stolen is not left to whoever has it for want of room
		g := &c.grant
		if g.Revoking == nil {
			g.Revoking = &tokenbroker.Revoking{Begun: at.UTC()}
		}
		g.Revoking.Tokens = append(doomed, g.Revoking.Tokens...)
		g.Revoking.Until, g.Revoking.Tries, g.Revoking.Next = until.UTC(), 0, at.UTC()
		c.strip(d)
		c.enter(tokenbroker.StateReauthorize, at)
		return true, nil
	})
}

// doomed lists what the provider could end, and says when the last access token ends by itself.
func (s *Store) doomed(ctx context.Context, c *chain, now time.Time) (list []tokenbroker.Doomed, until time.Time, err error) {
	held := c.grant.RefreshToken
	switch c.grant.Holds {
	case tokenbroker.HoldsRefreshToken:
		if !held.IsZero() {
			list = append(list, tokenbroker.Doomed{Kind: tokenbroker.RefreshTokenKind, Token: held})
		}
	case tokenbroker.HoldsToken:
		list = append(list, tokenbroker.Doomed{Kind: tokenbroker.AccessTokenKind, Token: held})
	case tokenbroker.HoldsNothing, tokenbroker.HoldsPassword, tokenbroker.HoldsSubjectToken:
	}
	for hash, link := range c.link {
		if !link.Expiry.After(now) {
			continue
		}
		if link.Expiry.After(until) {
			until = link.Expiry
		}
		entries, err := s.read(ctx, tokenKeyOf(c.name, hash))
		if err != nil {
			return nil, until, err
		}
		var r tokenRecord
		if _, err := s.open(entries[0], link.Number, &r); err != nil {
			if errors.Is(err, tokenbroker.ErrTampered) {
				continue // it can't be told to the provider; the rest can
			}
			return nil, until, err
		}
		if t := secret(r.AccessToken); len(list) < maxDoomed && t != held {
			list = append(list, tokenbroker.Doomed{Kind: tokenbroker.AccessTokenKind, Token: t})
		}
	}
	return list, until, nil
}

// strip empties a grant and drops its tokens.
func (c *chain) strip(d *draft) {
	g := &c.grant
	g.RefreshToken, g.Previous, g.Rotated, g.Holds = tokenbroker.Secret{}, tokenbroker.Secret{}, time.Time{}, tokenbroker.HoldsNothing
	g.RefreshEnd, g.Prolonged, g.Intent = time.Time{}, time.Time{}, nil
	g.Code, g.Cause, g.Strikes = "revoked", "", 0
	g.Serial++
	c.dropTokens(d, "")
}

// dropTokens drops all access tokens. The record of the one to keep is left to whoever writes it anew.
func (c *chain) dropTokens(d *draft, keep string) {
	n := 0
	for hash := range c.link {
		if n++; n <= MaxOps/2 && hash != keep { // the rest is out of reach without its link
			d.delete(tokenKeyOf(c.name, hash))
		}
	}
	c.link, c.index.Expiry = nil, time.Time{}
}

// Revoked notes how far a revocation came at the provider; nil ends it. It changes nothing else. Errors: tokenbroker.ErrNotFound if the
// credential is not there or was re-created; tokenbroker.ErrTampered.
func (s *Store) Revoked(ctx context.Context, name, uid string, r *tokenbroker.Revoking) (tokenbroker.Grant, error) {
	return s.mutate(ctx, name, func(c *chain, d *draft) (bool, error) {
		if c.index.UID != uid || c.grant.UID != uid {
			return false, tokenbroker.ErrNotFound
		}
		d.txn.Vital = true
		c.grant.Revoking = r
		return true, nil
	})
}
