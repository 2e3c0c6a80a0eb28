package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/keyring"
)

func TestRingOpensWhatItSealed(t *testing.T) {
	kek := newKEK(t)
	ring, wrapped := newRing(t, kek, "store-1")
	again, err := keyring.Unwrap(t.Context(), kek, "store-1", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"", "a refresh token"} {
		sealed, err := ring.Seal([]byte(plain), []byte("ad"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Open(sealed, []byte("ad"))
		if err != nil || string(got) != plain {
			t.Errorf("open: got %q, %v, want %q", got, err, plain)
		}
	}
}

func TestSealedBytesDifferEachTime(t *testing.T) {
	ring, _ := newRing(t, newKEK(t), "s")
	a, _ := ring.Seal([]byte("x"), nil)
	b, _ := ring.Seal([]byte("x"), nil)
	if bytes.Equal(a, b) {
		t.Error("the same plaintext sealed twice gives the same bytes")
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	ring, _ := newRing(t, newKEK(t), "s")
	sealed, err := ring.Seal([]byte("plain"), []byte("ad"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x20
		if _, err := ring.Open(bad, []byte("ad")); !errors.Is(err, keyring.ErrNotOpen) {
			t.Fatalf("byte %d flipped: got %v, want ErrNotOpen", i, err)
		}
	}
	for n := range sealed {
		if _, err := ring.Open(sealed[:n], []byte("ad")); !errors.Is(err, keyring.ErrNotOpen) {
			t.Fatalf("cut to %d bytes: got %v, want ErrNotOpen", n, err)
		}
	}
	if _, err := ring.Open(sealed, []byte("ae")); !errors.Is(err, keyring.ErrNotOpen) {
		t.Errorf("other associated data: got %v, want ErrNotOpen", err)
	}
}

func TestHashIsKeyed(t *testing.T) {
	kek := newKEK(t)
	a, wrapped := newRing(t, kek, "s")
	b, _ := newRing(t, kek, "s")
	again, err := keyring.Unwrap(t.Context(), kek, "s", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	one, two, other := hash(t, a, "token"), hash(t, again, "token"), hash(t, b, "token")
	if len(one) != keyring.HashBytes {
		t.Errorf("length: got %d, want %d", len(one), keyring.HashBytes)
	}
	if !bytes.Equal(one, two) {
		t.Error("the same ring hashes differently after it was unwrapped")
	}
	if bytes.Equal(one, other) || bytes.Equal(one, hash(t, a, "tokem")) {
		t.Error("another ring, or other data, gives the same hash")
	}
}

func TestUnwrapNamesBothKEKs(t *testing.T) {
	right, wrong := newKEK(t), newKEK(t)
	_, wrapped := newRing(t, right, "s")
	_, err := keyring.Unwrap(t.Context(), wrong, "s", wrapped)
	if !errors.Is(err, keyring.ErrWrongKey) {
		t.Fatalf("error: got %v, want ErrWrongKey", err)
	}
	want := "the store was sealed with KEK " + right.ID() + ", this is " + wrong.ID()
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error: got %q, want %q in it", err, want)
	}
	if got, err := keyring.WrappedBy(wrapped); got != right.ID() || err != nil {
		t.Errorf("wrapped by: got %q, %v, want %q", got, err, right.ID())
	}
}

func TestUnwrapRefusesAnotherStoresKeys(t *testing.T) {
	kek := newKEK(t)
	_, wrapped := newRing(t, kek, "store-1")
	if _, err := keyring.Unwrap(t.Context(), kek, "store-2", wrapped); !errors.Is(err, keyring.ErrDamaged) {
		t.Errorf("error: got %v, want ErrDamaged", err)
	}
}

func TestUnwrapRefusesEveryCut(t *testing.T) {
	kek := newKEK(t)
	_, wrapped := newRing(t, kek, "s")
	for n := range wrapped {
		if _, err := keyring.Unwrap(t.Context(), kek, "s", wrapped[:n]); !errors.Is(err, keyring.ErrDamaged) {
			t.Fatalf("cut to %d bytes: got %v, want ErrDamaged", n, err)
		}
	}
	if _, err := keyring.Unwrap(t.Context(), kek, "s", append(bytes.Clone(wrapped), 0)); !errors.Is(err, keyring.ErrDamaged) {
		t.Errorf("a byte more: got %v, want ErrDamaged", err)
	}
}

func TestNoKEK(t *testing.T) {
	if _, _, err := keyring.Generate(t.Context(), nil, "s"); err == nil || !strings.Contains(err.Error(), "configure the key file") {
		t.Errorf("generate: got %v, want what to do", err)
	}
	if _, err := keyring.Unwrap(t.Context(), nil, "s", nil); err == nil || !strings.Contains(err.Error(), "configure the key file") {
		t.Errorf("unwrap: got %v, want what to do", err)
	}
	if _, _, err := keyring.Generate(t.Context(), brokenKEK{id: ""}, "s"); err == nil {
		t.Error("a KEK without an ID was taken")
	}
}

func TestKEKErrorsComeThrough(t *testing.T) {
	down := errors.New("key service is down")
	if _, _, err := keyring.Generate(t.Context(), brokenKEK{"k", down}, "s"); err == nil || !strings.Contains(err.Error(), down.Error()) {
		t.Errorf("generate: got %v, want %v in it", err, down)
	}
}

// FuzzUnwrap feeds arbitrary wrapped bytes: an error or the ring, never a panic.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 'k', 0, 0, 0, 1, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 1, 'k', 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{2, 3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		if ring, err := keyring.Unwrap(t.Context(), brokenKEK{"k", errors.New("no")}, "s", wrapped); err == nil || ring != nil {
			t.Errorf("unwrap of %x: got %v, %v, want an error", wrapped, ring, err)
		}
	})
}

// brokenKEK fails.
type brokenKEK struct {
	id  string
	err error
}

func (k brokenKEK) ID() string                                             { return k.id }
func (k brokenKEK) Wrap(context.Context, []byte, []byte) ([]byte, error)   { return nil, k.err }
func (k brokenKEK) Unwrap(context.Context, []byte, []byte) ([]byte, error) { return nil, k.err }

func newRing(t *testing.T, kek keyring.KEK, storeID string) (*keyring.Ring, []byte) {
	t.Helper()
	ring, wrapped, err := keyring.Generate(t.Context(), kek, storeID)
	if err != nil {
		t.Fatal(err)
	}
	return ring, wrapped
}

func hash(t *testing.T, r *keyring.Ring, s string) []byte {
	t.Helper()
	h, err := r.Hash([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return h
}
