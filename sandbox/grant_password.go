package sandbox

import "crypto/subtle"

// issuePassword is RFC 6749 §4.3, which RFC 9700 §2.4 forbids: only for clients whose Grants name it.
func issuePassword(v *visit, c *client) (tokens, *oauthError) {
	name, password := v.form.get("username"), v.form.get("password")
	if name == "" || password == "" {
		return tokens{}, badRequest("invalid_request", "username or password is missing")
	}
	scopes, e := v.scopesFor(c)
	if e != nil {
		return tokens{}, e
	}
	who := v.issuer.account(name)
	if who == nil || who.Password == "" || subtle.ConstantTimeCompare([]byte(who.Password), []byte(password)) != 1 {
		return tokens{}, badRequest("invalid_grant", "unknown account or wrong password")
	}
	if e := who.refusal(scopes); e != nil {
		return tokens{}, e
	}
	t, _ := v.consented(grantee{client: c, account: who, scopes: scopes}, "")
	return t, nil
}
