package keyring

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// What callers branch on.
var (
	ErrWrongKey = errors.New("wrong key encryption key")    // another KEK wrapped this ring
	ErrDamaged  = errors.New("the wrapped keys don't open") // the right KEK, but the bytes or the store id are not as they were
	ErrNotOpen  = errors.New("sealed bytes don't open")     // edited, moved, or sealed by another ring
)

// HashBytes is the length of what [Ring.Hash] returns.
const HashBytes = 32

const (
	wrapVersion  = 1
	purposeSeal  = "seal"
	purposeHash  = "hash"
	maxWrappedAt = 1 << 20 // a keyset is a few hundred bytes; more than this is damage
)

// Ring seals, opens and hashes with the keys of one store. It is safe for use by several goroutines.
//
// Its wrapped form is
//
//	version  1 byte, 1
//	kek id   1 byte length, then the ID of the KEK, in the clear so that a wrong one can be named
//	seal     4 bytes length (big endian), then Tink's encrypted keyset
//	hash     the same
//
// Each keyset is encrypted by the KEK with (purpose, KEK ID, store id) as associated data, each part length-prefixed.
type Ring struct {
	aead tink.AEAD
	prf  *prf.Set
}

// Generate makes a ring with new keys, and its wrapped form to keep. ctx ends the calls to the KEK.
func Generate(ctx context.Context, kek KEK, storeID string) (*Ring, []byte, error) {
	if err := checkKEK(kek); err != nil {
		return nil, nil, err
	}
	sealing, err := keyset.NewHandle(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return nil, nil, fmt.Errorf("make sealing key: %w", err)
	}
	hashing, err := keyset.NewHandle(prf.HKDFSHA256PRFKeyTemplate())
	if err != nil {
		return nil, nil, fmt.Errorf("make hashing key: %w", err)
	}
	wrapped := append([]byte{wrapVersion, byte(len(kek.ID()))}, kek.ID()...)
	for _, k := range []struct {
		purpose string
		handle  *keyset.Handle
	}{{purposeSeal, sealing}, {purposeHash, hashing}} {
		var b bytes.Buffer
		if err := k.handle.WriteWithContext(ctx, keyset.NewBinaryWriter(&b), wrapper{kek}, wrapData(k.purpose, kek.ID(), storeID)); err != nil {
			return nil, nil, fmt.Errorf("wrap %s key with KEK %s: %w", k.purpose, kek.ID(), err)
		}
		wrapped = binary.BigEndian.AppendUint32(wrapped, uint32(b.Len()))
		wrapped = append(wrapped, b.Bytes()...)
	}
	ring, err := newRing(sealing, hashing)
	return ring, wrapped, err
}

// Unwrap gives the ring that Generate wrapped for the same store. [ErrWrongKey] and [ErrDamaged] say why it can't.
func Unwrap(ctx context.Context, kek KEK, storeID string, wrapped []byte) (*Ring, error) {
	if err := checkKEK(kek); err != nil {
		return nil, err
	}
	id, sealing, hashing, err := splitWrapped(wrapped)
	if err != nil {
		return nil, err
	}
	if id != kek.ID() {
		return nil, fmt.Errorf("%w: the store was sealed with KEK %s, this is %s; start with the key that belongs to this store",
			ErrWrongKey, printable(id), kek.ID())
	}
	sealer, err := unwrapOne(ctx, kek, purposeSeal, storeID, sealing)
	if err != nil {
		return nil, err
	}
	hasher, err := unwrapOne(ctx, kek, purposeHash, storeID, hashing)
	if err != nil {
		return nil, err
	}
	return newRing(sealer, hasher)
}

// WrappedBy returns the ID of the KEK that a ring was wrapped with.
func WrappedBy(wrapped []byte) (string, error) {
	id, _, _, err := splitWrapped(wrapped)
	return printable(id), err
}

func newRing(sealing, hashing *keyset.Handle) (*Ring, error) {
	a, err := aead.New(sealing)
	if err != nil {
		return nil, fmt.Errorf("use sealing keys: %w", err)
	}
	p, err := prf.NewPRFSet(hashing)
	if err != nil {
		return nil, fmt.Errorf("use hashing keys: %w", err)
	}
	return &Ring{aead: a, prf: p}, nil
}

// Seal encrypts plain and binds it to ad. It keeps neither slice.
func (r *Ring) Seal(plain, ad []byte) ([]byte, error) { return r.aead.Encrypt(plain, ad) }

// Open gives back what was sealed, or [ErrNotOpen] if a byte of sealed or ad is not as it was.
func (r *Ring) Open(sealed, ad []byte) ([]byte, error) {
	plain, err := r.aead.Decrypt(sealed, ad)
	if err != nil {
		return nil, ErrNotOpen
	}
	return plain, nil
}

// Hash returns 32 bytes that only this ring can compute of data. It is not random: equal data, equal hash.
func (r *Ring) Hash(data []byte) ([]byte, error) { return r.prf.ComputePrimaryPRF(data, HashBytes) }

func checkKEK(kek KEK) error {
	switch {
	case kek == nil:
		return errors.New("no key encryption key: configure the key file of this store")
	case len(kek.ID()) == 0 || len(kek.ID()) > maxKEKID:
		return fmt.Errorf("KEK id has %d bytes, 1 to %d are allowed", len(kek.ID()), maxKEKID)
	}
	return nil
}

func unwrapOne(ctx context.Context, kek KEK, purpose, storeID string, wrapped []byte) (*keyset.Handle, error) {
	h, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(wrapped)), wrapper{kek}, wrapData(purpose, kek.ID(), storeID))
	if err != nil {
		return nil, fmt.Errorf("%w: %s key of store %s under KEK %s: restore the store from a backup: %w", ErrDamaged, purpose, storeID, kek.ID(), err)
	}
	return h, nil
}

func splitWrapped(wrapped []byte) (id string, sealing, hashing []byte, err error) {
	if len(wrapped) < 2 {
		return "", nil, nil, fmt.Errorf("%w: %d bytes are too few", ErrDamaged, len(wrapped))
	}
	if wrapped[0] != wrapVersion {
		return "", nil, nil, fmt.Errorf("%w: version %d, this program knows version %d", ErrDamaged, wrapped[0], wrapVersion)
	}
	rest := wrapped[2:]
	n := int(wrapped[1])
	if n == 0 || len(rest) < n {
		return "", nil, nil, fmt.Errorf("%w: cut off in the KEK id", ErrDamaged)
	}
	id, rest = string(rest[:n]), rest[n:]
	if sealing, rest, err = cutPart(rest); err != nil {
		return "", nil, nil, err
	}
	if hashing, rest, err = cutPart(rest); err != nil {
		return "", nil, nil, err
	}
	if len(rest) != 0 {
		return "", nil, nil, fmt.Errorf("%w: %d bytes too many", ErrDamaged, len(rest))
	}
	return id, sealing, hashing, nil
}

func cutPart(b []byte) (part, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: cut off before a keyset", ErrDamaged)
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxWrappedAt || int(n) > len(b)-4 {
		return nil, nil, fmt.Errorf("%w: cut off in a keyset", ErrDamaged)
	}
	return b[4 : 4+n], b[4+n:], nil
}

func wrapData(purpose, kekID, storeID string) []byte {
	var b []byte
	for _, part := range []string{"tokenbroker keyset", purpose, kekID, storeID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// printable keeps an ID that was read from damaged bytes from upsetting a terminal.
func printable(id string) string {
	b := []byte(id)
	for i := range b {
		if b[i] < ' ' || b[i] > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// wrapper lets Tink encrypt a keyset with a KEK, so that no keyset is ever written in the clear.
type wrapper struct{ kek KEK }

// EncryptWithContext implements tink.AEADWithContext.
func (w wrapper) EncryptWithContext(ctx context.Context, plain, ad []byte) ([]byte, error) {
	return w.kek.Wrap(ctx, plain, ad)
}

// DecryptWithContext implements tink.AEADWithContext.
func (w wrapper) DecryptWithContext(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	return w.kek.Unwrap(ctx, wrapped, ad)
}
