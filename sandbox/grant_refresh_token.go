package sandbox

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
	next := v.issuer.redeem(r, v.now)
	t := v.bearer(v.issuer.newAccess(c, r.family, scopes, v.now), scopes)
	t.RefreshToken = next
	return t, nil
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
