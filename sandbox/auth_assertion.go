package sandbox

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// asserted is the claim of a request with a client_assertion.
func (v *visit) asserted() (claim, *oauthError) {
	if v.form.get("client_assertion_type") != assertionType {
		return claim{}, badRequest("invalid_request", "client_assertion_type is not "+assertionType)
	}
	a, err := readAssertion(v.form.get("client_assertion"))
	if err != nil {
		return claim{}, v.unauthorized("client_assertion is " + err.Error())
	}
	method := AuthPrivateKeyJWT
	if a.symmetric() {
		method = AuthSecretJWT
	}
	return claim{method: method, id: a.Subject, assertion: a}, nil
}

func (a assertion) symmetric() bool {
	return a.algorithm == jose.HS256 || a.algorithm == jose.HS384 || a.algorithm == jose.HS512
}

// doubtAssertion says why a client's assertion (RFC 7523 §3) does not hold, "" if it does. Its jti is then used up.
func (v *visit) doubtAssertion(c *client, a assertion) string {
	switch {
	case a.Issuer != c.ID:
		return "the assertion's iss is not the client"
	case !a.only(v.clientAudiences()...):
		return "the assertion's aud is not " + strings.Join(v.clientAudiences(), " or ")
	case !a.within(v.now, v.issuer.Leeway):
		return "the assertion has no exp, has expired, lives longer than an hour or is not valid yet"
	case a.ID == "":
		return "the assertion has no jti"
	case c.Auth == AuthSecretJWT && !a.verifySecret(c.hmac), c.Auth == AuthPrivateKeyJWT && !a.verify(c.Keys):
		return "the assertion's signature is not by a registered key"
	case !v.issuer.fresh(c, a, v.now):
		return "the assertion's jti was used before"
	}
	return ""
}

// clientAudiences are the values that the aud of a client's assertion may have.
func (v *visit) clientAudiences() []string {
	switch v.issuer.ClientAudience {
	case AudienceIssuer:
		return []string{v.base()}
	case AudienceEither:
		return []string{v.url(EndpointToken), v.base()}
	case AudienceToken:
	}
	return []string{v.url(EndpointToken)}
}

// doubtTLS compares the certificate that the client showed (RFC 8705 §2). Whether it was verified is for the listener.
func (v *visit) doubtTLS(c *client, who claim) string {
	switch {
	case who.method != AuthNone:
		return wrongClient
	case len(v.peers) == 0:
		return "the client showed no certificate"
	case c.Auth == AuthTLS && v.peers[0].Subject.String() != c.TLSSubject:
		return "the certificate's subject is not the registered one"
	case c.Auth == AuthSelfSignedTLS && !strings.EqualFold(SPKIThumbprint(v.peers[0]), c.TLSThumbprint):
		return "the certificate's key is not the registered one"
	case v.now.Before(v.peers[0].NotBefore) || v.now.After(v.peers[0].NotAfter):
		return "the certificate has expired or is not valid yet"
	}
	return ""
}

// SPKIThumbprint is the SHA-256 of a certificate's public key in hex, for [Client.TLSThumbprint].
func SPKIThumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
