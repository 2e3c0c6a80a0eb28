package grant

import (
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"net/url"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	clientAssertion = 5 * time.Minute // the most that the assertion of a client lives
	minShared       = 32              // bytes of a secret that HS256 takes (RFC 7518 §3.2)
	assertionType   = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	audienceToken   = "token_endpoint"
	audienceIssuer  = "issuer"
)

// identify adds a client's identity to a call in the one way that is configured (RFC 6749 §2.3).
func (q *call) identify(client tokenbroker.OAuthClient, secret tokenbroker.ClientSecret) *tokenbroker.Failure {
	switch {
	case client.ClientID == "":
		return refuse("client_id_missing")
	case !slices.Contains(q.at.profile.AuthMethods, client.Auth):
		return refuse("auth_method_not_allowed")
	case client.Auth.Public():
		q.form.Set("client_id", client.ClientID)
		return nil
	case secret.Secret.IsZero():
		return refuse("client_secret_missing")
	case !fits(client.Auth, kindOfSecret(secret)):
		return refuse("wrong_kind_of_secret")
	}
	q.secrets = append(q.secrets, secret.Secret.Reveal())
	return q.show(client, secret)
}

// show adds what a confidential client has to show.
func (q *call) show(client tokenbroker.OAuthClient, secret tokenbroker.ClientSecret) *tokenbroker.Failure {
	id := client.ClientID
	switch client.Auth {
	case tokenbroker.AuthClientSecretBasic:
		q.header.Set("Authorization", "Basic "+q.basic(id, secret.Secret))
	case tokenbroker.AuthClientSecretPost:
		q.form.Set("client_id", id)
		q.form.Set("client_secret", secret.Secret.Reveal())
	case tokenbroker.AuthClientSecretJWT, tokenbroker.AuthPrivateKeyJWT:
		return q.assert(id, client.Auth, secret)
	case tokenbroker.AuthTLSClientAuth:
		cert, err := tls.X509KeyPair([]byte(secret.Certificate), []byte(secret.Secret.Reveal()))
		if err != nil {
			return refuse("certificate_unreadable")
		}
		q.cert = &cert
		q.form.Set("client_id", id) // RFC 8705 §2
	case tokenbroker.AuthServiceAccount, tokenbroker.AuthNone:
		// The assertion of the grant says who asks.
	}
	return nil
}

// assert adds a client assertion (RFC 7523 §2.2), made for this call alone. client_id goes with it: it is optional, and some servers want it.
func (q *call) assert(id string, method tokenbroker.AuthMethod, secret tokenbroker.ClientSecret) *tokenbroker.Failure {
	audience, failure := q.at.audience(q.at.profile.AssertionAudience)
	if failure != nil {
		return failure
	}
	life := min(q.at.assertionLife(clientAssertion), clientAssertion)
	c := claims{"iss": id, "sub": id, "aud": audience}.timely(time.Now(), life)
	var text string
	if method == tokenbroker.AuthClientSecretJWT {
		if len(secret.Secret.Reveal()) < minShared {
			return refuse("client_secret_too_short")
		}
		text, failure = c.signShared(secret.Secret)
	} else {
		text, failure = c.sign(secret)
	}
	if failure != nil {
		return failure
	}
	q.form.Set("client_id", id)
	q.form.Set("client_assertion_type", assertionType)
	q.form.Set("client_assertion", text)
	q.secrets, q.signed = append(q.secrets, text), true
	return nil
}

// audience returns the aud that a rule of the profile names.
func (e *endpoint) audience(rule string) (string, *tokenbroker.Failure) {
	switch rule {
	case "", audienceToken:
		return e.profile.TokenEndpoint, nil
	case audienceIssuer:
		if e.profile.Issuer == "" {
			return "", refuse("issuer_not_configured")
		}
		return e.profile.Issuer, nil
	}
	return rule, nil
}

// assertionLife is the life of assertions by the profile, or else the one given.
func (e *endpoint) assertionLife(otherwise time.Duration) time.Duration {
	if d := e.profile.AssertionLife; d != nil && *d > 0 {
		return min(time.Duration(*d), maxAssertion)
	}
	return otherwise
}

// fits reports whether a method can do something with a kind of secret. A certificate brings its key.
func fits(m tokenbroker.AuthMethod, kind tokenbroker.SecretKind) bool {
	return m.Kind() == kind || m.Kind() == tokenbroker.KindKey && kind == tokenbroker.KindCertificate
}

func kindOfSecret(s tokenbroker.ClientSecret) tokenbroker.SecretKind {
	return cmp.Or(s.Kind, tokenbroker.KindSecret)
}

func (q *call) basic(id string, secret tokenbroker.Secret) string {
	encode := url.QueryEscape // application/x-www-form-urlencoded, RFC 6749 appendix B
	if raw := q.at.profile.RawBasic; raw != nil && *raw {
		encode = func(s string) string { return s }
	}
	return base64.StdEncoding.EncodeToString([]byte(encode(id) + ":" + encode(secret.Reveal())))
}
