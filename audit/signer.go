package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Signer signs checkpoints with an Ed25519 key (RFC 8032).
type Signer struct {
	key ed25519.PrivateKey
	id  string
}

// NewSigner returns a signer for a key.
func NewSigner(key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("audit signing key is no Ed25519 key")
	}
	return &Signer{key, KeyID(ed25519.PublicKey(key[32:]))}, nil
}

// OpenSigner reads a private key from a PEM file (PKCS #8). If there is none at path, it makes a key, with mode 0600. Where the public
// key is not beside it, with the extension .pub, it is put there, for those who verify. A file that others may read is refused.
func OpenSigner(path string) (*Signer, error) {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKey(path); err != nil {
			return nil, fmt.Errorf("make the audit signing key: %w", err)
		}
		data, err = readPrivate(path)
	}
	if err != nil {
		return nil, err
	}
	s, err := parseSigner(data)
	if err != nil {
		return nil, fmt.Errorf("audit signing key %s: %w", path, err)
	}
	public := strings.TrimSuffix(path, filepath.Ext(path)) + ".pub"
	if _, err := os.Stat(public); errors.Is(err, fs.ErrNotExist) && public != path {
		return s, putFile(public, s.PublicPEM(), 0o644)
	}
	return s, nil
}

// CheckSigner says why OpenSigner would refuse the file at path, and touches nothing. That there is none is no error.
func CheckSigner(path string) error {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := parseSigner(data); err != nil {
		return fmt.Errorf("audit signing key %s: %w", path, err)
	}
	return nil
}

// readPrivate reads a file that is for its owner alone.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("audit signing key %s may be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

func parseSigner(data []byte) (*Signer, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("it is not one private key in PEM (PKCS #8)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is not a private key in PKCS #8")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an Ed25519 key")
	}
	return NewSigner(private)
}

func createKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	return putFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// putFile makes a file that is there as a whole or not at all.
func putFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is not there any more if all went well
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// KeyID returns the id of the signer's key; see the function of that name.
func (s *Signer) KeyID() string { return s.id }

// PublicPEM returns the public key in PEM, for [ParsePublicKeys].
func (s *Signer) PublicPEM() []byte {
	der, _ := x509.MarshalPKIXPublicKey(s.key.Public()) // of an Ed25519 key it does not fail
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Format keeps the key out of whatever prints a signer.
func (s *Signer) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "audit signer "+s.id) }

// KeyID returns the id of a public key: the first 8 bytes of the SHA-256 of its 32 bytes, in hex.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// ParsePublicKeys reads public keys in PEM, one behind the other: after the broker's key was changed, put the new one to the old.
func ParsePublicKeys(data []byte) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for {
		block, rest := pem.Decode(data)
		if block == nil && len(strings.TrimSpace(string(data))) == 0 && len(all) > 0 {
			return all, nil
		}
		if block == nil || block.Type != "PUBLIC KEY" {
			return nil, errors.New("not a public key in PEM")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("not an Ed25519 public key")
		}
		all, data = append(all, public), rest
	}
}

// sign makes the checkpoint that is the line with number seq, behind the line with that hash.
func (s *Signer) sign(trail string, seq uint64, head Hash, at time.Time, store uint64) *Checkpoint {
	c := &Checkpoint{Head: head, Store: store, Key: s.id}
	c.Signature = ed25519.Sign(s.key, c.statement(trail, seq, at))
	return c
}

// Signed reports whether an entry is a checkpoint that one of the keys signed.
func (e *Entry) Signed(keys []ed25519.PublicKey) bool {
	if e.Checkpoint == nil {
		return false
	}
	for _, key := range keys {
		if KeyID(key) == e.Checkpoint.Key {
			return ed25519.Verify(key, e.Checkpoint.statement(e.Trail, e.Seq, e.Time), e.Checkpoint.Signature)
		}
	}
	return false
}
