package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/keyring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEveryFlippedBitOfAWrappedRingIsRefused flips each bit in turn. A flip in the KEK's id names another KEK, which is the wrong
// one; every other flip is damage.
func TestEveryFlippedBitOfAWrappedRingIsRefused(t *testing.T) {
	kek := newKEK(t)
	_, wrapped := newRing(t, kek, "store-1")
	id := 2 + len(kek.ID())
	for i := range wrapped {
		for bit := range 8 {
			bad := bytes.Clone(wrapped)
			bad[i] ^= 1 << bit
			ring, err := keyring.Unwrap(t.Context(), kek, "store-1", bad)
			want := keyring.ErrDamaged
			if i >= 2 && i < id {
				want = keyring.ErrWrongKey
			}
			if i == 1 && errors.Is(err, keyring.ErrWrongKey) {
				want = keyring.ErrWrongKey // another length of the id may still be cut right
			}
			if ring != nil || !errors.Is(err, want) {
				t.Fatalf("byte %d, bit %d: got %v, want %v", i, bit, err, want)
			}
			for _, c := range err.Error() {
				if c < ' ' {
					t.Fatalf("byte %d, bit %d: the error holds the control character %q", i, bit, c)
				}
			}
		}
	}
}

func TestUnwrapRefusesPartsInEachOthersPlace(t *testing.T) {
	kek := newKEK(t)
	_, one := newRing(t, kek, "s")
	_, two := newRing(t, kek, "s")
	head := 2 + len(kek.ID())
	part := func(b []byte) (seal, hash []byte) {
		n := head + 4 + int(uint32(b[head])<<24|uint32(b[head+1])<<16|uint32(b[head+2])<<8|uint32(b[head+3]))
		return b[head:n], b[n:]
	}
	seal, hash := part(one)
	_, otherHash := part(two)
	for name, wrapped := range map[string][]byte{
		"the two keysets swapped": bytes.Join([][]byte{one[:head], hash, seal}, nil),
		"the sealing keys twice":  bytes.Join([][]byte{one[:head], seal, seal}, nil),
		"the hashing keys twice":  bytes.Join([][]byte{one[:head], hash, hash}, nil),
		"no sealing keys":         bytes.Join([][]byte{one[:head], {0, 0, 0, 0}, hash}, nil),
		"no hashing keys":         bytes.Join([][]byte{one[:head], seal, {0, 0, 0, 0}}, nil),
		"a keyset of 4 GB":        bytes.Join([][]byte{one[:head], {0xff, 0xff, 0xff, 0xff}, seal[4:], hash}, nil),
	} {
		if ring, err := keyring.Unwrap(t.Context(), kek, "s", wrapped); ring != nil || !errors.Is(err, keyring.ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", name, err)
		}
	}
	// Of two rings of one store under one KEK the halves may be joined: nothing says that they were made together.
	if _, err := keyring.Unwrap(t.Context(), kek, "s", bytes.Join([][]byte{one[:head], seal, otherHash}, nil)); err != nil {
		t.Errorf("halves of two rings: %v", err)
	}
}

// clearKEK wraps nothing, so that a test can choose what unwrapping gives.
type clearKEK struct {
	id     string
	unwrap func(plain []byte) ([]byte, error)
}

func (k clearKEK) ID() string                                              { return k.id }
func (k clearKEK) Wrap(_ context.Context, plain, _ []byte) ([]byte, error) { return plain, nil }
func (k clearKEK) Unwrap(_ context.Context, wrapped, _ []byte) ([]byte, error) {
	return k.unwrap(wrapped)
}

func TestAKEKThatUnwrapsToSomethingElseIsRefused(t *testing.T) {
	right := clearKEK{"k", func(b []byte) ([]byte, error) { return b, nil }}
	_, wrapped := newRing(t, right, "s")
	if _, err := keyring.Unwrap(t.Context(), right, "s", wrapped); err != nil {
		t.Fatal(err)
	}
	for name, unwrap := range map[string]func([]byte) ([]byte, error){
		"nothing":             func([]byte) ([]byte, error) { return nil, nil },
		"noise":               func([]byte) ([]byte, error) { return bytes.Repeat([]byte{0xa5}, 64), nil },
		"half of it":          func(b []byte) ([]byte, error) { return b[:len(b)/2], nil },
		"a service's refusal": func([]byte) ([]byte, error) { return nil, errors.New("access denied") },
	} {
		ring, err := keyring.Unwrap(t.Context(), clearKEK{"k", unwrap}, "s", wrapped)
		if ring != nil || !errors.Is(err, keyring.ErrDamaged) || !strings.Contains(err.Error(), "under KEK k") {
			t.Errorf("%s: got %v, want ErrDamaged that names the KEK", name, err)
		}
	}
}

func TestTheWrappedRingBelongsToOneKEKAndOneStore(t *testing.T) {
	kek := newKEK(t)
	ring, wrapped := newRing(t, kek, "store-1")
	sealed, err := ring.Seal([]byte("plain"), []byte("ad"))
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newRing(t, kek, "store-1")
	if _, err := other.Open(sealed, []byte("ad")); !errors.Is(err, keyring.ErrNotOpen) {
		t.Errorf("another ring of the same store: got %v, want ErrNotOpen", err)
	}
	for _, storeID := range []string{"", "store-", "store-11", "STORE-1"} {
		if _, err := keyring.Unwrap(t.Context(), kek, storeID, wrapped); !errors.Is(err, keyring.ErrDamaged) {
			t.Errorf("store %q: got %v, want ErrDamaged", storeID, err)
		}
	}
	if _, _, err := keyring.Generate(t.Context(), clearKEK{id: strings.Repeat("k", 256)}, "s"); err == nil || !strings.Contains(err.Error(), "256 bytes") {
		t.Errorf("a KEK with an id of 256 bytes: got %v, want it refused", err)
	}
}

func TestWrappedByOfDamagedBytes(t *testing.T) {
	for name, tt := range map[string]struct {
		wrapped []byte
		want    string
	}{
		"nothing":           {nil, "0 bytes are too few"},
		"another version":   {[]byte{2, 1, 'k'}, "version 2, this program knows version 1"},
		"no id":             {[]byte{1, 0, 0, 0, 0, 0}, "cut off in the KEK id"},
		"half an id":        {[]byte{1, 9, 'k', 'e', 'k'}, "cut off in the KEK id"},
		"no keysets":        {[]byte{1, 1, 'k'}, "cut off before a keyset"},
		"a keyset too long": {[]byte{1, 1, 'k', 0, 0, 0, 9, 1}, "cut off in a keyset"},
	} {
		if _, err := keyring.WrappedBy(tt.wrapped); !errors.Is(err, keyring.ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want ErrDamaged and %q", name, err, tt.want)
		}
	}
}

func TestAnIDThatUpsetsATerminalIsCleaned(t *testing.T) {
	wrapped := append([]byte{1, 4, 'k', 0x1b, '[', 'm'}, 0, 0, 0, 1, 'x', 0, 0, 0, 1, 'x')
	if got, err := keyring.WrappedBy(wrapped); got != "k?[m" || err != nil {
		t.Errorf("got %q, %v, want k?[m", got, err)
	}
}
