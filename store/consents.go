package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/tokenbroker/tokenbroker"
)

// Consent returns a consent. Errors: tokenbroker.ErrConsentNotFound, tokenbroker.ErrTampered.
func (s *Store) Consent(ctx context.Context, id string) (tokenbroker.Consent, error) {
	if !consentID(id) {
		return tokenbroker.Consent{}, tokenbroker.ErrConsentNotFound
	}
	entries, err := s.read(ctx, Key{bucketConsent, id})
	if err != nil {
		return tokenbroker.Consent{}, err
	}
	return s.openConsent(entries[0])
}

// consentID refuses what no engine takes for a name; ids come from outside.
func consentID(id string) bool { return id != "" && len(id) <= tokenbroker.MaxNameBytes }

func (s *Store) openConsent(e Entry) (tokenbroker.Consent, error) {
	if e.Rev == 0 {
		return tokenbroker.Consent{}, tokenbroker.ErrConsentNotFound
	}
	var r consentRecord
	if _, err := s.open(e, 0, &r); err != nil {
		return tokenbroker.Consent{ID: e.Key.Name}, err
	}
	return r.consent(e.Key.Name), nil
}

// Consents yields all consents, in no order that means anything. An error that wraps tokenbroker.ErrTampered is about the one consent
// beside it, of which only ID is known, and the rest follows; any other error ends it.
func (s *Store) Consents(ctx context.Context) iter.Seq2[tokenbroker.Consent, error] {
	return func(yield func(tokenbroker.Consent, error) bool) {
		for e, err := range s.walk(ctx, bucketConsent) {
			if err != nil {
				yield(tokenbroker.Consent{}, err)
				return
			}
			c, err := s.openConsent(e)
			if !yield(c, err) {
				return
			}
		}
	}
}

// PutConsent adds a consent (version 0), or replaces the one that still has that version, and returns it with the version it has now. What
// must happen once, such as redeeming a code, rests on this. Errors: tokenbroker.ErrAlreadyExists, tokenbroker.ErrConsentNotFound,
// tokenbroker.ErrETagMismatch, tokenbroker.ErrTampered.
func (s *Store) PutConsent(ctx context.Context, c tokenbroker.Consent, version uint64) (tokenbroker.Consent, error) {
	if !consentID(c.ID) {
		return tokenbroker.Consent{}, tokenbroker.Invalid("consentId", errors.New("is none of ours"))
	}
	err := s.editConsent(ctx, c.ID, func(e Entry) error {
		if err := s.consentAt(e, version); err != nil {
			return err
		}
		c.Version = version + 1
		d, err := s.draft(ctx, 0)
		if err != nil {
			return err
		}
		d.txn.Vital = c.Grant != nil // a code that was redeemed brings no other
		d.expect(e)
		d.put(e.Key, consentToRecord(c))
		return s.write(ctx, d)
	})
	if err != nil {
		return tokenbroker.Consent{}, err
	}
	return c, nil
}

func (s *Store) consentAt(e Entry, version uint64) error {
	if version == 0 {
		if e.Rev != 0 {
			return tokenbroker.ErrAlreadyExists
		}
		return nil
	}
	c, err := s.openConsent(e)
	if err == nil && c.Version != version {
		err = tokenbroker.ErrETagMismatch
	}
	return err
}

// DeleteConsent removes a consent, also one that does not open. It does nothing if there is none.
func (s *Store) DeleteConsent(ctx context.Context, id string) error {
	return s.editConsent(ctx, id, func(e Entry) error {
		d := &draft{}
		d.expect(e)
		d.delete(e.Key)
		return s.write(ctx, d)
	})
}

// editConsent runs edit on the record of a consent, again if another process wrote meanwhile.
func (s *Store) editConsent(ctx context.Context, id string, edit func(Entry) error) error {
	leave, err := s.lanes.enter(ctx, bucketConsent+nameDivider+id)
	if err != nil {
		return err
	}
	defer leave()
	err = retry(ctx, "write", func() error {
		entries, err := s.read(ctx, Key{bucketConsent, id})
		if err != nil {
			return err
		}
		return edit(entries[0])
	})
	if err != nil {
		return fmt.Errorf("consent %q: %w", id, err)
	}
	return nil
}
