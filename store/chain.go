package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// chain is what the records of one credential say at one moment: the index, and the grant that it names.
type chain struct {
	name    string
	entries []Entry // index and grant as read, to compare with
	number  uint64  // highest record number among them
	index   indexRecord
	link    map[string]tokenLink // of the grant; variant hash → its token
	grant   tokenbroker.Grant
}

// chain reads index and grant. tokenbroker.ErrNotFound if neither is there, tokenbroker.ErrTampered if one is not.
func (s *Store) chain(ctx context.Context, name string) (*chain, error) {
	entries, err := s.read(ctx, Key{bucketIndex, name}, Key{bucketGrant, name})
	if err != nil {
		return nil, err
	}
	return s.openChain(name, entries)
}

func (s *Store) openChain(name string, entries []Entry) (*chain, error) {
	c := &chain{name: name, entries: entries}
	written, err := s.openIndex(entries[0], entries[1], &c.index)
	if err != nil {
		return nil, err
	}
	var g grantRecord
	if _, err := s.open(entries[1], c.index.Grant, &g); err != nil {
		return nil, err
	}
	c.number, c.grant, c.link = written, g.grant(), g.Tokens
	return c, nil
}

// openIndex opens the head of a chain. beside is another record of the same credential: if that is there, the index was lost.
func (s *Store) openIndex(e, beside Entry, r *indexRecord) (written uint64, err error) {
	if e.Rev == 0 && beside.Rev == 0 {
		return 0, tokenbroker.ErrNotFound
	}
	return s.open(e, 0, r)
}

// mutate reads the chain of a credential, lets change alter it and draft further writes, and writes grant and index. It
// runs change again if another process wrote meanwhile. changed false = nothing is to be written.
func (s *Store) mutate(ctx context.Context, name string, change func(*chain, *draft) (changed bool, err error)) (tokenbroker.Grant, error) {
	leave, err := s.lanes.enter(ctx, name)
	if err != nil {
		return tokenbroker.Grant{}, err
	}
	defer leave()
	var g tokenbroker.Grant
	err = retry(ctx, "write", func() error {
		c, err := s.chain(ctx, name)
		if err != nil {
			return err
		}
		d, err := s.draft(ctx, c.number)
		if err != nil {
			return err
		}
		changed, err := change(c, d)
		if g = c.grant; err != nil || !changed {
			return err
		}
		s.putChain(c, d)
		return s.write(ctx, d)
	})
	if err != nil {
		return tokenbroker.Grant{}, fmt.Errorf("credential %q: %w", name, err)
	}
	return g, nil
}

// putChain drafts grant and index.
func (s *Store) putChain(c *chain, d *draft) {
	c.index.version = current()
	c.index.State = summaryState(c.grant)
	c.index.Grant = d.number
	c.index.Exercise = time.Time{}
	if g := c.grant; g.Lives() || !g.RefreshEnd.IsZero() || g.Revoking != nil {
		c.index.Exercise = s.exercise(c.index.Provider, c.grant).UTC()
	}
	d.expect(c.entries...)
	d.put(Key{bucketGrant, c.name}, grantToRecord(c.grant, c.link))
	d.put(Key{bucketIndex, c.name}, &c.index)
}

// summaryState is what a start has to know: a standing intent means that a refresh token may be spent, whatever else holds.
func summaryState(g tokenbroker.Grant) tokenbroker.State {
	if g.Intent != nil && g.State != tokenbroker.StateReauthorize && g.State != tokenbroker.StateQuarantined {
		return tokenbroker.StateUncertain
	}
	return g.State
}

// enter changes the state, and remembers since when it is so.
func (c *chain) enter(state tokenbroker.State, at time.Time) {
	if state != "" && state != c.grant.State {
		c.grant.State, c.grant.Since = state, at.UTC()
	}
}

// tokenKey hides the variant, whose subject may be a person, behind a keyed hash.
func (s *Store) tokenKey(name, variantKey string) (k Key, hash string, err error) {
	h, err := s.sealer.ring.Hash([]byte("variant\x00" + name + "\x00" + variantKey))
	if err != nil {
		return Key{}, "", fmt.Errorf("hash variant: %w", err)
	}
	hash = hex.EncodeToString(h[:16])
	return tokenKeyOf(name, hash), hash, nil
}

func tokenKeyOf(name, hash string) Key { return Key{bucketToken, name + nameDivider + hash} }

// lost reports whether err says that there is no chain, or none that opens, to commit to.
func lost(err error) bool {
	return errors.Is(err, tokenbroker.ErrNotFound) || errors.Is(err, tokenbroker.ErrTampered)
}
