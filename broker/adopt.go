package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Adopt gives a credential what it lives on from now on: an import or a consent. It ends REAUTHORIZE and UNCERTAIN, and what is adopted is
// durable when it returns. a.Credential and a.Time are filled in; a.UID may be empty, or says of which credential of that name it is.
func (b *Broker) Adopt(ctx context.Context, name string, a tokenbroker.Adoption) (Status, error) {
	e, err := b.entry(ctx, name)
	if err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	cred := e.cred
	e.mu.Unlock()
	if a.UID != "" && a.UID != cred.UID {
		return Status{}, tokenbroker.ErrNotFound
	}
	if err := checkAdoption(cred, a); err != nil {
		return Status{}, err
	}
	a.Credential, a.UID, a.Time, a.Variant = name, cred.UID, time.Now(), cred.Variant(nil, "", "")
	g, tok, err := b.cfg.Store.Adopt(ctx, a)
	if err != nil {
		return Status{}, err
	}
	b.wrote()
	b.named(ctx, e, g, a, tok)
	b.adopted(e, g, a, tok)
	b.scheduleExercise(e)
	b.publishAll(e)
	return b.tried(ctx, name)
}

// named records a token that came with an adoption, before anybody can be given it.
func (b *Broker) named(ctx context.Context, e *entry, g tokenbroker.Grant, a tokenbroker.Adoption, tok tokenbroker.Token) {
	if a.Token == nil {
		return
	}
	e.mu.Lock()
	ev := Event{Kind: EventAdopted, Credential: e.name, Provider: e.cred.Provider, Client: e.cred.Client, Grant: e.cred.Grant,
		Variant: a.Variant, Own: true, Serial: g.Serial, Order: tokenbroker.Order{Generation: tok.Generation},
		TokenMAC: b.mac(tok.AccessToken), Expiry: tok.Expiry, Granted: tok.Scopes}
	e.mu.Unlock()
	_ = b.audit(ctx, ev) // it is durable by now; nobody is given it without a record of that
}

func checkAdoption(c tokenbroker.Credential, a tokenbroker.Adoption) error {
	switch {
	case c.Source != "":
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "it gets its subject token from another credential"}
	case a.Holds != c.Grant.Keeps() && (a.Holds != tokenbroker.HoldsRefreshToken || !c.Grant.Refreshes()):
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "the grant " + string(c.Grant) + " lives on nothing of the kind"}
	case a.RefreshToken.IsZero() && (a.Token == nil || !c.Grant.Consents()) || len(a.RefreshToken.Reveal()) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Invalid(fieldOf(c.Grant.Keeps()), errors.New("is required, and at most 16 KiB long"))
	case !a.RefreshToken.IsZero() && a.Holds != tokenbroker.HoldsRefreshToken && !a.RefreshEnd.IsZero() && !a.RefreshEnd.After(time.Now()):
		return tokenbroker.Invalid("secretExpireTime", errors.New("has passed"))
	}
	return nil
}

// fieldOf is the request field that carries what a grant lives on.
func fieldOf(h tokenbroker.Holding) string {
	switch h {
	case tokenbroker.HoldsToken:
		return "staticToken"
	case tokenbroker.HoldsPassword:
		return "password"
	case tokenbroker.HoldsSubjectToken:
		return "subjectToken"
	case tokenbroker.HoldsRefreshToken, tokenbroker.HoldsNothing:
	}
	return "refreshToken"
}

// adopted puts an adoption in place. The tokens there are came of the former grant, which may have been revoked; those of another account
// must not be served any more.
func (b *Broker) adopted(e *entry, g tokenbroker.Grant, a tokenbroker.Adoption, tok tokenbroker.Token) {
	e.mu.Lock()
	defer e.mu.Unlock()
	another := e.grant.OfAnother(a.Account)
	e.keep(g)
	e.retryNow()
	now := time.Now()
	if another {
		e.storedEnd = time.Time{}
	}
	for _, v := range e.variants {
		v.refreshAt, v.attempted = now, time.Time{} // a try of what is new need not wait for the floor
		if another {
			v.token = nil
			b.view(v, now)
		}
	}
	if v := e.own.Load(); a.Token != nil && v != nil && v.v.Key() == a.Variant.Key() && tok.Generation > v.generation {
		v.handed.forget(v.generation)
		v.token, v.generation, v.fetched = hold(tok, now), tok.Generation, now
		v.refreshAt = refreshAt(tok, e.traits, draw())
		e.cheer(v, false)
		b.view(v, now)
	}
}
