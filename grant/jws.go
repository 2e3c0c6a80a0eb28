package grant

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

const (
	backdate     = 10 * time.Second // of iat: clocks that are a little behind ours take the assertion all the same
	maxAssertion = time.Hour        // RFC 7523 sets no limit; Google's is this
)

// claims are those of a JWT (RFC 7519 §4).
type claims map[string]any

// timely adds iat, exp and an id that no other JWT has (RFC 7519 §4.1). life counts from iat.
func (c claims) timely(now time.Time, life time.Duration) claims {
	iat := now.Add(-backdate)
	c["iat"], c["exp"] = iat.Unix(), iat.Add(life).Unix()
	c["jti"] = rand.Text()
	return c
}

// sign returns the claims as a JWS in compact form (RFC 7515 §7.1) under a key of a client.
func (c claims) sign(key tokenbroker.ClientSecret) (string, *tokenbroker.Failure) {
	private, err := privateKey(key.Secret)
	if err != nil {
		return "", refuse("key_unreadable")
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if key.KeyID != "" {
		options = options.WithHeader("kid", key.KeyID)
	}
	if key.Certificate != "" {
		leaf, err := leafOf(key.Certificate)
		if err != nil {
			return "", refuse("certificate_unreadable")
		}
		sum := sha256.Sum256(leaf.Raw)
		options = options.WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	return c.seal(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: private}, options)
}

// signShared returns the claims under a client secret, by HS256.
func (c claims) signShared(secret tokenbroker.Secret) (string, *tokenbroker.Failure) {
	key := jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret.Reveal())}
	return c.seal(key, (&jose.SignerOptions{}).WithType("JWT"))
}

func (c claims) seal(key jose.SigningKey, options *jose.SignerOptions) (string, *tokenbroker.Failure) {
	signer, err := jose.NewSigner(key, options)
	if err != nil {
		return "", refuse("key_unusable")
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", refuse("claims_unusable")
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", refuse("signing_failed")
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		return "", refuse("signing_failed")
	}
	return text, nil
}

// privateKey reads a key as ParseKey writes it.
func privateKey(s tokenbroker.Secret) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(s.Reveal()))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("no private key") // what the parser says may quote the bytes
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("a key that can't sign")
	}
	return signer, nil
}

// leafOf reads the first certificate of a chain.
func leafOf(chain string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return leaf, nil
}
