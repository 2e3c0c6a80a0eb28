package grant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxKeyText = 64 << 10
	maxKeyID   = 256
	minRSA     = 2048
	maxRSA     = 8192 // a larger one takes seconds to sign
)

// keyFile is what was found in a text.
type keyFile struct {
	key       crypto.Signer
	algorithm string // the key's own wish; "" = none
	keyID     string
	chain     []*x509.Certificate
	clientID  string
	account   string
	tokenURI  string
}

// ParseKey reads a private key in PEM (PKCS#8, PKCS#1, SEC1), as a JWK or a set of one, or in the key file of a provider (Google, Box). Line
// breaks that became "\n" or blanks on their way are taken for what they were. What can't be used is refused with a Problem that says
// what it is and what to do, and quotes nothing of it.
func (c *Client) ParseKey(k tokenbroker.NewKey) (tokenbroker.ParsedKey, error) {
	file, err := readKey(k.Text.Reveal())
	if err != nil {
		return tokenbroker.ParsedKey{}, tokenbroker.Invalid("privateKey", err)
	}
	if k.KeyID != "" {
		file.keyID = k.KeyID
	}
	if len(file.keyID) > maxKeyID || !printable(file.keyID) {
		return tokenbroker.ParsedKey{}, invalid("keyId", "key id must be at most %d characters of printable ASCII", maxKeyID)
	}
	if k.Certificate != "" {
		if file.chain, err = readChain(k.Certificate); err != nil {
			return tokenbroker.ParsedKey{}, tokenbroker.Invalid("certificate", err)
		}
	}
	if err := checkChain(file.chain, file.key, time.Now()); err != nil {
		return tokenbroker.ParsedKey{}, tokenbroker.Invalid("certificate", err)
	}
	if k.Provider != "" {
		if err := c.CheckTokenURI(k.Provider, file.tokenURI); err != nil {
			return tokenbroker.ParsedKey{}, err
		}
	}
	secret, err := file.secret()
	if err != nil {
		return tokenbroker.ParsedKey{}, tokenbroker.Invalid("privateKey", err)
	}
	return tokenbroker.ParsedKey{Secret: secret, ClientID: file.clientID, Account: file.account, TokenURI: file.tokenURI}, nil
}

// readKey reads a key in any of the forms.
func readKey(text string) (keyFile, error) {
	if len(text) > maxKeyText {
		return keyFile{}, fmt.Errorf("key has %d bytes, at most %d are allowed", len(text), maxKeyText)
	}
	text = strings.Trim(strings.TrimPrefix(text, "\ufeff"), " \t\r\n\"'")
	switch {
	case text == "":
		return keyFile{}, errors.New("key is empty")
	case strings.HasPrefix(text, "{"):
		return readKeyJSON(text)
	case strings.Contains(text, "-----BEGIN "):
		return readKeyPEM(text)
	case strings.HasPrefix(text, "ssh-"), strings.HasPrefix(text, "ecdsa-sha2-"):
		return keyFile{}, errors.New("this is a public key of SSH; give the private key, in PEM")
	case strings.HasPrefix(text, "eyJ"):
		return keyFile{}, errors.New("this is a token (JWT), not a key; give the private key that signs, in PEM, as a JWK or as the provider's JSON file")
	case strings.HasPrefix(text, "0\x82"):
		return keyFile{}, errors.New("this is a binary (DER or PKCS#12) file; convert it to PEM: openssl pkey -inform DER -in FILE, or openssl pkcs12 -nodes -in FILE")
	}
	return keyFile{}, errors.New("this is no private key: neither PEM (-----BEGIN PRIVATE KEY-----) nor JSON (a JWK or a provider's key file); give the whole file")
}

// secret checks the key's strength and writes it in the one form that is kept.
func (f keyFile) secret() (tokenbroker.ClientSecret, error) {
	algorithm, err := algorithmOf(f.key)
	if err != nil {
		return tokenbroker.ClientSecret{}, err
	}
	if f.algorithm != "" {
		if algorithm, err = wished(f.algorithm, algorithm); err != nil {
			return tokenbroker.ClientSecret{}, err
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(f.key)
	if err != nil {
		return tokenbroker.ClientSecret{}, errors.New("the key can't be written as PKCS#8")
	}
	thumb, err := (&jose.JSONWebKey{Key: f.key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return tokenbroker.ClientSecret{}, errors.New("the key has no thumbprint (RFC 7638)")
	}
	s := tokenbroker.ClientSecret{
		Kind:        tokenbroker.KindKey,
		Secret:      tokenbroker.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))),
		Fingerprint: base64.RawURLEncoding.EncodeToString(thumb),
		KeyID:       f.keyID,
		Algorithm:   algorithm,
	}
	if len(f.chain) > 0 {
		s.Kind, s.Certificate, s.Expiry = tokenbroker.KindCertificate, writeChain(f.chain), f.chain[0].NotAfter
	}
	return s, nil
}

// algorithmOf returns the JWS algorithm of a key (RFC 7518 §3.1, RFC 8037), or why it is of no use.
func algorithmOf(key crypto.Signer) (string, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		switch bits := k.N.BitLen(); {
		case bits < minRSA:
			return "", fmt.Errorf("an RSA key of %d bits is too weak; make one of %d or more", bits, minRSA)
		case bits > maxRSA:
			return "", fmt.Errorf("an RSA key of %d bits is too large; make one of %d to %d", bits, minRSA, maxRSA)
		}
		if err := k.Validate(); err != nil {
			return "", errors.New("the RSA key is damaged: its numbers do not fit together; make or download it anew")
		}
		return string(jose.RS256), nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return string(jose.ES256), nil
		case elliptic.P384():
			return string(jose.ES384), nil
		case elliptic.P521():
			return string(jose.ES512), nil
		}
		return "", errors.New("the curve of this EC key can't sign a JWT; make a key on P-256, P-384 or P-521")
	case ed25519.PrivateKey:
		return string(jose.EdDSA), nil
	}
	return "", errors.New("this kind of key can't sign a JWT; make an RSA, EC (P-256, P-384, P-521) or Ed25519 key")
}

// wished returns the algorithm that a key says it is for, if it can do that.
func wished(wish, natural string) (string, error) {
	if wish == natural || natural == string(jose.RS256) && slices.Contains([]string{"RS384", "RS512", "PS256", "PS384", "PS512"}, wish) {
		return wish, nil
	}
	return "", fmt.Errorf("the key's alg is not one that a key of its kind can sign with; drop alg, or make it %s", natural)
}
