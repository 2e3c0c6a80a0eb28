package grant

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

const (
	bearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	googleHost  = "oauth2.googleapis.com"
)

// jwtBearer asks by RFC 7523 §2.1: with an assertion under the client's key, made anew for each request.
func jwtBearer() grantKind {
	return grantKind{is: tokenbroker.GrantJWTBearer, wire: bearerGrant, subjects: true, exact: isGoogle, fill: fillJWTBearer, check: checkJWTBearer}
}

func fillJWTBearer(q *query, r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	key, ok := signingKey(r)
	if !ok {
		return refuse("key_missing")
	}
	audience, failure := q.at.audience(q.at.profile.GrantAudience)
	if failure != nil {
		return failure
	}
	c := claims{}
	for name, value := range q.at.profile.AssertionClaims {
		c[name] = value
	}
	c["iss"], c["aud"] = r.Client.ClientID, audience
	google := isGoogle(pair{at: q.at, cred: r.Credential, client: &r.Client})
	switch {
	case q.asked.Subject != "":
		c["sub"] = q.asked.Subject
	case !google:
		return refuse("subject_missing") // RFC 7523 §3, point 2
	}
	if inside := q.at.profile.ScopeInAssertion; inside == nil || *inside {
		if len(q.asked.Scopes) > 0 {
			c["scope"] = strings.Join(q.asked.Scopes, " ")
		}
	} else {
		q.askScopes()
	}
	life := clientAssertion
	if google {
		life = maxAssertion
	}
	text, failure := c.timely(time.Now(), q.at.assertionLife(life)).sign(key)
	if failure != nil {
		return failure
	}
	q.form.Set("assertion", text)
	q.secrets, q.signed = append(q.secrets, text, key.Secret.Reveal()), true
	return nil
}

// signingKey returns the key that signs the assertion of a grant: the one that is being tried, or, where the client shows a secret besides,
// the newest that it has.
func signingKey(r tokenbroker.ExchangeRequest) (tokenbroker.ClientSecret, bool) {
	list := append(slices.Clone(r.Client.Secrets), r.Secret)
	for _, s := range slices.Backward(list) {
		if kindOfSecret(s) != tokenbroker.KindSecret && !s.Secret.IsZero() {
			return s, true
		}
	}
	return tokenbroker.ClientSecret{}, false
}

// isGoogle reports whether the assertion is one of a Google service account: no subject means the account itself, and the token has the
// scopes of the assertion.
func isGoogle(p pair) bool {
	return p.at.ofGoogle() || p.client != nil && p.client.Auth == tokenbroker.AuthServiceAccount && p.client.Account != ""
}

func (e *endpoint) ofGoogle() bool {
	u, err := url.Parse(e.profile.TokenEndpoint)
	return strings.HasPrefix(e.profile.Base, "google") || err == nil && u.Hostname() == googleHost
}

func checkJWTBearer(p pair) []error {
	problems := checkSigner(p, isGoogle(p))
	switch {
	case isGoogle(p):
		problems = append(problems, tokenbroker.Invalid("spec.scopes", checkGoogleScopes(p.cred.Scopes)))
	case p.cred.Subject == "":
		problems = append(problems, invalid("spec.subject",
			"a jwt_bearer grant needs whom the token acts for (RFC 7523 §3): write the user's name or id as subject, or the client id if it acts for itself"))
	}
	return problems
}

// checkGoogleScopes finds what Google answers with an error that does not say what is wrong.
func checkGoogleScopes(scopes []string) error {
	if len(scopes) == 0 {
		return errors.New("a service account's access token needs at least one scope, e.g. https://www.googleapis.com/auth/cloud-platform")
	}
	for i, s := range scopes {
		parts := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
		if len(parts) != 1 || parts[0] != s {
			return fmt.Errorf("scope %d holds a comma or a blank; write each scope as an item of its own: %q", i+1, parts)
		}
	}
	return nil
}

// checkSigner judges the keys of the client as those that sign the assertion of a grant.
func checkSigner(p pair, rs256 bool) []error {
	if p.client == nil {
		return nil
	}
	const field = "spec.oauthClient"
	keys := slices.DeleteFunc(slices.Clone(p.client.Secrets), func(s tokenbroker.ClientSecret) bool { return kindOfSecret(s) == tokenbroker.KindSecret })
	if len(keys) == 0 {
		return []error{invalid(field, "OAuth client %q has no key, which a %s grant signs with; add one, or import the key file", p.client.Name, p.cred.Grant)}
	}
	for _, k := range keys {
		switch {
		case rs256 && k.Algorithm != string(jose.RS256):
			return []error{invalid(field, "OAuth client %q has a key for %s; Google takes RS256 alone: import the service account's JSON key", p.client.Name, k.Algorithm)}
		case p.cred.Grant == tokenbroker.GrantSelfSignedJWT && k.KeyID == "":
			return []error{invalid(field, "OAuth client %q has a key without key id, which a self-signed JWT must name; add it with its private_key_id", p.client.Name)}
		}
	}
	return nil
}
