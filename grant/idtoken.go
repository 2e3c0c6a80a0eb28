package grant

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	leeway     = time.Minute // between clocks
	maxIDToken = 64 << 10    // bytes
)

// idCheck is what an id_token has to agree with.
type idCheck struct {
	clientID string
	nonce    string // "" = none was sent
}

// identity returns the claims of the reply's id_token; none if there is no id_token. Its signature is not looked at: it came straight
// from the token endpoint, over TLS, which vouches for it (OpenID Connect Core §3.1.3.7, 6). iss, aud, azp, exp and nonce have to be right.
func (e *endpoint) identity(top fields, check idCheck, a answer) (fields, *tokenbroker.Failure) {
	raw := top.at(e.profile.TokenPath).text("id_token")
	if raw == "" {
		raw = top.text("id_token")
	}
	if raw == "" {
		return newFields(), nil
	}
	claims, ok := jwtClaims(raw)
	code := "id_token_unreadable"
	if ok {
		code = e.judgeIdentity(claims, check, time.Now())
	}
	f := &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: code, Skew: a.skew, HTTPStatus: a.status, Sent: true}
	switch code {
	case "":
		return claims, nil
	case "id_token_expired":
		f.Class = tokenbroker.ClassClockSkew
	}
	return newFields(), f
}

// judgeIdentity returns what is wrong with the claims, "" for nothing.
func (e *endpoint) judgeIdentity(claims fields, check idCheck, now time.Time) string {
	audience := claims.list("aud")
	expiry, dated := claims.instant("exp")
	switch {
	case claims.isUnclear("iss", "aud", "azp", "exp", "nonce", "sub", "email"):
		return "id_token_unreadable"
	case e.profile.Issuer != "" && !isIssuer(claims.text("iss"), e.profile.Issuer):
		return "id_token_wrong_issuer"
	case !slices.Contains(audience, check.clientID):
		return "id_token_wrong_audience"
	case len(claims.value("azp")) > 0 && claims.text("azp") != check.clientID:
		return "id_token_wrong_audience"
	case check.nonce != "" && claims.text("nonce") != check.nonce:
		return "id_token_wrong_nonce"
	case !dated || now.After(expiry.Add(leeway)):
		return "id_token_expired"
	}
	return ""
}

// isIssuer reports whether iss names the issuer. Google leaves the scheme out at times, as OpenID Connect Core §15.6.2 remarks.
func isIssuer(iss, issuer string) bool {
	return iss == issuer || issuer == "https://accounts.google.com" && iss == "accounts.google.com"
}

// jwtClaims returns the claims of a signed JWT in compact form (RFC 7519 §7.2), without a look at the signature.
func jwtClaims(raw string) (fields, bool) {
	parts := strings.Split(raw, ".")
	if len(raw) > maxIDToken || len(parts) != 3 || parts[2] == "" {
		return fields{}, false
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return fields{}, false
	}
	if head := parseObject(header); !head.whole || head.text("alg") == "" || head.text("alg") == "none" {
		return fields{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fields{}, false
	}
	claims := parseObject(payload)
	return claims, claims.whole
}

// list returns a string, or the strings of an array, at a path.
func (f fields) list(path string) []string {
	if s := f.text(path); s != "" {
		return []string{s}
	}
	if value := f.value(path); len(value) == 0 || value[0] != '[' {
		return nil
	}
	return f.texts(path, "")
}

// instant returns a NumericDate (RFC 7519 §2) at a path.
func (f fields) instant(path string) (time.Time, bool) {
	n, ok := f.number(path)
	if !ok || n <= 0 || n > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}
