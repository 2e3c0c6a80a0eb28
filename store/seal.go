package store

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
)

const (
	sealFormat  = 1
	sealHeader  = 1 + 8
	nameDivider = "!" // no credential name has one, and it sorts before every byte that a name may have
)

// sealer makes and opens sealed records. A record is
//
//	format  1 byte, 1
//	number  8 bytes, big endian: the record number
//	sealed  what keyring.Ring.Seal made of the payload, versioned JSON
//
// with, as associated data, each part with 4 bytes of its length before it:
//
//	store id, bucket, name, schema (8 bytes), record number (8 bytes)
//
// A record number is never used for two writings of a key, so an older writing can't stand in for a newer one where the
// number is known from elsewhere. The records of one transaction share a number.
type sealer struct {
	ring    *keyring.Ring
	storeID string
}

func (s *sealer) seal(k Key, number uint64, plain []byte) ([]byte, error) {
	sealed, err := s.ring.Seal(plain, s.data(k, number))
	if err != nil {
		return nil, fmt.Errorf("seal %s record of %q: %w", k.Bucket, owner(k), err)
	}
	b := make([]byte, sealHeader, sealHeader+len(sealed))
	b[0] = sealFormat
	binary.BigEndian.PutUint64(b[1:], number)
	return append(b, sealed...), nil
}

// open opens the writing of e that number names; 0 = the one that e itself says it is.
func (s *sealer) open(e Entry, number uint64) (plain []byte, written uint64, err error) {
	switch {
	case e.Rev == 0:
		return nil, 0, tampered(e.Key, "is missing")
	case len(e.Value) < sealHeader:
		return nil, 0, tampered(e.Key, "is cut off")
	case e.Value[0] != sealFormat:
		return nil, 0, tampered(e.Key, "has an unknown format")
	}
	written = binary.BigEndian.Uint64(e.Value[1:])
	if number != 0 && number != written {
		return nil, 0, tampered(e.Key, "is another writing than the one that belongs here")
	}
	plain, err = s.ring.Open(e.Value[sealHeader:], s.data(e.Key, written))
	if err != nil {
		return nil, 0, tampered(e.Key, "was changed, moved, or sealed for another store")
	}
	return plain, written, nil
}

func (s *sealer) data(k Key, number uint64) []byte {
	b := make([]byte, 0, 64+len(s.storeID)+len(k.Bucket)+len(k.Name))
	for _, part := range []string{s.storeID, k.Bucket, k.Name} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	for _, n := range []uint64{Schema, number} {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// tampered names the kind of record and whose it is.
func tampered(k Key, why string) error {
	return fmt.Errorf("%w: %s record of %q %s", tokenbroker.ErrTampered, k.Bucket, owner(k), why)
}

// owner is the credential or client that a key belongs to.
func owner(k Key) string {
	name, _, _ := strings.Cut(k.Name, nameDivider)
	return name
}
