package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
)

// verifierPattern is the code_verifier of RFC 7636 §4.1.
var verifierPattern = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// issueCode is RFC 6749 §4.1.3. A code is good for one attempt of its client: an attempt that fails uses it up, too, and one
// more ends what came of the first (§4.1.2).
func issueCode(v *visit, c *client) (tokens, *oauthError) {
	text := v.form.get("code")
	if text == "" {
		return tokens{}, badRequest("invalid_request", "code is missing")
	}
	k := v.issuer.codes[text]
	switch {
	case k == nil || k.client != c:
		return tokens{}, badRequest("invalid_grant", "the code is unknown, has expired or is another client's")
	case k.spent:
		if k.family != nil {
			v.issuer.endFamily(k.family)
		}
		return tokens{}, badRequest("invalid_grant", "the code was used before: all that came of it is revoked")
	}
	k.spent = true
	verifier := v.form.get("code_verifier")
	switch {
	case !v.now.Before(k.expiry):
		return tokens{}, badRequest("invalid_grant", "the code has expired")
	case v.form.get("redirect_uri") != k.sentURI:
		return tokens{}, badRequest("invalid_grant", "redirect_uri is not that of the authorization request")
	case k.challenge == "" && verifier != "":
		return tokens{}, badRequest("invalid_grant", "a code_verifier, but the authorization request had no code_challenge")
	case k.challenge != "" && !verifierPattern.MatchString(verifier):
		return tokens{}, badRequest("invalid_request", "code_verifier is missing or malformed (RFC 7636 §4.1)")
	case k.challenge != "" && challenge(verifier) != k.challenge:
		return tokens{}, badRequest("invalid_grant", "code_verifier does not match the code_challenge")
	}
	t, f := v.consented(k.grantee, k.nonce)
	k.family = f
	return t, nil
}

// challenge is S256 of RFC 7636 §4.2.
func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
