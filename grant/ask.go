package grant

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// grantKind is what differs from grant to grant.
type grantKind struct {
	is        tokenbroker.GrantType
	wire      string // grant_type of the standard; "" = no form is sent
	public    bool   // a client without a secret may use it
	refreshes bool   // sends a refresh token
	subjects  bool   // whom the token acts for can be named
	anonymous func(*endpoint) bool
	exact     func(pair) bool    // the token has the scopes that were asked for and no other, though the reply may not say so; nil = never
	check     func(pair) []error // what an operator has to hear of this grant alone; nil = nothing
	fill      func(*query, tokenbroker.ExchangeRequest) *tokenbroker.Failure
	// mint gets a token by other means than one request to the token endpoint. In place of fill.
	mint func(context.Context, *Client, *query, tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error)
}

// pair is a credential with its OAuth client at a provider.
type pair struct {
	at     *endpoint
	cred   tokenbroker.Credential
	client *tokenbroker.OAuthClient // nil = there is none
}

// grantTypes are the grants that this package knows.
func grantTypes() []tokenbroker.GrantType {
	return []tokenbroker.GrantType{
		tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode, tokenbroker.GrantRefreshToken, tokenbroker.GrantClientCredentials,
		tokenbroker.GrantJWTBearer, tokenbroker.GrantSelfSignedJWT, tokenbroker.GrantTokenExchange, tokenbroker.GrantGoogleADC,
		tokenbroker.GrantStatic, tokenbroker.GrantPassword,
	}
}

// kindOf returns the grants that this package knows.
func kindOf(t tokenbroker.GrantType) (grantKind, bool) {
	switch t {
	case tokenbroker.GrantClientCredentials:
		return clientCredentials(), true
	case tokenbroker.GrantRefreshToken, tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode:
		return refreshToken(), true
	case tokenbroker.GrantJWTBearer:
		return jwtBearer(), true
	case tokenbroker.GrantSelfSignedJWT:
		return selfSignedJWT(), true
	case tokenbroker.GrantTokenExchange:
		return tokenExchange(), true
	case tokenbroker.GrantGoogleADC:
		return googleADC(), true
	case tokenbroker.GrantStatic:
		return static(), true
	case tokenbroker.GrantPassword:
		return password(), true
	}
	return grantKind{}, false
}

// newForm starts a form with the profile's own fields, so that those of the protocol win over them.
func (e *endpoint) newForm() url.Values {
	form := url.Values{}
	for name, value := range e.profile.TokenParams {
		form.Set(name, value)
	}
	return form
}

func (e *endpoint) newHeader() http.Header {
	h := http.Header{
		"Content-Type":    {"application/x-www-form-urlencoded"},
		"Accept-Encoding": {"identity"},
		"User-Agent":      {"tokenbroker"},
	}
	if e.profile.Accept != "" {
		h.Set("Accept", e.profile.Accept)
	}
	return h
}

// askVariant checks the scopes and writes the audience. Scopes beyond the grant are never asked for: no caller may widen
// what an operator set up.
func (q *query) askVariant(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	granted := r.Credential.Scopes
	beyond := func(s string) bool { return !slices.Contains(granted, s) }
	switch {
	case q.asked.Subject != "" && !q.grant.subjects:
		return refuse("subject_not_supported")
	case len(granted) > 0 && slices.ContainsFunc(q.asked.Scopes, beyond):
		return refuse("invalid_scope")
	case q.narrower && !q.exact && !q.at.traits.Downscopes:
		return refuse("downscope_not_supported")
	}
	for name, value := range r.Credential.Parameters {
		if isProtocolField(name) {
			return refuse("parameter_not_allowed")
		}
		q.form.Set(name, value)
	}
	q.askTargets(q.asked.Audience, r.Credential)
	return nil
}

// askTargets says whom the token is for: the audience, and the credential's resource indicators (RFC 8707 §2), each once.
func (q *query) askTargets(audience string, cred tokenbroker.Credential) {
	if audience != "" {
		q.form.Set(q.at.profile.AudienceParameter, audience)
	}
	for _, uri := range cred.Resources {
		if !slices.Contains(q.form[fieldResource], uri) {
			q.form.Add(fieldResource, uri)
		}
	}
}

func (q *query) askGrant(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	q.askAs(q.grant)
	return q.grant.fill(q, r)
}

// askAs writes the grant's name: the standard's, unless the server has another.
func (q *query) askAs(kind grantKind) {
	q.form.Set("grant_type", cmp.Or(q.at.profile.GrantTypes[kind.is], kind.wire))
}

// askScopes writes the scope field, if there is anything to write.
func (q *query) askScopes() {
	if len(q.asked.Scopes) > 0 {
		q.form.Set("scope", strings.Join(q.asked.Scopes, q.at.profile.ScopeSeparator))
	}
}

// authenticate adds the client's identity. A client that has nothing to show may use public grants alone.
func (q *query) authenticate(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	switch {
	case q.grant.anonymous != nil && q.grant.anonymous(q.at):
		return nil
	case r.Client.Auth.Public() && !q.grant.public:
		return refuse("client_is_public")
	}
	return q.identify(r.Client, r.Secret)
}
