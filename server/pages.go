package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/tokenbroker/tokenbroker"
)

// pageSeal makes page tokens for lists of what is numbered, by which nobody can ask for what is behind a number of their own choice. A token is
// of one caller, and of one process: whoever pages over a restart begins again.
type pageSeal struct{ aead cipher.AEAD }

func newPageSeal() *pageSeal {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	block, err := aes.NewCipher(key[:])
	if err == nil {
		if aead, err := cipher.NewGCMWithRandomNonce(block); err == nil {
			return &pageSeal{aead}
		}
	}
	panic("server: AES-256-GCM is not there") // the key has its length
}

// token is for going on from a number.
func (p *pageSeal) token(identity string, after uint64) string {
	return base64.RawURLEncoding.EncodeToString(p.aead.Seal(nil, nil, binary.BigEndian.AppendUint64(nil, after), []byte(identity)))
}

// after is the number of a token; 0 for none.
func (p *pageSeal) after(identity, token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		if sealed, err = p.aead.Open(nil, nil, sealed, []byte(identity)); err == nil && len(sealed) == 8 {
			return binary.BigEndian.Uint64(sealed), nil
		}
	}
	return 0, tokenbroker.Invalid("pageToken", errors.New("is none that this list gave this identity since the broker started; begin again without one"))
}
