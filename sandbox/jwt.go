package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// claims are what the sandbox looks at in a JWT that somebody brings.
type claims struct {
	jwt.Claims
	Scope string `json:"scope"`
}

// assertion is a JWT that nothing has been verified of but its form.
type assertion struct {
	claims
	algorithm jose.SignatureAlgorithm
	keyID     string
	signed    *jose.JSONWebSignature
}

// every lists what the sandbox can verify; what may be used where is decided later.
func every() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.HS256, jose.HS384, jose.HS512}
}

// algorithms are those that a public key can verify, nil for a key of another kind.
func algorithms(public crypto.PublicKey) []jose.SignatureAlgorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.RS384, jose.PS384, jose.RS512, jose.PS512}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

var errNoJWT = errors.New("not a signed JWT in compact form")

func readAssertion(s string) (assertion, error) {
	signed, err := jose.ParseSignedCompact(s, every())
	if err != nil || len(signed.Signatures) != 1 {
		return assertion{}, errNoJWT
	}
	h := signed.Signatures[0].Protected
	a := assertion{algorithm: jose.SignatureAlgorithm(h.Algorithm), keyID: h.KeyID, signed: signed}
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &a.claims); err != nil {
		return assertion{}, errNoJWT
	}
	if typ, ok := h.ExtraHeaders[jose.HeaderType].(string); ok && !strings.EqualFold(typ, "JWT") {
		return assertion{}, errNoJWT
	}
	return a, nil
}

// verify checks the signature. A kid must be that of a key; without one each key is tried.
func (a assertion) verify(keys []Key) bool {
	for _, k := range keys {
		if a.keyID != "" && a.keyID != k.ID {
			continue
		}
		if _, err := a.signed.Verify(k.Public); err == nil {
			return true
		}
	}
	return false
}

// verifySecret checks an HMAC.
func (a assertion) verifySecret(secrets [][]byte) bool {
	for _, s := range secrets {
		if _, err := a.signed.Verify(s); err == nil {
			return true
		}
	}
	return false
}

// maxAssertionLife is how long an assertion may live.
const maxAssertionLife = time.Hour

// within reports whether now is before exp, which there must be and which must be near, and not before nbf or iat. The
// leeway is for the clock of the signer being ahead; one that is behind has made its exp too early, which it notices.
func (a assertion) within(now time.Time, leeway time.Duration) bool {
	if a.Expiry == nil || !now.Before(a.Expiry.Time()) || a.Expiry.Time().After(now.Add(maxAssertionLife+leeway)) {
		return false
	}
	for _, start := range []*jwt.NumericDate{a.NotBefore, a.IssuedAt} {
		if start != nil && start.Time().After(now.Add(leeway)) {
			return false
		}
	}
	return true
}

// only reports whether an assertion is for one of the audiences and for nobody else.
func (a assertion) only(audiences ...string) bool {
	for _, want := range audiences {
		if len(a.Audience) == 1 && a.Audience[0] == want {
			return true
		}
	}
	return false
}

// seen remembers the jti of assertions until they have expired.
type seen map[string]time.Time

// first reports whether an id is new.
func (s seen) first(id string, until, now time.Time) bool {
	for old, end := range s {
		if !now.Before(end) {
			delete(s, old)
		}
	}
	if _, again := s[id]; again {
		return false
	}
	s[id] = until
	return true
}

// fresh reports whether the jti of a client's assertion was not used yet, and uses it up.
func (i *issuer) fresh(c *client, a assertion, now time.Time) bool {
	if i.used[c] == nil {
		i.used[c] = seen{}
	}
	return i.used[c].first(a.ID, a.Expiry.Time(), now)
}
