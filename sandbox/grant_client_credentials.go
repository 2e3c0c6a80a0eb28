package sandbox

import (
	"strings"
	"time"
)

// issueClientCredentials is RFC 6749 §4.4. It brings no refresh token (§4.4.3).
func issueClientCredentials(v *visit, c *client) (tokens, *oauthError) {
	scopes, e := v.form.scope()
	if e != nil {
		return tokens{}, e
	}
	allowed := c.Scopes
	if allowed == nil {
		allowed = v.issuer.ScopesSupported
	}
	if len(scopes) == 0 {
		scopes = allowed
	}
	if (c.Scopes != nil || len(allowed) > 0) && !subset(scopes, allowed) {
		return tokens{}, badRequest("invalid_scope", "this client may not have all of these scopes")
	}
	return v.bearer(v.issuer.newAccess(c, nil, scopes, v.now), scopes), nil
}

// bearer fills in an answer without a refresh token.
func (v *visit) bearer(accessToken string, scopes []string) tokens {
	return tokens{
		AccessToken: accessToken,
		TokenType:   "Bearer",
		ExpiresIn:   int64(v.issuer.AccessLife / time.Second),
		Scope:       strings.Join(scopes, " "),
	}
}
