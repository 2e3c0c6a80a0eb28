package store

import (
	"context"
	"fmt"
)

// auditKeysRecord keeps the keys of the hashes by which the audit log names tokens: whoever has them can test a guess of a token.
type auditKeysRecord struct {
	version
	Keys [][]byte `json:"keys"`
}

var auditKeysKey = Key{bucketAudit, "keys"}

// AuditKeys returns the list that was put last; nil if none was. Error: tokenbroker.ErrTampered.
func (s *Store) AuditKeys(ctx context.Context) ([][]byte, error) {
	entries, err := s.read(ctx, auditKeysKey)
	if err != nil || entries[0].Rev == 0 {
		return nil, err
	}
	var r auditKeysRecord
	if _, err := s.open(entries[0], 0, &r); err != nil {
		return nil, fmt.Errorf("audit keys: %w", err)
	}
	return r.Keys, nil
}

// PutAuditKeys keeps a list in place of the one before, also of one that does not open.
func (s *Store) PutAuditKeys(ctx context.Context, keys [][]byte) error {
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	d.put(auditKeysKey, &auditKeysRecord{current(), keys})
	if err := s.write(ctx, d); err != nil {
		return fmt.Errorf("audit keys: %w", err)
	}
	return nil
}
