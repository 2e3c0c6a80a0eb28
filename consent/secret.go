package consent

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// random is 256 random bits, fit for a URL, a cookie and a PKCE verifier (RFC 7636 §4.1).
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newID names a consent. It is no capability.
func newID() string { return strings.ToLower(rand.Text()) }

// handle is what names a consent and proves that its bearer may: the id, a dot, and a secret. States and links are handles.
func handle(id, secret string) tokenbroker.Secret { return tokenbroker.NewSecret(id + "." + secret) }

// split takes a handle apart; both parts are "" if it is none.
func split(h string) (id, secret string) {
	id, secret, ok := strings.Cut(h, ".")
	if !ok || len(h) > 256 {
		return "", ""
	}
	return id, secret
}

func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// proves reports, in constant time, whether a secret is the one that was hashed.
func proves(secret string, sum []byte) bool {
	return len(sum) > 0 && secret != "" && subtle.ConstantTimeCompare(digest(secret), sum) == 1
}
