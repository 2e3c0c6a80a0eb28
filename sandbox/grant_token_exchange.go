package sandbox

import (
	"slices"
	"strings"
)

// The token types of RFC 8693 §3 that the sandbox takes or issues.
const (
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	typeIDToken     = "urn:ietf:params:oauth:token-type:id_token"
)

// anonymousExchange reports whether no client has to authenticate to exchange a token.
func (v *visit) anonymousExchange() bool { return v.issuer.AnonymousExchange }

// subject is what a subject token says.
type subject struct {
	account *Account
	name    string   // of who has no account
	scopes  []string // that it is good for; nil = no bound
}

// issueExchange is RFC 8693 §2.1: of a live access token of this issuer, for no more than it is good for, or of a JWT of a
// trusted issuer.
func issueExchange(v *visit, c *client) (tokens, *oauthError) {
	if c == nil && !v.anonymous() {
		return tokens{}, badRequest("invalid_client", "this issuer takes no client authentication with a token exchange")
	}
	if t := v.form.get("requested_token_type"); t != "" && t != typeAccessToken {
		return tokens{}, badRequest("invalid_request", "requested_token_type is not "+typeAccessToken)
	}
	if v.form.get("actor_token")+v.form.get("actor_token_type") != "" {
		return tokens{}, badRequest("invalid_request", "no actor tokens")
	}
	who, e := v.subject()
	if e != nil {
		return tokens{}, e
	}
	if c == nil {
		c = &client{Client: Client{ID: who.name, Auth: AuthNone}}
	}
	scopes, e := v.exchangeScopes(c, who)
	if e != nil {
		return tokens{}, e
	}
	audience, e := v.targets()
	if e != nil {
		return tokens{}, e
	}
	g := grantee{client: c, account: who.account, scopes: scopes, audience: audience}
	t := v.bearer(v.newAccess(g, nil), scopes)
	t.IssuedType = typeAccessToken
	return t, nil
}

func (v *visit) exchangeScopes(c *client, who subject) ([]string, *oauthError) {
	asked, e := v.form.scope()
	if e != nil {
		return nil, e
	}
	if who.scopes == nil {
		return v.issuer.allow(c, asked)
	}
	if asked == nil {
		return who.scopes, nil
	}
	if !subset(asked, who.scopes) {
		return nil, badRequest("invalid_scope", "more than the subject token is good for")
	}
	return asked, nil
}

func (v *visit) targets() ([]string, *oauthError) {
	audience, e := v.resources("audience")
	if e != nil {
		return nil, e
	}
	resource, e := v.resources("resource")
	return slices.Concat(audience, resource), e
}

// subject reads the subject token.
func (v *visit) subject() (subject, *oauthError) {
	token := v.form.get("subject_token")
	if token == "" {
		return subject{}, badRequest("invalid_request", "subject_token is missing")
	}
	switch v.form.get("subject_token_type") {
	case typeAccessToken:
		a := v.issuer.live(token, v.now)
		if a == nil {
			return subject{}, badRequest("invalid_request", "the subject token is unknown, expired or revoked")
		}
		return subject{account: a.account, name: a.subject(), scopes: slices.Clone(a.scopes)}, nil
	case typeJWT, typeIDToken:
		return v.foreignSubject(token)
	}
	return subject{}, badRequest("invalid_request", "subject_token_type is missing or not supported")
}

// foreignSubject reads a JWT of a trusted issuer.
func (v *visit) foreignSubject(token string) (subject, *oauthError) {
	refused := badRequest("invalid_request", "the subject token is not a valid JWT of a trusted issuer for this audience")
	a, err := readAssertion(token)
	if err != nil {
		return subject{}, refused
	}
	n := slices.IndexFunc(v.issuer.TrustedIssuers, func(t TrustedIssuer) bool { return t.Issuer == a.Issuer })
	if n < 0 {
		return subject{}, refused
	}
	trusted := v.issuer.TrustedIssuers[n]
	want := trusted.Audience
	if want == "" {
		want = v.base()
	}
	if !a.verify(trusted.Keys) || !a.only(want) || !a.within(v.now, v.issuer.Leeway) || strings.TrimSpace(a.Subject) == "" {
		return subject{}, refused
	}
	return subject{account: v.issuer.account(a.Subject), name: a.Subject}, nil
}
