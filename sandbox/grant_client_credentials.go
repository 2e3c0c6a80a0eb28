package sandbox

import (
	"strings"
	"time"
)

// issueClientCredentials is RFC 6749 §4.4. It brings no refresh token (§4.4.3).
func issueClientCredentials(v *visit, c *client) (tokens, *oauthError) {
	scopes, e := v.scopesFor(c)
	if e != nil {
		return tokens{}, e
	}
	audience, e := v.resources("resource")
	if e != nil {
		return tokens{}, e
	}
	g := grantee{client: c, scopes: scopes, audience: audience}
	return v.bearer(v.newAccess(g, nil), scopes), nil
}

// scopesFor returns the scopes asked for, or those that a client gets by default.
func (v *visit) scopesFor(c *client) ([]string, *oauthError) {
	scopes, e := v.form.scope()
	if e != nil {
		return nil, e
	}
	return v.issuer.allow(c, scopes)
}

// allow bounds scopes by what a client may ask for.
func (i *issuer) allow(c *client, scopes []string) ([]string, *oauthError) {
	allowed := c.Scopes
	if allowed == nil {
		allowed = i.ScopesSupported
	}
	if len(scopes) == 0 {
		scopes = allowed
	}
	if (c.Scopes != nil || len(allowed) > 0) && !subset(scopes, allowed) {
		return nil, badRequest("invalid_scope", "this client may not have all of these scopes")
	}
	return scopes, nil
}

// resources returns the values of resource (RFC 8707) or audience (RFC 8693).
func (v *visit) resources(parameter string) ([]string, *oauthError) {
	asked := v.form.values[parameter]
	if len(v.issuer.Resources) > 0 && !subset(asked, v.issuer.Resources) {
		return nil, badRequest("invalid_target", "no such "+parameter)
	}
	return asked, nil
}

// bearer fills in an answer without a refresh token.
func (v *visit) bearer(accessToken string, scopes []string) tokens {
	return tokens{
		AccessToken: accessToken,
		TokenType:   "Bearer",
		ExpiresIn:   int64(v.life() / time.Second),
		Scope:       strings.Join(scopes, " "),
	}
}
