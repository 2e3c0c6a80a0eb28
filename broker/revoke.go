package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenbroker/tokenbroker"
)

const (
	revokeWait  = 2 * time.Second     // how long a revocation waits for a refresh in flight
	revokeAtOne = 8                   // credentials of one call that are revoked at a time
	revokeBase  = time.Minute         // before the second try at the provider, doubling …
	revokeCap   = 6 * time.Hour       // … to this
	revokeFor   = 30 * 24 * time.Hour // after which it is given up
)

// RevokeOutcome says how the provider's side of a revocation stands.
type RevokeOutcome string

// The outcomes of a revocation.
const (
	RevokePlanned     RevokeOutcome = "planned"       // it would be revoked
	RevokeDone        RevokeOutcome = "revoked"       // the provider has ended the grant
	RevokeParked      RevokeOutcome = "parked"        // it did not get through, and is tried again
	RevokeUnsupported RevokeOutcome = "not_supported" // the provider offers none, or there is nothing to revoke
	RevokeRefused     RevokeOutcome = "refused"       // the provider refused, or it was given up
)

// RevokeQuery says what to revoke: exactly one of Credential, Client and Provider is set.
type RevokeQuery struct {
	Credential string
	Client     string // all credentials of an OAuth client
	Provider   string // all credentials of a provider
	DryRun     bool   // say what would be revoked, and touch nothing
	// Allowed says which credentials of a client or provider are meant. Nil means all.
	Allowed func(name string) bool
	// Record is called before a credential is touched; on an error it is not. Nil records nothing.
	Record func(ctx context.Context, name string) error
}

// Revocation is what became of one credential, or would.
type Revocation struct {
	Credential  string
	Outcome     RevokeOutcome
	Code        string    // error code, where it was parked or refused
	LiveUntil   time.Time // when the last access token that was handed out ends by itself, if it was not revoked; zero = none lives
	Subscribers int       // streams that were told
}

// Revoke ends grants: their tokens are forgotten here and subscribers told at once, durably, whatever the provider answers, who is asked
// then. What does not get through is tried again. The result is in name order. ctx governs the asking alone: whoever begins to revoke many
// and leaves has still revoked them here.
func (b *Broker) Revoke(ctx context.Context, q RevokeQuery) ([]Revocation, error) {
	names, err := b.meant(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]Revocation, len(names))
	var group errgroup.Group
	group.SetLimit(revokeAtOne)
	for i, name := range names {
		group.Go(func() (err error) {
			if out[i], err = b.revokeOne(ctx, q, name); err != nil && q.Credential == "" {
				out[i].Outcome, out[i].Code, err = RevokeRefused, codeOf(err), nil // the others go on
			}
			return err
		})
	}
	return out, group.Wait()
}

// meant lists the credentials that a query means.
func (b *Broker) meant(ctx context.Context, q RevokeQuery) ([]string, error) {
	if q.Credential != "" {
		return []string{q.Credential}, nil
	}
	var names []string
	for _, name := range b.names("") {
		if q.Allowed != nil && !q.Allowed(name) {
			continue
		}
		switch c, err := b.configured(ctx, name); {
		case errors.Is(err, tokenbroker.ErrNotFound), isTampered(err): // gone, or of no use
		case err != nil:
			return nil, err
		case q.Client != "" && c.Client == q.Client, q.Provider != "" && c.Provider == q.Provider:
			names = append(names, name)
		}
	}
	return names, nil
}

// configured reads a credential's configuration without taking it into memory.
func (b *Broker) configured(ctx context.Context, name string) (tokenbroker.Credential, error) {
	b.mu.RLock()
	e := b.entries[name]
	b.mu.RUnlock()
	if e != nil && e.loaded.Load() {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.cred, nil
	}
	c, _, err := b.cfg.Store.Load(ctx, name)
	return c, err
}

func (b *Broker) revokeOne(ctx context.Context, q RevokeQuery, name string) (Revocation, error) {
	here := context.WithoutCancel(ctx)
	e, err := b.entry(here, name)
	if err != nil {
		return Revocation{Credential: name}, err
	}
	r := Revocation{Credential: name, Outcome: RevokePlanned, Subscribers: int(e.streams.Load()), LiveUntil: e.tokensEnd(time.Now())}
	if q.DryRun {
		return r, nil
	}
	if q.Record != nil {
		if err := q.Record(here, name); err != nil {
			return r, err
		}
	}
	g, err := b.strip(here, e)
	if err != nil {
		return r, err
	}
	r.LiveUntil = g.Revoking.Until
	r.Outcome, r.Code = RevokeParked, "pending"
	if p := b.pursue(ctx, e); p != nil {
		r.Outcome, r.Code = p.outcome, p.code
		if p.allEnded() {
			r.LiveUntil = time.Time{}
		}
	}
	b.scheduleExercise(e)
	return r, nil
}

// tokensEnd is when the last access token of a credential that is known of in memory ends; zero if all have.
func (e *entry) tokensEnd(now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	end := e.storedEnd
	for _, v := range e.variants {
		if v.token != nil {
			end = later(end, v.token.Expiry)
		}
	}
	if !end.After(now) {
		return time.Time{}
	}
	return end
}

// strip takes from a credential all that could be used of it, and tells its subscribers. A refresh in flight is left a moment to
// commit; one that takes longer ends up apart.
func (b *Broker) strip(ctx context.Context, e *entry) (tokenbroker.Grant, error) {
	wait, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	if take(wait, e.spend) == nil {
		defer func() { <-e.spend }()
	}
	e.mu.Lock()
	uid := e.cred.UID
	e.mu.Unlock()
	write, done := context.WithTimeout(ctx, commitTimeout)
	defer done()
	g, err := b.cfg.Store.Revoke(write, e.name, uid, time.Now())
	if err != nil {
		return g, err
	}
	b.wrote()
	now := time.Now()
	e.mu.Lock()
	e.keep(g)
	e.storedEnd, e.warned = time.Time{}, 0
	for _, v := range e.variants {
		v.token = nil
		b.view(v, now)
	}
	e.mu.Unlock()
	b.publishAll(e)
	return g, nil
}

// pursuit is one go at what a revocation has yet to end at the provider.
type pursuit struct {
	outcome RevokeOutcome
	code    string
	left    []tokenbroker.Doomed
	grant   bool // a refresh token was ended, and with it perhaps not the access tokens
	wait    time.Duration
}

// allEnded reports whether each access token was ended by itself.
func (p *pursuit) allEnded() bool { return p.outcome == RevokeDone && !p.grant }

// pursue asks the provider to end what a revocation has yet to end there, if that is due. It returns nil if there was nothing to do, or
// somebody else is at it.
func (b *Broker) pursue(ctx context.Context, e *entry) *pursuit {
	e.mu.Lock()
	due := e.grant.Revoking != nil && !time.Now().Before(e.grant.Revoking.Next)
	e.mu.Unlock()
	if !due || !e.pursued.CompareAndSwap(false, true) {
		return nil
	}
	defer e.pursued.Store(false)
	c, g, err := b.cfg.Store.Load(ctx, e.name)
	if err != nil || g.Revoking == nil {
		return nil
	}
	client, err := b.clientOf(ctx, c)
	p := &pursuit{outcome: RevokeUnsupported, left: g.Revoking.Tokens}
	if err != nil {
		p.park(codeOf(err), 0)
	} else {
		b.revokeAll(ctx, e, c, client, p)
	}
	b.note(ctx, e, c, *g.Revoking, p)
	return p
}

// revokeAll ends token after token, until one does not get through.
func (b *Broker) revokeAll(ctx context.Context, e *entry, c tokenbroker.Credential, client tokenbroker.OAuthClient, p *pursuit) {
	for len(p.left) > 0 {
		doomed := p.left[0]
		f := b.revokeToken(ctx, e, tokenbroker.RevokeRequest{Credential: c, Client: client, Token: doomed.Token, Kind: doomed.Kind})
		switch {
		case f == nil:
			if p.left = p.left[1:]; p.outcome != RevokeRefused {
				p.outcome = RevokeDone
			}
			if doomed.Kind == tokenbroker.RefreshTokenKind {
				p.grant, p.left = true, nextGrant(p.left)
			}
		case f.Code == "revocation_not_supported" || f.Code == "unsupported_token_type":
			p.left = p.left[1:]
		case f.Class == tokenbroker.ClassConfiguration || f.Class == tokenbroker.ClassDeadGrant:
			p.outcome, p.code, p.left = RevokeRefused, f.Code, p.left[1:]
		default:
			p.park(f.Code, f.RetryAfter)
			return
		}
	}
}

// nextGrant leaves out the access tokens up to the next refresh token, which is that of an earlier revocation: one that ended says nothing
// of another.
func nextGrant(left []tokenbroker.Doomed) []tokenbroker.Doomed {
	i := slices.IndexFunc(left, func(d tokenbroker.Doomed) bool { return d.Kind == tokenbroker.RefreshTokenKind })
	if i < 0 {
		return nil
	}
	return left[i:]
}

func (p *pursuit) park(code string, wait time.Duration) {
	p.outcome, p.code, p.wait = RevokeParked, code, wait
}

// revokeToken sends one revocation, again under the next client secret only if the one before was refused as such.
func (b *Broker) revokeToken(ctx context.Context, e *entry, r tokenbroker.RevokeRequest) *tokenbroker.Failure {
	var failure *tokenbroker.Failure
	for _, secret := range e.secretsToTry(r.Client) {
		r.Secret = secret
		try, cancel := context.WithTimeout(ctx, b.cfg.ExchangeTimeout)
		err := b.cfg.Upstream.Revoke(try, r)
		cancel()
		if err == nil {
			return nil
		}
		if failure = asFailure(err); !refusedSecret(failure) {
			break
		}
	}
	return failure
}

// endLate ends at the provider a refresh token that came of an exchange after its grant was revoked: what the revocation ended there was
// the one before, which is used up. It is tried once; the store keeps the result apart in any case.
func (b *Broker) endLate(ctx context.Context, t try, o tokenbroker.Outcome) {
	e := t.v.e
	e.mu.Lock()
	revoked := e.grant.Code == codeRevoked && e.grant.Serial > t.serial
	e.mu.Unlock()
	if !revoked || o.RefreshToken.IsZero() {
		return
	}
	ev := Event{Kind: EventRevoked, Credential: e.name, Provider: t.cred.Provider, Client: t.cred.Client, Grant: t.cred.Grant, Revocation: RevokeDone}
	f := b.revokeToken(ctx, e, tokenbroker.RevokeRequest{Credential: t.cred, Client: t.client, Token: o.RefreshToken, Kind: tokenbroker.RefreshTokenKind})
	if f != nil {
		ev.Code, ev.Revocation = f.Code, RevokeRefused
	}
	_ = b.audit(ctx, ev) // it has happened
}

// note makes durable how far a revocation came, and records it. It does not end with the caller.
func (b *Broker) note(ctx context.Context, e *entry, c tokenbroker.Credential, was tokenbroker.Revoking, p *pursuit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	now := time.Now()
	var next *tokenbroker.Revoking
	switch {
	case p.outcome == RevokeParked && now.Sub(was.Begun) >= revokeFor:
		p.outcome = RevokeRefused
	case p.outcome == RevokeParked:
		was.Tokens, was.Code, was.Tries = p.left, p.code, was.Tries+1
		was.Next = now.Add(max(min(revokeCap, revokeBase<<min(was.Tries-1, 10)), min(p.wait, waitCap)))
		next = &was
	}
	g, err := b.cfg.Store.Revoked(ctx, e.name, c.UID, next)
	e.mu.Lock()
	if err == nil {
		e.keep(g)
	} else if e.grant.Revoking != nil { // the store has it still
		later := *e.grant.Revoking
		later.Next = now.Add(revokeBase)
		e.grant.Revoking = &later
	}
	e.mu.Unlock()
	_ = b.audit(ctx, Event{Kind: EventRevoked, Credential: e.name, Provider: c.Provider, Client: c.Client, Grant: c.Grant,
		Code: p.code, Revocation: p.outcome}) // it has happened
}
