package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// usageBatch is how many documents one transaction takes.
const usageBatch = 64

// usageRecord keeps who used a credential, as package usage wrote it down.
type usageRecord struct {
	version
	Document []byte `json:"document"`
}

// Usage visits each document of usage with its name. One that does not open is left out, and the error in the end wraps
// tokenbroker.ErrTampered.
func (s *Store) Usage(ctx context.Context, visit func(name string, document []byte)) error {
	var bad []error
	for e, err := range s.walk(ctx, bucketUsage) {
		if err != nil {
			return errors.Join(append(bad, err)...)
		}
		var r usageRecord
		if _, err := s.open(e, 0, &r); err != nil {
			bad = append(bad, err)
			continue
		}
		visit(e.Key.Name, r.Document)
	}
	return errors.Join(bad...)
}

// PutUsage keeps documents of usage in place of those of the same names, also of ones that do not open; nil deletes. After an error some of
// them are kept.
func (s *Store) PutUsage(ctx context.Context, documents map[string][]byte) error {
	for names := range slices.Chunk(slices.Sorted(maps.Keys(documents)), usageBatch) {
		d, err := s.draft(ctx, 0)
		if err != nil {
			return err
		}
		for _, name := range names {
			k := Key{bucketUsage, name}
			if documents[name] == nil {
				d.delete(k)
				continue
			}
			d.put(k, &usageRecord{current(), documents[name]})
		}
		if err := s.write(ctx, d); err != nil {
			return fmt.Errorf("usage: %w", err)
		}
	}
	return nil
}
