package grant

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const (
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	notBearer       = "N_A" // token_type of what is no access token (RFC 8693 §2.2.1)
)

// tokenExchange asks by RFC 8693: the token that the grant holds, or that of another credential, for another one.
func tokenExchange() grantKind {
	return grantKind{is: tokenbroker.GrantTokenExchange, wire: exchangeGrant, public: true, fill: fillTokenExchange, anonymous: func(e *endpoint) bool {
		quiet := e.profile.ExchangeUnauthenticated
		return quiet != nil && *quiet
	}}
}

func fillTokenExchange(q *query, r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	p := q.at.profile
	if r.RefreshToken.IsZero() {
		return refuse("subject_token_missing")
	}
	q.form.Set("subject_token", r.RefreshToken.Reveal())
	q.form.Set("subject_token_type", cmp.Or(p.SubjectTokenType, typeAccessToken))
	q.form.Set("requested_token_type", requestedType(p.RequestedTokenType))
	q.secrets = append(q.secrets, r.RefreshToken.Reveal())
	q.askScopes()
	return nil
}

func requestedType(t string) string { return cmp.Or(t, typeAccessToken) }

// issued says whether a reply brought the type of token that was asked for (RFC 8693 §2.2.1). An access token may be called a JWT. A
// reply that does not name the type, as it has to, is taken at its word.
func (q *query) issued(held fields) bool {
	want, got := requestedType(q.at.profile.RequestedTokenType), held.text("issued_token_type")
	return got == "" || got == want || slices.Contains([]string{typeAccessToken, typeJWT}, want) && slices.Contains([]string{typeAccessToken, typeJWT}, got)
}

// isOther reports whether the token is none that goes into a header, and was asked for as such.
func (q *query) isOther(held fields) bool {
	return q.grant.wire == exchangeGrant && strings.EqualFold(held.text("token_type"), notBearer) &&
		requestedType(q.at.profile.RequestedTokenType) != typeAccessToken
}
