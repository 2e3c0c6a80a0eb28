package grant

import (
	"context"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

// jwtAlgorithms are the signatures that are believed: none is symmetric, so that a public key never passes for a secret.
func jwtAlgorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// judgeJWT judges a token by its signature and claims (RFC 7519 §7.2, RFC 9068 §4), against the keys at the profile's jwks_uri and nowhere
// else: what the token says of where its keys are counts for nothing.
func (e *endpoint) judgeJWT(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	out := tokenbroker.CheckReply{Method: tokenbroker.CheckJWT}
	signed, ok := parseSigned(r.Token.AccessToken.Reveal())
	if !ok {
		out.Code = "algorithm_not_allowed"
		return out, nil
	}
	head := signed.Signatures[0].Protected
	keys, err := e.keysFor(ctx, head.KeyID, head.Algorithm)
	if err != nil {
		return tokenbroker.CheckReply{}, err
	}
	payload, code := verify(signed, keys)
	if code != "" {
		out.Code = code
		return out, nil
	}
	claims := parseObject(payload)
	if out.Code = e.judgeClaims(claims, r.Credential, time.Now()); out.Code == "bad_claims" {
		return out, nil
	}
	out.Active = out.Code == ""
	e.describe(&out, claims, r.Credential.Scopes)
	return out, nil
}

// parseSigned reads a signed token whose algorithm is believed.
func parseSigned(raw string) (*jose.JSONWebSignature, bool) {
	signed, err := jose.ParseSignedCompact(raw, jwtAlgorithms())
	return signed, err == nil && len(signed.Signatures) == 1
}

// verify returns what was signed, if one of the keys signed it.
func verify(signed *jose.JSONWebSignature, keys []jose.JSONWebKey) (payload []byte, code string) {
	if len(keys) == 0 {
		return nil, "unknown_key"
	}
	for _, k := range keys {
		if payload, err := signed.Verify(k.Key); err == nil {
			return payload, ""
		}
	}
	return nil, "bad_signature"
}

// judgeClaims returns what is wrong with the claims of a token, "" for nothing.
func (e *endpoint) judgeClaims(claims fields, cred tokenbroker.Credential, now time.Time) string {
	expiry, expires := claims.instant("exp")
	from, delayed := claims.instant("nbf")
	wanted := cred.Resources
	if cred.Audience != "" {
		wanted = append(slices.Clone(wanted), cred.Audience)
	}
	audience := claims.list("aud")
	meant := func(s string) bool { return slices.Contains(audience, s) }
	switch {
	case !claims.whole || claims.isUnclear("iss", "aud", "exp", "nbf", "scope", "sub"):
		return "bad_claims"
	case e.profile.Issuer != "" && !isIssuer(claims.text("iss"), e.profile.Issuer):
		return "wrong_issuer"
	case len(wanted) > 0 && !slices.ContainsFunc(wanted, meant):
		return "wrong_audience"
	case expires && now.After(expiry.Add(leeway)):
		return "expired"
	case delayed && now.Add(leeway).Before(from):
		return "not_yet_valid"
	}
	return ""
}
