package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	keepExpired = 24 * time.Hour // how long after its expiry a variant's token is kept
	keepMany    = 256            // with more tokens than these, those that have expired are not kept: the record of the grant names each
	maxPrune    = 64             // expired tokens that one commit removes
)

// Begin writes the intent to spend the grant's refresh token, and returns the grant with the token to send. A replay of a
// standing intent keeps when it began and counts the sends.
//
// Errors: tokenbroker.ErrNotFound if the credential is not there or was re-created; tokenbroker.ErrSuperseded if another
// serial is current; tokenbroker.ErrUncertain if an intent of this serial stands and b is no replay; tokenbroker.ErrTampered.
func (s *Store) Begin(ctx context.Context, b tokenbroker.Begin) (tokenbroker.Grant, error) {
	return s.mutate(ctx, b.Credential, func(c *chain, _ *draft) (bool, error) {
		if err := c.match(b.UID, b.Serial, tokenbroker.ErrNotFound); err != nil {
			return false, err
		}
		hash, err := s.sealer.ring.Hash([]byte("refresh token\x00" + c.grant.RefreshToken.Reveal()))
		if err != nil {
			return false, fmt.Errorf("hash refresh token: %w", err)
		}
		next := &tokenbroker.Intent{
			Attempt: b.Attempt, Serial: b.Serial, TokenHash: hash, Variant: b.Variant, Begun: b.Time.UTC(), Sends: 1,
		}
		// An intent of an older serial is about a refresh token that is not current any more.
		if old := c.grant.Intent; old != nil && old.Serial == b.Serial {
			if !b.Replay {
				return false, fmt.Errorf("%w: attempt %s began at %s", tokenbroker.ErrUncertain, old.Attempt, old.Begun.Format(time.RFC3339))
			}
			next.Begun, next.Sends = old.Begun, old.Sends+1
		}
		c.grant.Intent = next
		return true, nil
	})
}

// match compares what the caller believes with what is current.
func (c *chain) match(uid string, serial uint64, otherUID error) error {
	switch {
	case c.index.UID != uid || c.grant.UID != uid:
		return otherUID
	case c.grant.Serial != serial:
		return fmt.Errorf("%w: serial %d is current, not %d", tokenbroker.ErrSuperseded, c.grant.Serial, serial)
	}
	return nil
}

// Commit makes an outcome durable and returns the grant and the token with its generation. It compares UID and the serial
// that was spent, and nothing else. Where they are not current, or the records do not open, the outcome is kept apart,
// sealed, for [Store.Orphans], nothing is overwritten, and the error wraps tokenbroker.ErrSuperseded (or ErrTampered). If it
// could not be kept apart either, the error wraps tokenbroker.ErrStoreUnavailable and neither of those: commit it again. A
// new refresh token is stored also where the engine is at its maximum size.
func (s *Store) Commit(ctx context.Context, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token, error) {
	var token tokenbroker.Token
	g, err := s.mutate(ctx, o.Credential, func(c *chain, d *draft) (bool, error) {
		if err := c.match(o.UID, o.Serial, tokenbroker.ErrSuperseded); err != nil {
			return false, err
		}
		d.txn.Vital = !o.RefreshToken.IsZero() && o.RefreshToken != c.grant.RefreshToken
		c.renew(o)
		if o.Token == nil {
			return true, nil
		}
		c.enter(tokenbroker.StateReady, o.Time)
		c.grant.Code, c.grant.Cause, c.grant.Strikes = "", "", 0
		var err error
		token, err = s.putToken(ctx, c, d, o)
		return true, err
	})
	if lost(err) || errors.Is(err, tokenbroker.ErrSuperseded) {
		return tokenbroker.Grant{}, tokenbroker.Token{}, s.orphan(ctx, o, err)
	}
	if err != nil {
		return tokenbroker.Grant{}, tokenbroker.Token{}, err
	}
	return g, token, nil
}

// renew takes over what the outcome says of the grant.
func (c *chain) renew(o tokenbroker.Outcome) {
	g := &c.grant
	if !g.RefreshToken.IsZero() || !o.RefreshToken.IsZero() {
		g.Exercised = o.Time.UTC()
	}
	switch {
	case o.RefreshToken.IsZero() || o.RefreshToken == g.RefreshToken:
		c.prolong(o.RefreshEnd, o.Time)
	default:
		c.replace(o.RefreshToken, o.RefreshEnd, o.Time)
		if g.Holds != tokenbroker.HoldsRefreshToken { // a password is not kept once a refresh token has come
			g.Holds, g.Previous, g.Rotated = tokenbroker.HoldsRefreshToken, tokenbroker.Secret{}, time.Time{}
		}
	}
	// An intent of another attempt stands only while the refresh token it speaks of is current.
	if i := g.Intent; i != nil && (i.Attempt == o.Attempt || i.Serial != g.Serial) {
		g.Intent = nil
	}
	if o.Granted != nil {
		g.Granted = o.Granted
	}
	if g.Account == "" { // another one is a matter of consent
		g.Account = o.Account
	}
	if o.SecretID != "" {
		g.SecretID = o.SecretID
	}
	if o.LastUse.After(g.LastUse) {
		g.LastUse = o.LastUse.UTC()
	}
}

// replace puts a new refresh token in the place of the current one, which is kept.
func (c *chain) replace(rt tokenbroker.Secret, end, at time.Time) {
	g := &c.grant
	if !g.RefreshToken.IsZero() {
		g.Previous, g.Rotated = g.RefreshToken, at.UTC()
	}
	g.RefreshToken = rt
	if end.IsZero() {
		g.RefreshEnd, g.Prolonged = time.Time{}, time.Time{}
	}
	c.prolong(end, at)
	g.Serial++
}

// prolong takes over when the refresh token dies, if that was said. Providers count in seconds from their own clock, so an end
// that is less than a minute from the one there is has not moved; it stays as it was, so that many small moves add up to one.
func (c *chain) prolong(end, at time.Time) {
	g := &c.grant
	if end.IsZero() || end.Sub(g.RefreshEnd).Abs() < time.Minute {
		return
	}
	if end.After(g.RefreshEnd) {
		g.Prolonged = at.UTC()
	}
	g.RefreshEnd = end.UTC()
}

// putToken drafts the token of the outcome's variant and drops those that expired long ago.
func (s *Store) putToken(ctx context.Context, c *chain, d *draft, o tokenbroker.Outcome) (tokenbroker.Token, error) {
	k, hash, err := s.tokenKey(c.name, o.Variant.Key())
	if err != nil {
		return tokenbroker.Token{}, err
	}
	t := *o.Token
	t.Generation = tokenbroker.Generation(d.number)
	if o.SameToken {
		if t.Generation, err = s.keptGeneration(ctx, c, k, hash, t); err != nil {
			return tokenbroker.Token{}, err
		}
	}
	t.Expiry, t.Obtained = t.Expiry.UTC(), t.Obtained.UTC()
	d.put(k, tokenToRecord(t))
	c.prune(d, hash, o.Time)
	if c.link == nil {
		c.link = map[string]tokenLink{}
	}
	c.link[hash] = tokenLink{Number: d.number, Expiry: t.Expiry}
	c.index.Expiry = t.Expiry
	return t, nil
}

// keptGeneration is the generation of the stored token if t is the same; a new one if it is not, or does not open.
func (s *Store) keptGeneration(ctx context.Context, c *chain, k Key, hash string, t tokenbroker.Token) (tokenbroker.Generation, error) {
	link, ok := c.link[hash]
	if !ok {
		return t.Generation, nil
	}
	entries, err := s.read(ctx, k)
	if err != nil {
		return 0, err
	}
	var r tokenRecord
	_, err = s.open(entries[0], link.Number, &r)
	if same := err == nil && bytes.Equal(r.AccessToken, reveal(t.AccessToken)); same {
		return r.Generation, nil
	}
	return t.Generation, nil
}

// prune drops tokens that expired long ago, or just now if there are many, so that a credential with ever new subjects does not grow until its
// record can't be written any more.
func (c *chain) prune(d *draft, keep string, now time.Time) {
	n, most := 0, keepExpired
	if len(c.link) > keepMany {
		most = 0
	}
	for hash, link := range c.link {
		if hash != keep && n < maxPrune && now.Sub(link.Expiry) > most {
			n++
			delete(c.link, hash)
			d.delete(tokenKeyOf(c.name, hash))
		}
	}
}

// Abort records what a failed exchange means. It writes only if something changes. Errors: tokenbroker.ErrSuperseded if the
// credential is gone, was re-created or has another serial by now; tokenbroker.ErrTampered.
func (s *Store) Abort(ctx context.Context, v tokenbroker.Verdict) (tokenbroker.Grant, error) {
	g, err := s.mutate(ctx, v.Credential, func(c *chain, _ *draft) (bool, error) {
		if err := c.match(v.UID, v.Serial, tokenbroker.ErrSuperseded); err != nil {
			return false, err
		}
		g := &c.grant
		state, code, cause, strikes := g.State, g.Code, g.Cause, g.Strikes
		c.enter(v.State, v.Time)
		g.Code, g.Cause, g.Strikes = v.Code, v.Cause, v.Strikes
		clear := v.ClearIntent && g.Intent != nil && g.Intent.Attempt == v.Attempt
		if clear {
			g.Intent = nil
		}
		return clear || state != g.State || code != g.Code || cause != g.Cause || strikes != g.Strikes, nil
	})
	if errors.Is(err, tokenbroker.ErrNotFound) {
		return tokenbroker.Grant{}, fmt.Errorf("credential %q: %w: it is gone", v.Credential, tokenbroker.ErrSuperseded)
	}
	return g, err
}

// Adopt stores what a credential lives on from now on, by import or consent: the serial rises, the secret before is kept, an open
// intent is void. The state is READY with a token, or if there was one before; else PENDING. Returns the grant, and the token with its
// generation if the adoption brought one. Errors: tokenbroker.ErrNotFound if the credential is not there or was re-created,
// tokenbroker.ErrInvalidArgument with neither a secret nor a token, tokenbroker.ErrTampered.
func (s *Store) Adopt(ctx context.Context, a tokenbroker.Adoption) (tokenbroker.Grant, tokenbroker.Token, error) {
	if a.RefreshToken.IsZero() && a.Token == nil {
		return tokenbroker.Grant{}, tokenbroker.Token{}, tokenbroker.Invalid("refreshToken", errors.New("is empty"))
	}
	var token tokenbroker.Token
	g, err := s.mutate(ctx, a.Credential, func(c *chain, d *draft) (bool, error) {
		if c.index.UID != a.UID || c.grant.UID != a.UID {
			return false, tokenbroker.ErrNotFound
		}
		if c.grant.OfAnother(a.Account) { // the tokens are the former account's
			_, own, err := s.tokenKey(c.name, a.Variant.Key())
			if err != nil {
				return false, err
			}
			if a.Token == nil {
				own = ""
			}
			c.dropTokens(d, own)
		}
		c.adopt(a)
		if a.Token == nil {
			return true, nil
		}
		c.enter(tokenbroker.StateReady, a.Time)
		var err error
		token, err = s.putToken(ctx, c, d, tokenbroker.Outcome{Variant: a.Variant, Token: a.Token, Time: a.Time})
		return true, err
	})
	return g, token, err
}

// adopt takes over what came from outside.
func (c *chain) adopt(a tokenbroker.Adoption) {
	g := &c.grant
	// Some providers give a refresh token with the first consent only: one that works goes on, unless it is another account's.
	if !a.RefreshToken.IsZero() || !g.Lives() || g.State == tokenbroker.StateReauthorize || g.OfAnother(a.Account) {
		c.take(a)
	}
	g.Code, g.Cause, g.Strikes, g.Granted, g.Consented = "", "", 0, a.Granted, a.Time.UTC()
	if a.Account != "" || !a.RefreshToken.IsZero() { // whose a refresh token is that somebody brought is not known
		g.Account = a.Account
	}
	if a.SecretID != "" {
		g.SecretID = a.SecretID
	}
	state := tokenbroker.StateReady
	if c.index.Expiry.IsZero() {
		state = tokenbroker.StatePending
	}
	c.enter(state, a.Time)
}

// take puts what is adopted in the place of what was held.
func (c *chain) take(a tokenbroker.Adoption) {
	g := &c.grant
	g.RefreshEnd = time.Time{} // of another consent: nothing to compare with
	if a.RefreshToken.IsZero() {
		a.Holds, a.RefreshEnd = tokenbroker.HoldsNothing, a.Token.Expiry // the token is all there is
	}
	c.replace(a.RefreshToken, a.RefreshEnd, a.Time)
	if g.Holds != a.Holds || a.Holds == tokenbroker.HoldsPassword { // what was held is no refresh token before this one
		g.Previous, g.Rotated = tokenbroker.Secret{}, time.Time{}
	}
	g.Intent, g.Holds, g.Exercised = nil, a.Holds, a.Time.UTC()
}
