package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tokenbroker/tokenbroker"
)

// CreateClient checks an OAuth client and stores it with its first secret or key, which is zero for a public client. What a key says of its
// client is taken over.
func (b *Broker) CreateClient(ctx context.Context, c tokenbroker.OAuthClient, secret NewSecret, validateOnly bool) (tokenbroker.OAuthClient, error) {
	if err := tokenbroker.ValidateName(c.Name); err != nil {
		return c, tokenbroker.Invalid("oauthClient", err)
	}
	c.Secrets = nil
	if !secret.isZero() || c.Auth.Kind() != tokenbroker.KindSecret && !c.Auth.Public() {
		if err := b.newSecret(&c, secret); err != nil {
			return withoutSecrets(c), err
		}
	}
	if err := b.checkClient(c); err != nil {
		return withoutSecrets(c), err
	}
	if validateOnly {
		return withoutSecrets(c), nil
	}
	return b.putClient(ctx, c, 0)
}

func (b *Broker) checkClient(c tokenbroker.OAuthClient) error {
	if _, ok := b.cfg.Traits(c.Provider); !ok {
		return &tokenbroker.Problem{Err: tokenbroker.ErrUnknownProvider, Field: "spec.provider", Detail: "add it to the configuration file, or correct the name"}
	}
	if err := tokenbroker.ValidateLabels(c.Labels); err != nil {
		return tokenbroker.Invalid("spec.labels", err)
	}
	if kind := c.Auth.Kind(); kind != "" {
		other := func(s tokenbroker.ClientSecret) bool {
			has := cmp.Or(s.Kind, tokenbroker.KindSecret)
			return has != kind && (kind != tokenbroker.KindSecret || has != tokenbroker.KindKey) // a key may sign beside a secret that is shown
		}
		if slices.ContainsFunc(c.Secrets, other) {
			return tokenbroker.Invalid("spec.authMethod", fmt.Errorf("%s takes a %s, and the client holds something else; create another client", c.Auth, kind))
		}
	}
	return b.cfg.Judge.ValidateClient(c)
}

// Client returns one OAuth client, without its secrets.
func (b *Broker) Client(ctx context.Context, name string) (tokenbroker.OAuthClient, error) {
	c, err := b.cfg.Store.Client(ctx, name)
	return withoutSecrets(c), err
}

// ListClients lists up to limit OAuth clients in name order, without their secrets, of those that allowed says yes to. One that
// does not open is left out.
func (b *Broker) ListClients(ctx context.Context, after string, limit int, allowed func(name string) bool) (list []tokenbroker.OAuthClient, next string, err error) {
	limit = max(1, limit)
	for {
		page, err := b.cfg.Store.Clients(ctx, after, limit)
		if err != nil && !isTampered(err) {
			return list, "", err
		}
		if err != nil {
			b.observe(Event{Kind: EventTampered, Code: codeOf(err)})
		}
		if len(page) == 0 {
			return list, "", nil
		}
		for _, c := range page {
			after = c.Name
			if !allowed(c.Name) {
				continue
			}
			if len(list) == limit {
				return list, list[limit-1].Name, nil
			}
			list = append(list, withoutSecrets(c))
		}
	}
}

// UpdateClient changes an OAuth client by change, if its version is still the one given (0 = any), and tries the credentials that
// were refused for its sake again.
func (b *Broker) UpdateClient(ctx context.Context, name string, version uint64, change func(*tokenbroker.OAuthClient) error) (tokenbroker.OAuthClient, error) {
	for range 10 {
		c, err := b.cfg.Store.Client(ctx, name)
		if err != nil {
			return c, err
		}
		if version != 0 && c.Version != version {
			return withoutSecrets(c), tokenbroker.ErrETagMismatch
		}
		read, provider := c.Version, c.Provider
		if err := change(&c); err != nil {
			return withoutSecrets(c), err
		}
		c.Name, c.Provider = name, provider
		if err := b.checkClient(c); err != nil {
			return withoutSecrets(c), err
		}
		c, err = b.putClient(ctx, c, read)
		if err == nil || version != 0 || !errors.Is(err, tokenbroker.ErrETagMismatch) {
			return c, err
		}
	}
	return tokenbroker.OAuthClient{}, tokenbroker.ErrETagMismatch
}

func (b *Broker) putClient(ctx context.Context, c tokenbroker.OAuthClient, version uint64) (tokenbroker.OAuthClient, error) {
	c, err := b.cfg.Store.PutClient(ctx, c, version)
	if err != nil {
		return withoutSecrets(c), err
	}
	b.wrote()
	b.lookAtSecrets(c)
	for _, e := range b.loadedWith(c.Name) {
		e.mu.Lock()
		e.retryNow()
		e.mu.Unlock()
		b.publishAll(e)
	}
	return withoutSecrets(c), nil
}

// DeleteClient removes an OAuth client that no credential uses, if its version is still the one given (0 = any).
func (b *Broker) DeleteClient(ctx context.Context, name string, version uint64) error {
	b.inUse.Lock()
	defer b.inUse.Unlock()
	if err := b.unused(ctx, name); err != nil {
		return err
	}
	if err := b.cfg.Store.DeleteClient(ctx, name, version); err != nil {
		return err
	}
	b.duties.forget(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.gates, func(k gateKey, _ *gate) bool { return k.client == name })
	return nil
}

// unused is nil if an OAuth client is there and no credential uses it. It names none: whoever may delete a client need not be
// allowed to know of the credentials. One that does not open may use it, for all we know.
func (b *Broker) unused(ctx context.Context, name string) error {
	if _, err := b.cfg.Store.Client(ctx, name); err != nil && !isTampered(err) {
		return err
	}
	for _, cred := range b.names("") {
		switch c, _, err := b.cfg.Store.Load(ctx, cred); {
		case isTampered(err):
			return &tokenbroker.Problem{Err: tokenbroker.ErrInUse, Detail: "a credential that does not open may use it; delete that first"}
		case errors.Is(err, tokenbroker.ErrNotFound): // deleted meanwhile
		case err != nil:
			return err
		case c.Client == name:
			return &tokenbroker.Problem{Err: tokenbroker.ErrInUse, Detail: "a credential uses it"}
		}
	}
	return nil
}

// loadedWith returns the credentials in memory that use an OAuth client.
func (b *Broker) loadedWith(client string) []*entry {
	return slices.DeleteFunc(b.inMemory(), func(e *entry) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.cred.Client != client
	})
}

// inMemory returns the credentials in memory.
func (b *Broker) inMemory() []*entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []*entry
	for _, e := range b.entries {
		if e.loaded.Load() {
			all = append(all, e)
		}
	}
	return all
}

func withoutSecrets(c tokenbroker.OAuthClient) tokenbroker.OAuthClient {
	c.Secrets = slices.Clone(c.Secrets)
	for i := range c.Secrets {
		c.Secrets[i].Secret = tokenbroker.Secret{}
	}
	return c
}
