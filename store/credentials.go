package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Credential returns the configuration of a credential. Errors: tokenbroker.ErrNotFound, tokenbroker.ErrTampered.
func (s *Store) Credential(ctx context.Context, name string) (tokenbroker.Credential, error) {
	entries, err := s.read(ctx, Key{bucketIndex, name}, Key{bucketCredential, name})
	if err != nil {
		return tokenbroker.Credential{}, err
	}
	c, err := s.openCredential(name, entries[0], entries[1])
	if err != nil {
		return tokenbroker.Credential{}, fmt.Errorf("credential %q: %w", name, err)
	}
	return c, nil
}

func (s *Store) openCredential(name string, index, config Entry) (tokenbroker.Credential, error) {
	var i indexRecord
	if _, err := s.openIndex(index, config, &i); err != nil {
		return tokenbroker.Credential{}, err
	}
	var r credentialRecord
	if _, err := s.open(config, i.Config, &r); err != nil {
		return tokenbroker.Credential{}, err
	}
	return r.credential(name), nil
}

// Load returns configuration and grant as of one moment. Errors: tokenbroker.ErrNotFound, tokenbroker.ErrTampered.
func (s *Store) Load(ctx context.Context, name string) (tokenbroker.Credential, tokenbroker.Grant, error) {
	entries, err := s.read(ctx, Key{bucketIndex, name}, Key{bucketGrant, name}, Key{bucketCredential, name})
	if err != nil {
		return tokenbroker.Credential{}, tokenbroker.Grant{}, err
	}
	c, err := s.openCredential(name, entries[0], entries[2])
	if err != nil {
		return tokenbroker.Credential{}, tokenbroker.Grant{}, fmt.Errorf("credential %q: %w", name, err)
	}
	ch, err := s.openChain(name, entries[:2])
	if err != nil {
		return tokenbroker.Credential{}, tokenbroker.Grant{}, fmt.Errorf("credential %q: %w", name, err)
	}
	return c, ch.grant, nil
}

// Token returns the newest token of a variant, expired or not; false if there is none. variantKey is
// tokenbroker.Variant.Key. Errors: tokenbroker.ErrNotFound if the credential is not there or has another UID,
// tokenbroker.ErrTampered.
func (s *Store) Token(ctx context.Context, name, uid, variantKey string) (tokenbroker.Token, bool, error) {
	k, hash, err := s.tokenKey(name, variantKey)
	if err != nil {
		return tokenbroker.Token{}, false, err
	}
	entries, err := s.read(ctx, Key{bucketIndex, name}, Key{bucketGrant, name}, k)
	if err != nil {
		return tokenbroker.Token{}, false, err
	}
	t, ok, err := s.openToken(name, uid, hash, entries)
	if err != nil {
		return tokenbroker.Token{}, false, fmt.Errorf("credential %q: %w", name, err)
	}
	return t, ok, nil
}

func (s *Store) openToken(name, uid, hash string, entries []Entry) (tokenbroker.Token, bool, error) {
	c, err := s.openChain(name, entries[:2])
	if err != nil {
		return tokenbroker.Token{}, false, err
	}
	if c.index.UID != uid {
		return tokenbroker.Token{}, false, tokenbroker.ErrNotFound
	}
	link, ok := c.link[hash]
	if !ok {
		return tokenbroker.Token{}, false, nil
	}
	var r tokenRecord
	if _, err := s.open(entries[2], link.Number, &r); err != nil {
		return tokenbroker.Token{}, false, err
	}
	return r.token(), true, nil
}

// CreateCredential adds a credential with its first grant. It sets UID, Version and Generation, and Created, Updated, and
// the grant's state (PENDING), times and serial where they are zero. Error: tokenbroker.ErrAlreadyExists.
func (s *Store) CreateCredential(ctx context.Context, c tokenbroker.Credential, g tokenbroker.Grant) (tokenbroker.Credential, error) {
	if err := checkName(c.Name); err != nil {
		return tokenbroker.Credential{}, err
	}
	leave, err := s.lanes.enter(ctx, c.Name)
	if err != nil {
		return tokenbroker.Credential{}, err
	}
	defer leave()
	c.UID, c.Version = newUID(), 1
	c.Created, c.Updated = orNow(c.Created), orNow(c.Updated)
	g = firstGrant(g, c)
	err = retry(ctx, "create", func() error { return s.insert(ctx, &c, g) })
	if err != nil {
		return tokenbroker.Credential{}, fmt.Errorf("credential %q: %w", c.Name, err)
	}
	return c, nil
}

func (s *Store) insert(ctx context.Context, c *tokenbroker.Credential, g tokenbroker.Grant) error {
	entries, err := s.read(ctx, Key{bucketIndex, c.Name}, Key{bucketGrant, c.Name}, Key{bucketCredential, c.Name})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Rev != 0 {
			return tokenbroker.ErrAlreadyExists
		}
	}
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	c.Generation = tokenbroker.Generation(d.number)
	d.expect(entries[2])
	d.put(Key{bucketCredential, c.Name}, credentialToRecord(*c))
	s.putChain(&chain{
		name: c.Name, entries: entries[:2], grant: g,
		index: indexRecord{UID: c.UID, Provider: c.Provider, Source: c.Source, Disabled: c.Disabled, Config: d.number},
	}, d)
	return s.write(ctx, d)
}

// firstGrant fills in what a new credential's grant leaves open.
func firstGrant(g tokenbroker.Grant, c tokenbroker.Credential) tokenbroker.Grant {
	g.UID, g.Intent = c.UID, nil
	if g.State == "" {
		g.State = tokenbroker.StatePending
	}
	if g.Since.IsZero() {
		g.Since = c.Created
	}
	if g.RefreshToken.IsZero() {
		return g
	}
	g.Serial = max(g.Serial, 1)
	if g.Consented.IsZero() {
		g.Consented = c.Created
	}
	if g.Exercised.IsZero() {
		g.Exercised = g.Consented
	}
	return g
}

// UpdateCredential replaces the configuration, if its version still is version. UID and Created stay, Updated is now, Version
// rises, and so does Generation if tokens are asked for otherwise from now on (all but labels, owner and whether it is disabled): tokens of
// lower generations belong to a former configuration. Grant and tokens are not touched. Errors: tokenbroker.ErrNotFound, tokenbroker.ErrETagMismatch,
// tokenbroker.ErrTampered.
func (s *Store) UpdateCredential(ctx context.Context, c tokenbroker.Credential, version uint64) (tokenbroker.Credential, error) {
	leave, err := s.lanes.enter(ctx, c.Name)
	if err != nil {
		return tokenbroker.Credential{}, err
	}
	defer leave()
	err = retry(ctx, "update", func() error { return s.update(ctx, &c, version) })
	if err != nil {
		return tokenbroker.Credential{}, fmt.Errorf("credential %q: %w", c.Name, err)
	}
	return c, nil
}

func (s *Store) update(ctx context.Context, c *tokenbroker.Credential, version uint64) error {
	entries, err := s.read(ctx, Key{bucketIndex, c.Name}, Key{bucketCredential, c.Name})
	if err != nil {
		return err
	}
	old, err := s.openCredential(c.Name, entries[0], entries[1])
	if err != nil {
		return err
	}
	if old.Version != version {
		return tokenbroker.ErrETagMismatch
	}
	var index indexRecord
	written, err := s.open(entries[0], 0, &index)
	if err != nil {
		return err
	}
	d, err := s.draft(ctx, written)
	if err != nil {
		return err
	}
	c.UID, c.Created, c.Generation = old.UID, old.Created, old.Generation
	if asksOtherwise(old, *c) {
		c.Generation = tokenbroker.Generation(d.number)
	}
	c.Version, c.Updated = old.Version+1, time.Now().UTC()
	index.version = current()
	index.Provider, index.Source, index.Disabled, index.Config = c.Provider, c.Source, c.Disabled, d.number
	d.expect(entries...)
	d.put(Key{bucketCredential, c.Name}, credentialToRecord(*c))
	d.put(Key{bucketIndex, c.Name}, &index)
	return s.write(ctx, d)
}

// asksOtherwise reports whether an edit changes what tokens are asked for, so that those of before are not to be served.
func asksOtherwise(a, b tokenbroker.Credential) bool {
	return a.Client != b.Client || a.Source != b.Source || a.Variant(nil, "", "").Key() != b.Variant(nil, "", "").Key() ||
		!slices.Equal(a.Resources, b.Resources) || !maps.Equal(a.Parameters, b.Parameters)
}

// DeleteCredential removes configuration, grant, tokens and summary; orphans stay. Version 0 stands for any, and then
// removes records that do not open as well. Errors: tokenbroker.ErrNotFound, tokenbroker.ErrETagMismatch,
// tokenbroker.ErrTampered.
func (s *Store) DeleteCredential(ctx context.Context, name string, version uint64) error {
	leave, err := s.lanes.enter(ctx, name)
	if err != nil {
		return err
	}
	defer leave()
	err = retry(ctx, "delete", func() error { return s.remove(ctx, name, version) })
	if err != nil {
		return fmt.Errorf("credential %q: %w", name, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, name string, version uint64) error {
	entries, err := s.read(ctx, Key{bucketIndex, name}, Key{bucketCredential, name}, Key{bucketGrant, name})
	if err != nil {
		return err
	}
	if entries[0].Rev == 0 && entries[1].Rev == 0 && entries[2].Rev == 0 {
		return tokenbroker.ErrNotFound
	}
	if version != 0 {
		c, err := s.openCredential(name, entries[0], entries[1])
		if err != nil {
			return err
		}
		if c.Version != version {
			return tokenbroker.ErrETagMismatch
		}
	}
	// Every write of a token also writes the index, so the compare makes this list good.
	tokens, err := s.tokenKeys(ctx, name)
	if err != nil {
		return err
	}
	d := &draft{}
	d.expect(entries...)
	for _, e := range entries {
		d.delete(e.Key)
	}
	for _, k := range tokens[:min(len(tokens), MaxOps-len(entries))] {
		d.delete(k)
	}
	return s.write(ctx, d)
}

// tokenKeys lists the token records of a credential.
func (s *Store) tokenKeys(ctx context.Context, name string) ([]Key, error) {
	prefix := name + nameDivider
	var keys []Key
	for after := prefix; ; after = keys[len(keys)-1].Name {
		entries, err := s.list(ctx, bucketToken, after, pageSize)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Key.Name, prefix) {
				return keys, nil
			}
			keys = append(keys, e.Key)
		}
		if len(entries) < pageSize {
			return keys, nil
		}
	}
}

func checkName(name string) error {
	return tokenbroker.Invalid("name", tokenbroker.ValidateName(name))
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UTC()
}
