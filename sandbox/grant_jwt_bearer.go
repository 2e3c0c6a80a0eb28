package sandbox

import (
	"cmp"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// anonymous reports whether a request names no client in any way.
func (v *visit) anonymous() bool {
	return v.request.Header.Get("Authorization")+v.form.get("client_id")+v.form.get("client_secret")+v.form.get("client_assertion") == ""
}

// issueJWTBearer is RFC 7523 §2.1. The assertion is by a service account, under Google's rules, or by a client with keys.
// No refresh token comes of it.
func issueJWTBearer(v *visit, c *client) (tokens, *oauthError) {
	text := v.form.get("assertion")
	if text == "" {
		return tokens{}, badRequest("invalid_request", "assertion is missing")
	}
	a, err := readAssertion(text)
	if err != nil {
		return tokens{}, badRequest("invalid_grant", "Invalid JWT: "+err.Error())
	}
	if known := v.issuer.serviceAccount(a.Issuer); known != nil {
		return v.issueServiceAccount(known, a)
	}
	by := v.issuer.clients[a.Issuer]
	if by == nil || len(by.Keys) == 0 || c != nil && c != by {
		return tokens{}, badRequest("invalid_grant", "the assertion's iss is no service account, nor a client with keys, nor the one that authenticated")
	}
	return v.issueAsserted(by, a)
}

// jwtAudience is what the aud of an assertion has to be.
func (v *visit) jwtAudience() string { return cmp.Or(v.issuer.JWTAudience, v.url(EndpointToken)) }

// issueAsserted is the generic form: the client says in sub for which account it acts.
func (v *visit) issueAsserted(c *client, a assertion) (tokens, *oauthError) {
	who := v.issuer.account(a.Subject)
	switch {
	case !c.may(GrantJWTBearer):
		return tokens{}, badRequest("unauthorized_client", "this client may not use this grant")
	case !a.verify(c.Keys):
		return tokens{}, badRequest("invalid_grant", "the assertion's signature is not by a registered key")
	case !a.only(v.jwtAudience()):
		return tokens{}, badRequest("invalid_grant", "the assertion's aud is not "+v.jwtAudience())
	case !a.within(v.now, v.issuer.Leeway):
		return tokens{}, badRequest("invalid_grant", "the assertion has no exp, has expired, lives longer than an hour or is not valid yet")
	case who == nil && a.Subject != c.ID:
		return tokens{}, badRequest("invalid_grant", "the assertion's sub is no account")
	case a.ID != "" && !v.issuer.fresh(c, a, v.now):
		return tokens{}, badRequest("invalid_grant", "the assertion's jti was used before")
	}
	asked := strings.Fields(a.Scope)
	if v.form.get("scope") != "" {
		var e *oauthError
		if asked, e = v.form.scope(); e != nil {
			return tokens{}, e
		}
	}
	scopes, e := v.issuer.allow(c, asked)
	if e != nil {
		return tokens{}, e
	}
	if who != nil {
		if e := who.refusal(scopes); e != nil {
			return tokens{}, e
		}
	}
	return v.bearer(v.newAccess(grantee{client: c, account: who, scopes: scopes}, nil), scopes), nil
}

// What Google says, word for word where its table of JWT errors has words.
const (
	badTimeFrame  = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."
	badSignature  = "Invalid JWT Signature."
	badEmail      = "Not a valid email."
	badDelegation = "Unauthorized client or scope in request."
	badScopes     = "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."
	badScope      = "Invalid OAuth scope or ID token audience provided."
	disabled      = "The OAuth client was disabled."
)

// issueServiceAccount is RFC 7523 as Google has it.
func (v *visit) issueServiceAccount(by *ServiceAccount, a assertion) (tokens, *oauthError) {
	if e := v.checkServiceAccount(by, a); e != nil {
		return tokens{}, e
	}
	c := v.issuer.services[by.Email]
	scopes, e := v.serviceScopes(c, a.Scope)
	if e != nil {
		return tokens{}, e
	}
	g := grantee{client: c, scopes: scopes}
	if a.Subject != "" && a.Subject != by.Email {
		if g.account, e = v.delegate(by, a.Subject, scopes); e != nil {
			return tokens{}, e
		}
	}
	return v.bearer(v.newAccess(g, nil), scopes), nil
}

// checkServiceAccount looks at the account and at everything in the assertion but scopes and subject.
func (v *visit) checkServiceAccount(by *ServiceAccount, a assertion) *oauthError {
	switch {
	case a.algorithm != jose.RS256:
		return badRequest("invalid_client", "The OAuth client or JWT token is invalid or incorrectly configured: sign with RS256.")
	case !a.verify(by.Keys):
		return badRequest("invalid_grant", badSignature)
	case by.Disabled:
		return badRequest("disabled_client", disabled)
	case !a.only(v.jwtAudience()):
		return badRequest("invalid_grant", "Invalid JWT: Failed audience check. The right audience is "+v.jwtAudience())
	case a.IssuedAt == nil || a.Expiry == nil || !a.within(v.now, v.issuer.Leeway),
		a.Expiry.Time().Sub(a.IssuedAt.Time()) > maxAssertionLife, a.Expiry.Time().Sub(a.IssuedAt.Time()) <= 0:
		return badRequest("invalid_grant", badTimeFrame)
	}
	return nil
}

// serviceScopes reads the scope claim: separated by blanks, none empty, and no comma, which Google takes for part of a scope.
func (v *visit) serviceScopes(c *client, claim string) ([]string, *oauthError) {
	scopes := strings.Split(claim, " ")
	if claim == "" || !wellFormed(scopes) || strings.Contains(claim, ",") || !v.issuer.supports(scopes) {
		return nil, badRequest("invalid_scope", badScope)
	}
	if c.Scopes != nil && !subset(scopes, c.Scopes) {
		return nil, badRequest("unauthorized_client", badScopes)
	}
	return scopes, nil
}

// delegate finds the account that a service account acts for, if it may.
func (v *visit) delegate(by *ServiceAccount, subject string, scopes []string) (*Account, *oauthError) {
	who := v.issuer.account(subject)
	switch {
	case who == nil:
		return nil, badRequest("invalid_grant", badEmail)
	case by.Delegated == nil:
		return nil, badRequest("unauthorized_client", badDelegation)
	case !slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(by.Delegated, s) }):
		return nil, badRequest("unauthorized_client", badScopes)
	case !subset(scopes, by.Delegated):
		return nil, badRequest("access_denied", "Requested client not authorized.")
	}
	return who, who.refusal(scopes)
}
