package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tokenbroker/tokenbroker/keyring"
)

func Example() {
	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	// Once, with the store: a key file, and a ring of keys that it wraps. Only the wrapped form is kept.
	path := filepath.Join(dir, "kek")
	if err := keyring.GenerateFileKEK(path); err != nil {
		panic(err)
	}
	kek, err := keyring.FileKEK(path)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	_, wrapped, err := keyring.Generate(ctx, kek, "store-1")
	if err != nil {
		panic(err)
	}

	// At each start.
	ring, err := keyring.Unwrap(ctx, kek, "store-1", wrapped)
	if err != nil {
		panic(err)
	}
	sealed, err := ring.Seal([]byte("a refresh token"), []byte("grant google/reports"))
	if err != nil {
		panic(err)
	}
	plain, err := ring.Open(sealed, []byte("grant google/reports"))
	fmt.Println(string(plain), err)
	_, err = ring.Open(sealed, []byte("grant google/drive"))
	fmt.Println(errors.Is(err, keyring.ErrNotOpen))
	// Output:
	// a refresh token <nil>
	// true
}
