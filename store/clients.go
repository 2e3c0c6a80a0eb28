package store

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Client returns an OAuth client with its secrets. Errors: tokenbroker.ErrClientNotFound, tokenbroker.ErrTampered.
func (s *Store) Client(ctx context.Context, name string) (tokenbroker.OAuthClient, error) {
	entries, err := s.read(ctx, Key{bucketClientIndex, name}, Key{bucketClient, name})
	if err != nil {
		return tokenbroker.OAuthClient{}, err
	}
	c, err := s.openClient(name, entries[0], entries[1])
	if err != nil {
		return tokenbroker.OAuthClient{}, fmt.Errorf("OAuth client %q: %w", name, err)
	}
	return c, nil
}

func (s *Store) openClient(name string, index, record Entry) (tokenbroker.OAuthClient, error) {
	if index.Rev == 0 && record.Rev == 0 {
		return tokenbroker.OAuthClient{}, tokenbroker.ErrClientNotFound
	}
	var i clientIndexRecord
	if _, err := s.open(index, 0, &i); err != nil {
		return tokenbroker.OAuthClient{}, err
	}
	var r clientRecord
	if _, err := s.open(record, i.Client, &r); err != nil {
		return tokenbroker.OAuthClient{}, err
	}
	return r.client(name), nil
}

// PutClient creates an OAuth client (version 0), or replaces the one that still has that version. A create sets UID and
// Created; a replacement keeps them; both set Updated and raise Version. Errors: tokenbroker.ErrAlreadyExists,
// tokenbroker.ErrClientNotFound, tokenbroker.ErrETagMismatch, tokenbroker.ErrTampered.
func (s *Store) PutClient(ctx context.Context, c tokenbroker.OAuthClient, version uint64) (tokenbroker.OAuthClient, error) {
	if err := checkName(c.Name); err != nil {
		return tokenbroker.OAuthClient{}, err
	}
	err := s.editClient(ctx, c.Name, func(entries []Entry) error { return s.putClient(ctx, &c, version, entries) })
	if err != nil {
		return tokenbroker.OAuthClient{}, err
	}
	return c, nil
}

func (s *Store) putClient(ctx context.Context, c *tokenbroker.OAuthClient, version uint64, entries []Entry) error {
	now := time.Now().UTC()
	if version == 0 {
		if entries[0].Rev != 0 || entries[1].Rev != 0 {
			return tokenbroker.ErrAlreadyExists
		}
		c.UID, c.Created = newUID(), orNow(c.Created)
	} else {
		old, err := s.clientAt(c.Name, version, entries)
		if err != nil {
			return err
		}
		c.UID, c.Created = old.UID, old.Created
	}
	c.Version, c.Updated = version+1, now
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	d.expect(entries...)
	d.put(entries[0].Key, &clientIndexRecord{current(), d.number})
	d.put(entries[1].Key, clientToRecord(*c))
	return s.write(ctx, d)
}

// DeleteClient removes an OAuth client; version 0 stands for any, and then removes records that do not open as well. That
// no credential uses it is the caller's to know. Errors: tokenbroker.ErrClientNotFound, tokenbroker.ErrETagMismatch,
// tokenbroker.ErrTampered.
func (s *Store) DeleteClient(ctx context.Context, name string, version uint64) error {
	return s.editClient(ctx, name, func(entries []Entry) error {
		if entries[0].Rev == 0 && entries[1].Rev == 0 {
			return tokenbroker.ErrClientNotFound
		}
		if version != 0 {
			if _, err := s.clientAt(name, version, entries); err != nil {
				return err
			}
		}
		d := &draft{}
		d.expect(entries...)
		d.delete(entries[0].Key)
		d.delete(entries[1].Key)
		return s.write(ctx, d)
	})
}

func (s *Store) clientAt(name string, version uint64, entries []Entry) (tokenbroker.OAuthClient, error) {
	c, err := s.openClient(name, entries[0], entries[1])
	if err == nil && c.Version != version {
		err = tokenbroker.ErrETagMismatch
	}
	return c, err
}

// editClient runs edit on the records of a client, again if another process wrote meanwhile.
func (s *Store) editClient(ctx context.Context, name string, edit func([]Entry) error) error {
	leave, err := s.lanes.enter(ctx, "client"+nameDivider+name)
	if err != nil {
		return err
	}
	defer leave()
	err = retry(ctx, "write", func() error {
		entries, err := s.read(ctx, Key{bucketClientIndex, name}, Key{bucketClient, name})
		if err != nil {
			return err
		}
		return edit(entries)
	})
	if err != nil {
		return fmt.Errorf("OAuth client %q: %w", name, err)
	}
	return nil
}
