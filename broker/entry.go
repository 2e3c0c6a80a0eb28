package broker

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// entry is one credential that exists. Until it is first used only its name is known.
type entry struct {
	name    string
	id      string // unique in this process
	loaded  atomic.Bool
	own     atomic.Pointer[variant] // the variant of the credential's own scopes, subject and audience
	lastUse atomic.Int64            // unix nanoseconds
	streams atomic.Int32            // slots that subscribe

	edition  atomic.Uint64  // see Broker.Edition; 0 = not loaded yet
	editions *atomic.Uint64 // the last one that the broker gave

	pursued atomic.Bool  // somebody is asking the provider to end what was revoked
	kind    atomic.Value // the credential's tokenbroker.GrantType, which never changes
	advise  func(code string, cause tokenbroker.Cause, grant tokenbroker.GrantType) string

	spend chan struct{} // the spend lock: holds a value while a refresh token is being spent

	mu       sync.Mutex // guards what is below; never held across I/O, and never taken under Broker.mu
	gone     bool
	cred     tokenbroker.Credential
	grant    tokenbroker.Grant // without its secrets
	traits   tokenbroker.Traits
	variants map[string]*variant // variant key → variant
	probeAt  time.Time           // MISCONFIGURED: when to try again unasked
	probes   int

	stalls      int           // results that can't be stored at present
	stalled     chan struct{} // closed while there are any
	storedEnd   time.Time     // expiry of the newest token that was stored before this process; its variant may not be in memory
	recoverNext time.Time     // an intent stands: no replay before then, of any variant
	unspent     bool          // an intent may stand in the store although its refresh token is not spent for sure

	rotated bool // an exchange of this process brought another refresh token

	warned int  // warnings of the refresh token's end that were due when it was last looked at
	item   item // on the schedule: to exercise the refresh token, or to warn of its end
}

func (b *Broker) newEntry(name string) *entry {
	e := &entry{name: name, advise: b.advise, editions: &b.editions, id: strconv.FormatUint(b.ids.Add(1), 36), spend: make(chan struct{}, 1),
		stalled: make(chan struct{}), variants: map[string]*variant{}}
	e.item.entry = e
	return e
}

// entry finds a credential and makes sure that it is loaded.
func (b *Broker) entry(ctx context.Context, name string) (*entry, error) {
	if len(name) > tokenbroker.MaxNameBytes {
		return nil, tokenbroker.ErrNotFound
	}
	b.mu.RLock()
	e := b.entries[name]
	b.mu.RUnlock()
	if e == nil {
		return nil, tokenbroker.ErrNotFound
	}
	if e.loaded.Load() {
		return e, nil
	}
	return e, b.load(ctx, e)
}

// load reads a credential from the store, once for all who ask meanwhile.
func (b *Broker) load(ctx context.Context, e *entry) error {
	ch := b.loads.DoChan(e.id, func() (any, error) {
		if e.loaded.Load() {
			return nil, nil
		}
		c, g, err := b.cfg.Store.Load(b.work, e.name)
		if err != nil {
			return nil, b.unreadable(e.name, err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.install(c, b.traits(c.Provider))
		e.keep(g)
		e.loaded.Store(true)
		return nil, nil
	})
	select {
	case r := <-ch:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unreadable turns an error of the store into what a caller may know of it.
func (b *Broker) unreadable(name string, err error) error {
	if !isTampered(err) {
		return err
	}
	b.observe(Event{Kind: EventTampered, Credential: name, State: tokenbroker.StateQuarantined, Code: codeOf(err)})
	return &tokenbroker.Problem{Err: tokenbroker.ErrQuarantined, Detail: "a record of it does not open; restore it or create it anew"}
}

// traits gives a provider's traits. A provider that is not configured any more has the strictest.
func (b *Broker) traits(provider string) tokenbroker.Traits {
	if t, ok := b.cfg.Traits(provider); ok {
		return t
	}
	return tokenbroker.Traits{Rotates: true}
}

// install takes a configuration. e.mu is held.
func (e *entry) install(c tokenbroker.Credential, t tokenbroker.Traits) {
	e.cred, e.traits = c, t
	e.changed()
	e.kind.Store(c.Grant)
	if used := e.grant.LastUse; !used.IsZero() && e.lastUse.Load() == 0 {
		e.lastUse.Store(used.UnixNano())
	}
}

// keep takes a grant as the store has it, less its secrets, which stay in the store, unless a newer one is there already: the
// answers of two writes may come in the other order. e.mu is held.
func (e *entry) keep(g tokenbroker.Grant) {
	if g.Serial < e.grant.Serial {
		return
	}
	if g.Serial > e.grant.Serial {
		e.rotated = e.rotated || !g.Rotated.IsZero() && g.Rotated.After(g.Consented)
		e.unspent, e.recoverNext = false, time.Time{}
	}
	g.RefreshToken, g.Previous = tokenbroker.Secret{}, tokenbroker.Secret{}
	if g.Revoking != nil {
		r := *g.Revoking
		r.Tokens, g.Revoking = nil, &r
	}
	if g.Intent != nil && g.State != tokenbroker.StateReauthorize && g.State != tokenbroker.StateQuarantined {
		g.State, g.Code, g.Cause = tokenbroker.StateUncertain, "answer_lost", ""
	}
	e.grant = g
	e.changed()
	if !g.LastUse.IsZero() {
		e.lastUse.CompareAndSwap(0, g.LastUse.UnixNano())
	}
}

// rotating reports whether an exchange of this credential may use up its refresh token.
func (e *entry) rotating() bool {
	return e.cred.Grant.Refreshes() && e.traits.Rotates && e.grant.Holds == tokenbroker.HoldsRefreshToken
}

// Why a grant has nothing to live on.
const (
	codeConsentNeeded  = "consent_needed"
	codeNoRefreshToken = "no_refresh_token"
	codeSecretExpired  = "secret_expired"
	codeTokenExpired   = "static_token_expired"
	codeRevoked        = "revoked"
)

// lacking says why no exchange can be made: the grant has nothing to live on, or that has ended. "" = it has. e.mu is held.
func (e *entry) lacking(now time.Time) string {
	g := e.grant
	switch {
	case e.cred.Grant.Keeps() == tokenbroker.HoldsNothing || e.cred.Source != "":
		return ""
	case g.State == tokenbroker.StateReauthorize && !g.Lives():
		return g.Code
	case g.Holds == tokenbroker.HoldsToken && over(g, now):
		return codeTokenExpired
	case g.Lives() && over(g, now):
		return codeSecretExpired
	case g.Lives():
		return ""
	case g.Serial == 0:
		return codeConsentNeeded
	}
	return codeNoRefreshToken
}
