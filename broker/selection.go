package broker

import (
	"context"
	"errors"
	"slices"
	"strings"

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

// Offers says what the grant of a selection's credential has against it: an error that wraps tokenbroker.ErrScopeNotAllowed or
// tokenbroker.ErrScopeNotGranted is not about the caller. It asks nobody, and fails with tokenbroker.ErrNotFound too.
func (b *Broker) Offers(ctx context.Context, s Selection) error {
	e, err := b.entry(ctx, s.Credential)
	if err != nil {
		return err
	}
	return e.choose(s).refused
}

// Loaded reports whether a credential is in memory, so that a look at it takes no longer than one at a name that is not there.
func (b *Broker) Loaded(credential string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e := b.entries[credential]
	return e != nil && e.loaded.Load()
}

// Own is what a credential itself says of the tokens that it gives.
type Own struct {
	tokenbroker.Variant                         // of its own scopes, subject and audience
	Extra               tokenbroker.ExtraScopes // what to do with scopes that nobody asked for
}

// Own returns what a credential itself says of the tokens that it gives.
func (b *Broker) Own(ctx context.Context, credential string) (Own, error) {
	e, err := b.entry(ctx, credential)
	if err != nil {
		return Own{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return Own{e.cred.Variant(nil, "", ""), e.cred.Extra}, nil
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
	if missing := e.missing(s.Scopes); len(missing) > 0 {
		return v, &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotGranted, Field: "scopes",
			Metadata: map[string]string{"scopes": strings.Join(missing, " "), "grantType": string(e.cred.Grant)},
			Detail:   strings.Join(missing, ", ") + "; " + wayToGrant(e.cred.Grant) + ", or ask the broker for a token without it"}
	}
	if len(v.Scopes) < len(own.Scopes) && !e.traits.Downscopes {
		return v, scopeProblem("the provider is not known to narrow scopes; leave them empty, or use a credential that has only these")
	}
	if v.Subject != own.Subject && e.cred.Grant != tokenbroker.GrantJWTBearer {
		return v, scopeProblem("the grant " + string(e.cred.Grant) + " can't choose a subject")
	}
	return v, nil
}

// wayToGrant is how an operator gets a scope granted.
func wayToGrant(g tokenbroker.GrantType) string {
	if g.Consents() {
		return "connect the credential again and ask for it"
	}
	return "have it granted at the provider and import anew what the credential lives on"
}

// missing lists those of some scopes that the provider did not grant. Where it did not say what it granted, it granted what was asked
// (RFC 6749 §5.1). e.mu is held.
func (e *entry) missing(scopes []string) []string {
	if e.grant.Granted == nil || !e.cred.Grant.Refreshes() {
		return nil
	}
	return without(scopes, e.grant.Granted)
}

func scopeProblem(detail string) error {
	return &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Detail: detail}
}

// choice is what a selection names under one configuration of its credential.
type choice struct {
	v          tokenbroker.Variant
	refused    error // what the grant has against it
	uid        string
	generation tokenbroker.Generation // of the configuration
}

func (e *entry) choose(s Selection) choice {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.resolve(s)
	return choice{v: v, refused: err, uid: e.cred.UID, generation: e.cred.Generation}
}

// of reports whether the credential is still configured as it was at the choice. e.mu is held.
func (e *entry) of(c choice) bool {
	return !e.gone && e.cred.UID == c.uid && e.cred.Generation == c.generation
}

// variant finds the variant that a selection names, and brings it to life.
func (b *Broker) variant(ctx context.Context, s Selection) (*variant, error) {
	for range joinTries {
		e, err := b.entry(ctx, s.Credential)
		if err != nil {
			return nil, err
		}
		if v := e.own.Load(); v != nil && s.isDefault() {
			return v, nil
		}
		if v, err := b.chosen(ctx, e, e.choose(s)); !errors.Is(err, errGone) {
			return v, err
		}
	}
	return nil, problem(tokenbroker.ErrBackoff, "reconfigured", retryBase)
}

// chosen brings the variant of a choice to life. It is errGone if the credential was configured anew or deleted since: the
// choice has to be made again.
func (b *Broker) chosen(ctx context.Context, e *entry, c choice) (*variant, error) {
	if c.refused != nil {
		return nil, c.refused
	}
	e.mu.Lock()
	v, same := e.variants[c.v.Key()], e.of(c)
	e.mu.Unlock()
	switch {
	case !same:
		return nil, errGone
	case v != nil:
		return v, nil
	}
	return b.vivify(ctx, e, c)
}
