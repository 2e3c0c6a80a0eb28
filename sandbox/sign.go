package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const keyBits = 2048

// signingKey is the key of an issuer. It is made when it is first needed, since that takes a while.
type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

func newSigningKey() signingKey {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic("sandbox: make a key: " + err.Error()) // never, with this reader and size
	}
	return signingKey{id: "sandbox-" + rand.Text()[:8], private: private}
}

// key returns the key that signs, which is the newest.
func (i *issuer) key() signingKey {
	if len(i.keys) == 0 {
		i.keys = append(i.keys, newSigningKey())
	}
	return i.keys[len(i.keys)-1]
}

// RotateKey makes an issuer sign with a new key. The old one stays in jwks, unless drop says that it is gone at once.
func (s *Server) RotateKey(issuer string, drop bool) {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.key(); drop {
		i.keys = nil
	}
	i.keys = append(i.keys, newSigningKey())
}

// sign makes a JWT with RS256.
func (i *issuer) sign(typ string, body map[string]any) string {
	k := i.key()
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader(jose.HeaderKey("kid"), k.id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: k.private}, options)
	if err != nil {
		panic("sandbox: signer: " + err.Error())
	}
	token, err := jwt.Signed(signer).Claims(body).Serialize()
	if err != nil {
		panic("sandbox: sign: " + err.Error())
	}
	return token
}

// signAccess makes an access token as RFC 9068 has it.
func (v *visit) signAccess(g grantee, id string, expiry time.Time) string {
	audience := g.audience
	if len(audience) == 0 {
		audience = []string{v.base() + "/" + string(EndpointResource)}
	}
	return v.issuer.sign("at+jwt", map[string]any{
		"iss": v.base(), "sub": g.subject(), "aud": audience, "client_id": g.client.ID, "scope": strings.Join(g.scopes, " "),
		"iat": v.now.Unix(), "exp": expiry.Unix(), "jti": id,
	})
}

// signID makes an id_token (OpenID Connect Core §2).
func (v *visit) signID(g grantee, nonce, accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	body := map[string]any{
		"iss": v.base(), "sub": g.subject(), "aud": g.client.ID, "iat": v.now.Unix(), "exp": v.now.Add(v.life()).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
	}
	if nonce != "" {
		body["nonce"] = nonce
	}
	g.account.describe(body)
	return v.issuer.sign("JWT", body)
}

// describe adds what is known of an account, nil = nothing.
func (a *Account) describe(body map[string]any) {
	if a == nil {
		return
	}
	body["email"], body["email_verified"] = a.Email, true
	if a.Name != "" {
		body["name"] = a.Name
	}
}

// serveJWKS publishes the keys (RFC 7517).
func serveJWKS(v *visit) answer {
	v.issuer.key()
	var set jose.JSONWebKeySet
	for _, k := range v.issuer.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &k.private.PublicKey, KeyID: k.id, Algorithm: string(jose.RS256), Use: "sig"})
	}
	return jsonAnswer(http.StatusOK, set)
}
