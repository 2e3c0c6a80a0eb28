package sandbox

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// formEncoded is what the form encoding leaves of a string: anything else must be a percent escape. Encoders differ about
// '*' and '~', so both pass.
var formEncoded = regexp.MustCompile(`^(?:[A-Za-z0-9*~._+-]|%[0-9A-Fa-f]{2})*$`)

// assertionType is the client_assertion_type of RFC 7523 §2.2.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// claim is who a request says it is from.
type claim struct {
	method    AuthMethod
	id        string
	secret    string
	assertion assertion
}

// authenticate finds the client (RFC 6749 §2.3) and insists on the method it is registered with.
func (v *visit) authenticate() (*client, *oauthError) {
	who, e := v.claim()
	if e != nil {
		return nil, e
	}
	c := v.issuer.clients[who.id]
	if c == nil {
		return nil, v.unauthorized(wrongClient)
	}
	if why := v.doubt(c, who); why != "" {
		return nil, v.unauthorized(why)
	}
	return c, nil
}

const wrongClient = "unknown client, wrong secret or wrong authentication method"

// doubt says why a claim does not hold, "" if it does.
func (v *visit) doubt(c *client, who claim) string {
	if c.Auth == AuthTLS || c.Auth == AuthSelfSignedTLS {
		return v.doubtTLS(c, who)
	}
	if c.Auth != who.method {
		return wrongClient
	}
	switch c.Auth {
	case AuthBasic, AuthPost:
		if !c.accepts(who.secret) {
			return wrongClient
		}
	case AuthSecretJWT, AuthPrivateKeyJWT:
		return v.doubtAssertion(c, who.assertion)
	case AuthNone, AuthTLS, AuthSelfSignedTLS:
	}
	return ""
}

// accepts compares digests, all of them, so that the time taken tells nothing.
func (c *client) accepts(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	ok := 0
	for _, s := range c.secrets {
		ok |= subtle.ConstantTimeCompare(s[:], sum[:])
	}
	return ok == 1
}

func (v *visit) claim() (claim, *oauthError) {
	id, secret, headers := v.form.get("client_id"), v.form.get("client_secret"), v.request.Header.Values("Authorization")
	asserted := v.form.get("client_assertion") + v.form.get("client_assertion_type")
	who, e := claim{method: AuthNone, id: id}, (*oauthError)(nil)
	switch {
	case len(headers) > 1:
		return claim{}, badRequest("invalid_request", "more than one Authorization header")
	case len(headers) == 1 && secret+asserted != "" || secret != "" && asserted != "":
		return claim{}, badRequest("invalid_request", "more than one authentication method (RFC 6749 §2.3)")
	case len(headers) == 1:
		var ok bool
		if who, ok = readBasic(headers[0]); !ok {
			e = v.unauthorized(wrongClient)
		}
	case asserted != "":
		who, e = v.asserted()
	case secret != "":
		who = claim{method: AuthPost, id: id, secret: secret}
	}
	if e == nil && id != "" && id != who.id {
		e = badRequest("invalid_request", "client_id differs from the one that the client authenticates with")
	}
	return who, e
}

// unauthorized is invalid_client. Only an attempt by Authorization header gets 401, which must name the scheme to use
// (RFC 6749 §5.2).
func (v *visit) unauthorized(why string) *oauthError {
	e := badRequest("invalid_client", why)
	if v.request.Header.Get("Authorization") != "" {
		e.status = http.StatusUnauthorized
		e.header.Set("WWW-Authenticate", fmt.Sprintf(`Basic realm=%q`, v.issuer.Name))
	}
	return e
}

// readBasic reads the id and secret of a Basic header, both of which must be form-encoded (RFC 6749 §2.3.1).
func readBasic(header string) (claim, bool) {
	scheme, payload, _ := strings.Cut(header, " ")
	raw, err := base64.StdEncoding.Strict().DecodeString(payload)
	if !strings.EqualFold(scheme, "Basic") || err != nil {
		return claim{}, false
	}
	id, secret, found := strings.Cut(string(raw), ":")
	id, idOK := formDecode(id)
	secret, secretOK := formDecode(secret)
	return claim{method: AuthBasic, id: id, secret: secret}, found && idOK && secretOK
}

func formDecode(s string) (string, bool) {
	decoded, err := url.QueryUnescape(s)
	return decoded, err == nil && formEncoded.MatchString(s)
}
