package consent

import (
	"errors"
	"net/url"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxCallback = 16 << 10
	maxCode     = 64
)

// callback is what a provider sent to a redirect URI (RFC 6749 §4.1.2).
type callback struct {
	id, secret string // of the state
	code       tokenbroker.Secret
	query      url.Values // all of it
}

// parseURL reads the URL that a browser was redirected to. Nothing of it gets into an error: it holds the code.
func parseURL(raw, redirectURI string) (callback, error) {
	bad := func(why string) (callback, error) {
		return callback{}, tokenbroker.Invalid("callbackUrl", errors.New(why))
	}
	if len(raw) > maxCallback {
		return bad("is too long")
	}
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || u.User != nil || u.Opaque != "" {
		return bad("is no URL: copy all of the browser's address line")
	}
	base := *u
	base.RawQuery, base.ForceQuery, base.Fragment, base.RawFragment = "", false, "", ""
	if base.String() != redirectURI {
		return bad("is not the redirect URI of this consent: copy the address that the browser was sent to in the end")
	}
	return parseQuery(u.RawQuery)
}

// parseQuery reads the fields of a callback. One that comes twice is refused (RFC 6749 §3.1).
func parseQuery(raw string) (callback, error) {
	bad := func(why string) (callback, error) {
		return callback{}, tokenbroker.Invalid("callbackUrl", errors.New(why))
	}
	q, err := url.ParseQuery(raw)
	if err != nil || len(raw) > maxCallback {
		return bad("does not read")
	}
	for _, field := range []string{"state", "code", "error", "iss"} {
		if len(q[field]) > 1 {
			return bad("names " + field + " twice")
		}
	}
	c := callback{code: tokenbroker.NewSecret(q.Get("code")), query: q}
	c.id, c.secret = split(q.Get("state"))
	switch {
	case c.id == "":
		return bad("has no state of ours")
	case c.code.IsZero() != q.Has("error"):
		return bad("has to hold either a code or an error")
	}
	return c, nil
}

// cleanCode keeps of a provider's error code what can be shown.
func cleanCode(s string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-', r == '.':
			return r
		}
		return -1
	}, s)
	if clean == "" {
		return "unknown_error"
	}
	return clean[:min(len(clean), maxCode)]
}
