package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/tokenbroker/tokenbroker"
)

// Summaries yields the summary of each credential in name order, reading nothing but the index. What is written meanwhile
// may or may not be seen. An error that wraps tokenbroker.ErrTampered is about the one credential that the summary beside it
// names, and the rest follows; any other error ends it.
func (s *Store) Summaries(ctx context.Context) iter.Seq2[tokenbroker.Summary, error] {
	return func(yield func(tokenbroker.Summary, error) bool) {
		for e, err := range s.walk(ctx, bucketIndex) {
			if err != nil {
				yield(tokenbroker.Summary{}, err)
				return
			}
			sum, err := s.openSummary(e)
			if !yield(sum, err) {
				return
			}
		}
	}
}

func (s *Store) openSummary(e Entry) (tokenbroker.Summary, error) {
	var r indexRecord
	if _, err := s.open(e, 0, &r); err != nil {
		return tokenbroker.Summary{Name: e.Key.Name}, err
	}
	return r.summary(e.Key.Name), nil
}

// walk yields the entries of a bucket, page by page.
func (s *Store) walk(ctx context.Context, bucket string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after := ""; ; {
			entries, err := s.list(ctx, bucket, after, pageSize)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if len(entries) < pageSize {
				return
			}
			after = entries[len(entries)-1].Key.Name
		}
	}
}

// Credentials returns up to limit credentials whose name comes after after, in name order; fewer only where there are no
// more. With an error that wraps tokenbroker.ErrTampered it returns the others nevertheless.
func (s *Store) Credentials(ctx context.Context, after string, limit int) ([]tokenbroker.Credential, error) {
	return page(ctx, s, bucketIndex, bucketCredential, after, limit, s.openCredential)
}

// Clients returns up to limit OAuth clients with their secrets whose name comes after after, in name order; fewer only
// where there are no more. With an error that wraps tokenbroker.ErrTampered it returns the others nevertheless.
func (s *Store) Clients(ctx context.Context, after string, limit int) ([]tokenbroker.OAuthClient, error) {
	return page(ctx, s, bucketClientIndex, bucketClient, after, limit, s.openClient)
}

// page walks an index bucket and opens each record beside its index as of one moment.
func page[T any](ctx context.Context, s *Store, indexes, records, after string, limit int, open func(string, Entry, Entry) (T, error)) ([]T, error) {
	var out []T
	var bad []error
	for len(out) < limit {
		n := min(limit-len(out), pageSize)
		listed, err := s.list(ctx, indexes, after, n)
		if err != nil {
			return nil, err
		}
		entries, err := s.pairs(ctx, records, listed)
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(entries); i += 2 {
			name := entries[i].Key.Name
			v, err := open(name, entries[i], entries[i+1])
			switch {
			case err == nil:
				out = append(out, v)
			case errors.Is(err, tokenbroker.ErrTampered):
				bad = append(bad, fmt.Errorf("%q: %w", name, err))
			} // else deleted since it was listed
		}
		if len(listed) < n {
			break
		}
		after = listed[len(listed)-1].Key.Name
	}
	return out, errors.Join(bad...)
}

// pairs reads each listed entry again, with the record of the same name beside it, all as of one moment.
func (s *Store) pairs(ctx context.Context, bucket string, listed []Entry) ([]Entry, error) {
	keys := make([]Key, 0, 2*len(listed))
	for _, e := range listed {
		keys = append(keys, e.Key, Key{bucket, e.Key.Name})
	}
	return s.read(ctx, keys...)
}
