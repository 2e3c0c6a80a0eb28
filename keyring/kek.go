package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	kekHeader   = "tokenbroker-kek-v1:"
	kekBytes    = 32
	kekIDBytes  = 8
	maxKEKFile  = 4 << 10
	maxKEKID    = 255
	looserModes = 0o077
)

// KEK wraps a ring's keysets: a key encryption key. Methods may be called from several goroutines at once.
type KEK interface {
	// ID names the key: 1 to 255 bytes, stable, not secret, another one for each key.
	ID() string
	// Wrap encrypts plain and binds it to ad. It keeps neither slice. ctx ends the call, where there is one to make.
	Wrap(ctx context.Context, plain, ad []byte) ([]byte, error)
	// Unwrap gives back what Wrap took, or an error if key, wrapped bytes or ad are not those of Wrap.
	Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error)
}

// fileKEK is AES-256-GCM with a random nonce. A KEK wraps a few keysets in its life, so 96 bits of nonce are plenty.
type fileKEK struct {
	id   string
	aead cipher.AEAD
}

// FileKEK reads a KEK from a file that holds one line:
//
//	tokenbroker-kek-v1:<32 bytes, standard base64>
//
// The file must be a regular file that only its owner can read. Its ID is a fingerprint of 16 hex digits that can't be
// turned back into the key.
func FileKEK(path string) (KEK, error) {
	key, err := readKEK(path)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return newFileKEK(key)
}

func newFileKEK(key []byte) (KEK, error) {
	id, err := hkdf.Key(sha256.New, key, nil, "tokenbroker kek id", kekIDBytes)
	if err != nil {
		return nil, err
	}
	wrapping, err := hkdf.Key(sha256.New, key, nil, "tokenbroker kek wrap", kekBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &fileKEK{id: hex.EncodeToString(id), aead: aead}, nil
}

// ID implements KEK.
func (k *fileKEK) ID() string { return k.id }

// Wrap implements KEK.
func (k *fileKEK) Wrap(_ context.Context, plain, ad []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, plain, ad), nil
}

// Unwrap implements KEK.
func (k *fileKEK) Unwrap(_ context.Context, wrapped, ad []byte) ([]byte, error) {
	return k.aead.Open(nil, nil, wrapped, ad)
}

func readKEK(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: make one for a new store, or put the one back that the store was sealed with", fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkKEKFile(info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKEKFile+1))
	if err != nil {
		return nil, err
	}
	return parseKEK(string(text))
}

func checkKEKFile(info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return errors.New("not a regular file: name the file that holds the key")
	case mode.Perm()&looserModes != 0:
		return fmt.Errorf("mode %04o lets others than its owner at the key: chmod 0600 it, and if others had access, make a new key", mode.Perm())
	case info.Size() == 0:
		return errors.New("is empty: put the key back from its backup; a new key can't open an existing store")
	case info.Size() > maxKEKFile:
		return fmt.Errorf("has %d bytes, which is no key file: name the file that holds the key", info.Size())
	}
	return nil
}

// parseKEK never puts what it read into an error: it may be most of a key.
func parseKEK(text string) ([]byte, error) {
	line := strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if strings.ContainsAny(line, "\r\n") {
		return nil, errors.New("has more than one line: keep the line of the key alone")
	}
	encoded, ok := strings.CutPrefix(line, kekHeader)
	if !ok {
		return nil, fmt.Errorf("does not begin with %q: name the file that holds the key", kekHeader)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the key is not base64: put the file back from its backup")
	}
	if len(key) != kekBytes {
		return nil, fmt.Errorf("the key has %d bytes instead of %d: put the file back from its backup", len(key), kekBytes)
	}
	return key, nil
}

// GenerateFileKEK makes a new random KEK in a new file of mode 0600, durable on return. It refuses a path that exists: a
// key that is overwritten takes every record sealed under it along.
func GenerateFileKEK(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("key file %s: %w: use it, or choose another path", path, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("make key file: %w", err)
	}
	if err := writeKEK(f); err != nil {
		return errors.Join(fmt.Errorf("write key file %s: %w", path, err), os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}

func writeKEK(f *os.File) error {
	key := make([]byte, kekBytes)
	_, _ = rand.Read(key) // never fails
	_, err := f.WriteString(kekHeader + base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a new name in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
