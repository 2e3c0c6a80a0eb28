package sandbox

import (
	"net/http"
	"strings"
)

// serveRevoke is RFC 7009. A refresh token takes everything with it that came of the same consent, an access token goes
// alone. A token that is unknown or no longer lives is revoked already.
func serveRevoke(v *visit) answer {
	c, e := v.clientOf()
	if e != nil {
		return e.answer()
	}
	token := v.form.get("token")
	if token == "" {
		return badRequest("invalid_request", "token is missing").answer()
	}
	a, r := v.issuer.access[token], v.issuer.refresh[token]
	switch {
	case a != nil && a.client != c, r != nil && r.family.client != c:
		return badRequest("unauthorized_client", "the token was not issued to this client (RFC 7009 §2.1)").answer()
	case a != nil:
		v.issuer.endAccess(token, a)
	case r != nil:
		v.issuer.endFamily(r.family)
	}
	done := textAnswer(http.StatusOK, "")
	done.header = http.Header{"Cache-Control": {"no-store"}}
	return done
}

// serveIntrospect is RFC 7662, for clients that authenticate. A client sees its own tokens, or those of all if it is
// registered to.
func serveIntrospect(v *visit) answer {
	c, e := v.clientOf()
	if e != nil {
		return e.answer()
	}
	token := v.form.get("token")
	switch {
	case c.Auth == AuthNone:
		return v.unauthorized("a public client can't introspect (RFC 7662 §2.1)").answer()
	case token == "":
		return badRequest("invalid_request", "token is missing").answer()
	}
	if a := v.issuer.live(token, v.now); a != nil && (c.Introspects || a.client == c) {
		return jsonAnswer(http.StatusOK, v.describe(a.grantee, map[string]any{"token_type": "Bearer", "iat": a.issued.Unix(), "exp": a.expiry.Unix()}))
	}
	if r := v.issuer.refresh[token]; r != nil && v.issuer.usable(r, v.now) && (c.Introspects || r.family.client == c) {
		return jsonAnswer(http.StatusOK, v.describe(r.family.grantee, map[string]any{}))
	}
	return jsonAnswer(http.StatusOK, map[string]any{"active": false})
}

// describe adds what a token is good for (RFC 7662 §2.2).
func (v *visit) describe(g grantee, body map[string]any) map[string]any {
	body["active"] = true
	body["iss"], body["sub"], body["client_id"], body["scope"] = v.base(), g.subject(), g.client.ID, strings.Join(g.scopes, " ")
	if g.account != nil {
		body["username"] = g.account.Email
	}
	if len(g.audience) > 0 {
		body["aud"] = g.audience
	}
	return body
}
