package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// deleteWait is how long a delete waits for a refresh in flight. Subscribers are told within a second all in all.
const deleteWait = 500 * time.Millisecond

// Status is a credential as an operator sees it: what was configured and how it stands, without a secret.
type Status struct {
	Credential  tokenbroker.Credential
	Grant       tokenbroker.Grant // without its tokens
	GrantEnd    time.Time         // when the refresh token dies, as far as is known; zero = not known, or never
	Snapshot    *Snapshot         // of the credential's own variant
	Advice      string            // what to do about Snapshot.Code; "" if there is nothing to say
	Missing     []string          // scopes of the credential that the provider did not grant
	Rotated     bool              // the provider has been seen to give a new refresh token with a refresh
	Skew        time.Duration     // how far our clock is ahead of the provider's, if that is 5 s or more
	Warnings    []string          // of a new credential: what is allowed but should be known
	RefreshAt   time.Time         // when the next exchange is due; zero if the credential is not in use
	LastUse     time.Time
	Subscribers int
	Variants    int
}

// NewCredential is a credential to create and what comes with it.
type NewCredential struct {
	Credential   tokenbroker.Credential
	RefreshToken tokenbroker.Secret  // what the grant lives on, see Holds
	Holds        tokenbroker.Holding // what RefreshToken is
	RefreshEnd   time.Time           // when it dies, if known
	ValidateOnly bool
}

// CreateCredential checks a credential, stores it and tries it in the background.
func (b *Broker) CreateCredential(ctx context.Context, n NewCredential) (Status, error) {
	c, warnings, err := b.insert(ctx, n)
	if err != nil {
		return Status{}, err
	}
	if n.ValidateOnly {
		return Status{Credential: c, Snapshot: &Snapshot{State: tokenbroker.StatePending, Recovery: tokenbroker.RecoveryRetry}, Warnings: warnings}, nil
	}
	b.wrote()
	b.changes.Add(1)
	b.placeAll(c.Name, nil)
	st, err := b.tried(ctx, c.Name)
	st.Warnings = warnings
	return st, err
}

// insert checks a credential and stores it, unless it is to be checked only. Its OAuth client is not deleted meanwhile, nor its source.
func (b *Broker) insert(ctx context.Context, n NewCredential) (c tokenbroker.Credential, warnings []string, err error) {
	b.inUse.RLock()
	defer b.inUse.RUnlock()
	if n.Credential.Source != "" {
		b.sourcing.Lock()
		defer b.sourcing.Unlock()
	}
	warnings, err = b.checkNew(ctx, n)
	if err != nil || n.ValidateOnly {
		return n.Credential, warnings, err
	}
	now := time.Now()
	g := tokenbroker.Grant{State: tokenbroker.StatePending, Since: now, Holds: tokenbroker.HoldsNothing}
	if !n.RefreshToken.IsZero() {
		g.Serial, g.RefreshToken, g.Holds, g.RefreshEnd, g.Consented, g.Exercised, g.Prolonged = 1, n.RefreshToken, n.Holds, n.RefreshEnd, now, now, now
	}
	if c, err = b.cfg.Store.CreateCredential(ctx, n.Credential, g); err != nil {
		return c, warnings, err
	}
	b.feed(c.Name, "", c.Source)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[c.Name] = b.newEntry(c.Name)
	return c, warnings, nil
}

// tried brings a credential's own variant to life, as if somebody had just asked for it, and returns its status.
func (b *Broker) tried(ctx context.Context, name string) (Status, error) {
	v, err := b.variant(ctx, Selection{Credential: name})
	if err != nil {
		return Status{}, err
	}
	v.read.Store(time.Now().UnixNano())
	b.reschedule(v)
	b.scheduleExercise(v.e)
	return b.Credential(ctx, name)
}

// Credential returns one credential's status.
func (b *Broker) Credential(ctx context.Context, name string) (Status, error) {
	v, err := b.variant(ctx, Selection{Credential: name})
	if err != nil {
		return Status{}, err
	}
	e := v.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return Status{}, tokenbroker.ErrNotFound
	}
	b.review(v, time.Now())
	st := Status{Credential: e.cred, Grant: e.grant, GrantEnd: grantEnd(e.grant, e.traits), Snapshot: v.snap.Load(),
		Missing: e.missing(e.cred.Scopes), Rotated: e.rotated, Skew: b.skew(e.cred.Provider),
		Subscribers: int(e.streams.Load()), Variants: len(e.variants)}
	if s := st.Snapshot; s.State != tokenbroker.StateReady {
		st.Advice = e.advise(s.Code, s.Cause, e.cred.Grant)
	}
	if now := time.Now(); v.alive(now) {
		st.RefreshAt = v.refreshDue(now)
	}
	if used := e.lastUse.Load(); used != 0 {
		st.LastUse = time.Unix(0, used)
	}
	return st, nil
}

// UpdateCredential changes a credential's configuration by change, if its version is still the one given (0 = any). What change
// must not touch (name, provider, grant) is kept.
func (b *Broker) UpdateCredential(ctx context.Context, name string, version uint64, change func(*tokenbroker.Credential) error) (Status, error) {
	b.inUse.RLock() // it may take another OAuth client
	defer b.inUse.RUnlock()
	e, err := b.entry(ctx, name)
	if err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	grant := e.cred.Grant
	e.mu.Unlock()
	if grant == tokenbroker.GrantTokenExchange { // it may take another source
		b.sourcing.Lock()
		defer b.sourcing.Unlock()
	}
	err = b.edit(ctx, name, version, func(c *tokenbroker.Credential) error {
		old := *c
		if err := change(c); err != nil {
			return err
		}
		c.Name, c.Provider, c.Grant, c.Disabled = old.Name, old.Provider, old.Grant, old.Disabled
		if err := errors.Join(checkSpec(*c), checkFeeding(old, *c)); err != nil {
			return err
		}
		_, err := b.checkWithClient(ctx, *c)
		return err
	})
	if err != nil {
		return Status{}, err
	}
	return b.tried(ctx, name)
}

// SetDisabled switches a credential off or on.
func (b *Broker) SetDisabled(ctx context.Context, name string, disabled bool) (Status, error) {
	err := b.edit(ctx, name, 0, func(c *tokenbroker.Credential) error {
		c.Disabled = disabled
		return nil
	})
	if err != nil {
		return Status{}, err
	}
	return b.Credential(ctx, name)
}

// edit reads a credential's configuration, changes it and stores it, again if somebody else was faster and no version is asked for.
func (b *Broker) edit(ctx context.Context, name string, version uint64, change func(*tokenbroker.Credential) error) error {
	e, err := b.entry(ctx, name)
	if err != nil {
		return err
	}
	for range 10 {
		c, err := b.editOnce(ctx, name, version, change)
		if err == nil {
			b.wrote()
			b.reinstall(e, c)
			return nil
		}
		if version != 0 || !errors.Is(err, tokenbroker.ErrETagMismatch) {
			return err
		}
	}
	return tokenbroker.ErrETagMismatch
}

func (b *Broker) editOnce(ctx context.Context, name string, version uint64, change func(*tokenbroker.Credential) error) (tokenbroker.Credential, error) {
	c, _, err := b.cfg.Store.Load(ctx, name)
	if err != nil {
		return c, b.unreadable(name, err)
	}
	if version != 0 && c.Version != version {
		return c, tokenbroker.ErrETagMismatch
	}
	read := c.Version
	if err := change(&c); err != nil {
		return c, err
	}
	return b.cfg.Store.UpdateCredential(ctx, c, read)
}

// reinstall puts a changed configuration in place. If tokens depend on what changed, its generation rose: the variants of
// before go, and their subscribers are placed anew. A refused configuration is tried again at once.
func (b *Broker) reinstall(e *entry, c tokenbroker.Credential) {
	e.mu.Lock()
	if c.Version < e.cred.Version { // a later edit was faster here
		e.mu.Unlock()
		return
	}
	from := e.cred.Source
	var former []*variant
	if c.Extra != e.cred.Extra { // who subscribes is judged anew
		former = slices.Collect(maps.Values(e.variants))
	}
	if c.Generation != e.cred.Generation {
		former = b.dropVariants(e)
		e.storedEnd = time.Time{} // what is stored is not served any more
	}
	e.install(c, b.traits(c.Provider))
	e.retryNow()
	e.mu.Unlock()
	b.feed(e.name, from, c.Source)
	b.changes.Add(1)
	b.placeAll(e.name, former)
	b.publishAll(e)
	b.scheduleExercise(e)
}

// dropVariants takes all variants out of a credential and returns them. e.mu is held.
func (b *Broker) dropVariants(e *entry) []*variant {
	var former []*variant
	for key, v := range e.variants {
		b.forget(v)
		former = append(former, v)
		delete(e.variants, key)
	}
	e.own.Store(nil)
	return former
}

// retryNow forgets what a new configuration may have mended. e.mu is held.
func (e *entry) retryNow() {
	e.probeAt, e.probes, e.recoverNext = time.Time{}, 0, time.Time{}
	for _, v := range e.variants {
		if v.next, v.refusedTill = (time.Time{}), (time.Time{}); v.code != "" || e.grant.State == tokenbroker.StateMisconfigured {
			v.refreshAt = time.Now() // whether it is mended is not left to the regular refresh to find out
		}
	}
}

// DeleteCredential removes a credential and all its state, if its version is still the one given (0 = any). Subscribers are told
// at once. A refresh in flight is left a moment to commit; one that takes longer ends up apart, sealed.
func (b *Broker) DeleteCredential(ctx context.Context, name string, version uint64) error {
	e, err := b.entry(ctx, name)
	if err != nil && !errors.Is(err, tokenbroker.ErrQuarantined) {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, deleteWait)
	defer cancel()
	if take(wait, e.spend) == nil {
		defer func() { <-e.spend }()
	}
	if e.revoking() {
		return &tokenbroker.Problem{Err: tokenbroker.ErrInUse,
			Detail: "its revocation has not got through to the provider yet, and what is to be ended there is kept with it; revoke it once more, or wait"}
	}
	if err := b.removeUnused(ctx, name, version); err != nil {
		return err
	}
	b.wrote()
	e.mu.Lock()
	source := e.cred.Source
	e.mu.Unlock()
	b.feed(name, source, "")
	b.mu.Lock()
	if b.entries[name] == e { // not one that was created meanwhile
		delete(b.entries, name)
	}
	b.mu.Unlock()
	e.mu.Lock()
	e.gone = true
	e.changed()
	b.schedule.set(&e.item, time.Time{})
	former := b.dropVariants(e)
	e.mu.Unlock()
	b.changes.Add(1)
	b.placeAll(name, former)
	b.observe(Event{Kind: EventForgotten, Credential: name})
	return nil
}

// removeUnused removes a credential from the store that no other one has as its source.
func (b *Broker) removeUnused(ctx context.Context, name string, version uint64) error {
	b.sourcing.RLock()
	defer b.sourcing.RUnlock()
	if err := b.unfeeding(name); err != nil {
		return err
	}
	return b.cfg.Store.DeleteCredential(ctx, name, version)
}

// revoking reports whether the provider has yet to end what was revoked here.
func (e *entry) revoking() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.grant.Revoking != nil
}

// Refresh fetches a token now, whatever the present one's life, and waits for it. It is held to the floor interval.
func (b *Broker) Refresh(ctx context.Context, name string) (Status, error) {
	v, err := b.variant(ctx, Selection{Credential: name})
	if err != nil {
		return Status{}, err
	}
	now := time.Now()
	s := v.snap.Load()
	if wait := v.refreshWait(now); wait > 0 && s.State != tokenbroker.StateDisabled {
		if err := v.hopeless(s, wait); err != nil {
			return Status{}, err
		}
		return Status{}, &tokenbroker.Problem{Err: tokenbroker.ErrBackoff, RetryAfter: wait,
			Detail: "operators and workers may cause an exchange once per floor interval of the provider, and the last one was a moment ago; see the credential's state for how it ended"}
	}
	v.read.Store(now.UnixNano())
	if _, err := b.join(ctx, v, want{force: true, after: s.Order.Generation}); err != nil && !errors.Is(err, errGone) {
		return Status{}, err
	}
	return b.Credential(ctx, name)
}

// hopeless is the answer of an operator's refresh that comes too soon after one that was refused: what is to be mended matters more
// than the wait. Nil if nothing is.
func (v *variant) hopeless(s *Snapshot, wait time.Duration) error {
	sentinel := tokenbroker.ErrMisconfigured
	switch s.State {
	case tokenbroker.StateMisconfigured:
	case tokenbroker.StateReauthorize:
		sentinel = tokenbroker.ErrReauthorize
	case tokenbroker.StatePending, tokenbroker.StateReady, tokenbroker.StateDegraded, tokenbroker.StateDisabled, tokenbroker.StateUncertain, tokenbroker.StateQuarantined:
		return nil
	}
	p, _ := errors.AsType[*tokenbroker.Problem](v.e.why(sentinel, s.Code, s.Cause, wait))
	p.Detail += "; once mended, it can be tried again in " + (wait + time.Second).Truncate(time.Second).String()
	return p
}

// refreshWait is how long an operator has to wait before the next exchange, whether the last one brought a token or not.
func (v *variant) refreshWait(now time.Time) time.Duration {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if v.attempted.IsZero() {
		return 0
	}
	var life time.Duration
	if v.token != nil {
		life = v.token.Life()
	}
	return v.attempted.Add(floor(v.e.traits, life, 0)).Sub(now)
}
