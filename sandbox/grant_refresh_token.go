package sandbox

import "slices"

// scopeOpenID asks for an id_token and opens userinfo.
const scopeOpenID = "openid"

// issueRefresh is RFC 6749 §6 with the rotation of RFC 9700 §4.14.2.
func issueRefresh(v *visit, c *client) (tokens, *oauthError) {
	token := v.form.get("refresh_token")
	if token == "" {
		return tokens{}, badRequest("invalid_request", "refresh_token is missing")
	}
	asked, e := v.form.scope()
	if e != nil {
		return tokens{}, e
	}
	r, ok := v.issuer.present(c, token, v.now)
	if !ok {
		return tokens{}, badRequest("invalid_grant", "the refresh token is unknown, expired, spent or revoked")
	}
	scopes, e := v.issuer.narrow(r.family, asked)
	if e != nil {
		return tokens{}, e
	}
	g := r.family.grantee
	if audience, e := v.resources("resource"); e != nil || !subset(audience, g.audience) && len(g.audience) > 0 {
		return tokens{}, badRequest("invalid_target", "not a resource of this grant")
	} else if len(audience) > 0 {
		g.audience = audience
	}
	next := v.issuer.redeem(r, v.now)
	g.scopes = scopes
	t := v.bearer(v.newAccess(g, r.family), scopes)
	t.RefreshToken = next
	v.identify(&t, g, "")
	return t, nil
}

// consented fills in the answer to a fresh consent: with a refresh token for a client that may use it, and an id_token
// where openid was asked for.
func (v *visit) consented(g grantee, nonce string) (tokens, *family) {
	f, next := childless(g), ""
	if g.client.may(GrantRefreshToken) {
		f, next = v.issuer.newFamily(g, v.now)
	}
	t := v.bearer(v.newAccess(g, f), g.scopes)
	t.RefreshToken = next
	v.identify(&t, g, nonce)
	return t, f
}

// identify adds an id_token.
func (v *visit) identify(t *tokens, g grantee, nonce string) {
	if slices.Contains(g.scopes, scopeOpenID) {
		t.IDToken = v.signID(g, nonce, t.AccessToken)
	}
}

// narrow returns the scopes of a new access token. The family keeps its own: the next refresh may ask for all of them again.
func (i *issuer) narrow(f *family, asked []string) ([]string, *oauthError) {
	switch {
	case len(asked) == 0:
		return f.scopes, nil
	case !subset(asked, f.scopes):
		return nil, badRequest("invalid_scope", "more than was granted (RFC 6749 §6)")
	case !i.Downscope && !subset(f.scopes, asked):
		return nil, badRequest("invalid_scope", "fewer than were granted: this issuer does not downscope")
	}
	return asked, nil
}
