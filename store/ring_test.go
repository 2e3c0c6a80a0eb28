package store

import (
	"path/filepath"
	"testing"

	"github.com/tokenbroker/tokenbroker/keyring"
)

func testRing(t *testing.T) *keyring.Ring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := keyring.GenerateFileKEK(path); err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	ring, _, err := keyring.Generate(t.Context(), kek, "s")
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
