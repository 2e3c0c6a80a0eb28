package store

import (
	"context"
	"fmt"
)

// metadataRecord keeps what an authorization server says of itself, as package grant wrote it down. It is no secret, but secrets are sent
// where it says: sealed, nobody who can merely write to the file can change it.
type metadataRecord struct {
	version
	Document []byte `json:"document"`
}

// Metadata returns the document that was put last for a provider; nil if there is none. Error: tokenbroker.ErrTampered.
func (s *Store) Metadata(ctx context.Context, provider string) ([]byte, error) {
	entries, err := s.read(ctx, Key{bucketMetadata, provider})
	if err != nil || entries[0].Rev == 0 {
		return nil, err
	}
	var r metadataRecord
	if _, err := s.open(entries[0], 0, &r); err != nil {
		return nil, fmt.Errorf("metadata of provider %q: %w", provider, err)
	}
	return r.Document, nil
}

// PutMetadata keeps a document for a provider in place of the one before, also of one that does not open.
func (s *Store) PutMetadata(ctx context.Context, provider string, document []byte) error {
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	d.put(Key{bucketMetadata, provider}, &metadataRecord{current(), document})
	if err := s.write(ctx, d); err != nil {
		return fmt.Errorf("metadata of provider %q: %w", provider, err)
	}
	return nil
}
