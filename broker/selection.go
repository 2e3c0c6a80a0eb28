package broker

import (
	"context"
	"slices"

	"github.com/tokenbroker/tokenbroker"
)

// Selection names a variant as a caller does: what is empty is the credential's own.
type Selection struct {
	Credential string
	Scopes     []string
	Subject    string
	Audience   string
}

// Check says what is malformed in a selection, before any look-up.
func (s Selection) Check() error {
	if err := tokenbroker.ValidateName(s.Credential); err != nil {
		return tokenbroker.Invalid("credential", err)
	}
	if err := tokenbroker.ValidateScopes(s.Scopes); err != nil {
		return tokenbroker.Invalid("scopes", err)
	}
	if err := tokenbroker.ValidateSubject(s.Subject); err != nil {
		return tokenbroker.Invalid("subject", err)
	}
	return tokenbroker.Invalid("audience", tokenbroker.ValidateAudience(s.Audience))
}

func (s Selection) isDefault() bool { return len(s.Scopes) == 0 && s.Subject == "" && s.Audience == "" }

// Resolve fills a selection from its credential, without regard to what its grant allows: what a policy has to judge.
func (b *Broker) Resolve(ctx context.Context, s Selection) (tokenbroker.Variant, error) {
	e, err := b.entry(ctx, s.Credential)
	if err != nil {
		return tokenbroker.Variant{}, err
	}
	if v := e.own.Load(); v != nil && s.isDefault() {
		return v.v, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cred.Variant(s.Scopes, s.Subject, s.Audience), nil
}

// resolve is Resolve with the limits of the grant. e.mu is held.
func (e *entry) resolve(s Selection) (tokenbroker.Variant, error) {
	v := e.cred.Variant(s.Scopes, s.Subject, s.Audience)
	own := e.cred.Variant(nil, "", "")
	for _, scope := range v.Scopes {
		if _, ok := slices.BinarySearch(own.Scopes, scope); !ok {
			return v, scopeProblem("the credential does not have scope " + scope + "; an operator can add it")
		}
	}
	if len(v.Scopes) < len(own.Scopes) && !e.traits.Downscopes {
		return v, scopeProblem("the provider is not known to narrow scopes; leave them empty, or use a credential that has only these")
	}
	if v.Subject != own.Subject {
		return v, scopeProblem("the grant " + string(e.cred.Grant) + " can't choose a subject")
	}
	return v, nil
}

func scopeProblem(detail string) error {
	return &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Detail: detail}
}

// variant finds the variant that a selection names, and brings it to life.
func (b *Broker) variant(ctx context.Context, s Selection) (*variant, error) {
	e, err := b.entry(ctx, s.Credential)
	if err != nil {
		return nil, err
	}
	if v := e.own.Load(); v != nil && s.isDefault() {
		return v, nil
	}
	e.mu.Lock()
	want, err := e.resolve(s)
	uid, key := e.cred.UID, want.Key()
	v := e.variants[key]
	e.mu.Unlock()
	if err != nil || v != nil {
		return v, err
	}
	return b.vivify(ctx, e, want, uid)
}
