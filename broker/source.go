package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenbroker/tokenbroker"
)

// maxSources is how many credentials in a row may get their subject token each of the next.
const maxSources = 3

// sourceError is why a credential could not get its subject token.
type sourceError struct{ problem error }

func (e *sourceError) Error() string { return e.problem.Error() }
func (e *sourceError) Unwrap() error { return e.problem }

// subjectToken gets the subject token of a credential that takes it from another one, by the door that workers use; nil if it does not.
func (b *Broker) subjectToken(ctx context.Context, e *entry) (*tokenbroker.Token, error) {
	e.mu.Lock()
	source := e.cred.Source
	e.mu.Unlock()
	if source == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ExchangeTimeout)
	defer cancel()
	s, err := b.Token(ctx, Request{Selection: Selection{Credential: source}})
	if err != nil {
		return nil, &sourceError{ofSource(err)}
	}
	return s.Token, nil
}

// ofSource is an error of the source as the callers of the credential are told. It does not name the source, which they need not be
// allowed to know of.
func ofSource(err error) error {
	const whose = "of the credential that its subject token comes from"
	if errors.Is(err, tokenbroker.ErrNotFound) {
		return &tokenbroker.Problem{Err: tokenbroker.ErrMisconfigured, Detail: "there is no longer a credential that its subject token could come from"}
	}
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		told := *p
		told.Field, told.Detail = "", whose+": "+p.Detail
		return &told
	}
	for _, one := range []error{tokenbroker.ErrDisabled, tokenbroker.ErrQuarantined, tokenbroker.ErrDraining} {
		if errors.Is(err, one) {
			return &tokenbroker.Problem{Err: one, Detail: whose}
		}
	}
	return &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, Detail: whose, RetryAfter: retryBase}
}

// checkSource judges the source of a credential: there, and not fed by the credential itself, however far along.
func (b *Broker) checkSource(ctx context.Context, c tokenbroker.Credential) error {
	const field = "spec.source"
	if c.Source == "" {
		return nil
	}
	if c.Grant != tokenbroker.GrantTokenExchange {
		return tokenbroker.Invalid(field, errors.New("only a token_exchange grant takes its subject token from another credential"))
	}
	next := c.Source
	for range maxSources {
		if next == c.Name {
			return tokenbroker.Invalid(field, errors.New("the credential would get its subject token from itself"))
		}
		e, err := b.entry(ctx, next)
		if errors.Is(err, tokenbroker.ErrNotFound) {
			return tokenbroker.Invalid(field, fmt.Errorf("credential %q does not exist; create it first", next))
		}
		if err != nil {
			return err
		}
		e.mu.Lock()
		next = e.cred.Source
		e.mu.Unlock()
		if next == "" {
			return nil
		}
	}
	return tokenbroker.Invalid(field, fmt.Errorf("more than %d credentials in a row would get their subject token each of the next", maxSources))
}

// feed notes whom a credential gets its subject token of, in place of whom it did. b.mu is not held.
func (b *Broker) feed(name, from, to string) {
	if from == to {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if from != "" {
		delete(b.sources[from], name)
		if len(b.sources[from]) == 0 {
			delete(b.sources, from)
		}
	}
	if to != "" {
		if b.sources[to] == nil {
			b.sources[to] = map[string]struct{}{}
		}
		b.sources[to][name] = struct{}{}
	}
}

// unfeeding is nil if no credential gets its subject token from this one. It names none: whoever may delete one need not be allowed to
// know of the others.
func (b *Broker) unfeeding(name string) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.sources[name]) > 0 {
		return &tokenbroker.Problem{Err: tokenbroker.ErrInUse, Detail: "another credential gets its subject token from it"}
	}
	return nil
}
