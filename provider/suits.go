package provider

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Suits says why a grant does not suit a provider, and what does; nil if nothing speaks against it. Public is whether the OAuth client has
// nothing to authenticate with. The text is for whoever creates the credential.
func Suits(p Profile, g tokenbroker.GrantType, public bool) error {
	reason := unsuited(p, g, public)
	if reason == "" {
		return nil
	}
	var better []string
	for _, other := range p.Grants {
		if other != tokenbroker.GrantPassword && unsuited(p, other, public) == "" {
			better = append(better, fmt.Sprintf("%s (%s)", other, beginning(other)))
		}
	}
	if len(better) > 0 {
		reason += "; what suits: " + strings.Join(better, ", ")
	}
	return errors.New(reason)
}

// unsuited says why a grant does not suit, "" if it does.
func unsuited(p Profile, g tokenbroker.GrantType, public bool) string {
	switch {
	case g == tokenbroker.GrantPassword && !slices.Contains(p.Grants, g):
		return "the password grant is only for providers that have nothing else (RFC 9700 §2.4)"
	case !p.Knows(g):
		return fmt.Sprintf("%s has no %s grant", p.Title, g)
	case g == tokenbroker.GrantAuthorizationCode && p.AuthorizationEndpoint == "" && !on(p.Discover):
		return "no authorization_endpoint is known, so nobody can consent in a browser"
	case g == tokenbroker.GrantDeviceCode && p.DeviceAuthorizationEndpoint == "" && !on(p.Discover):
		return "no device_authorization_endpoint is known, so there are no device codes"
	case public:
		return unfitForPublic(p, g)
	}
	return ""
}

// unfitForPublic says why a client without a secret or key can't use a grant, "" if it can.
func unfitForPublic(p Profile, g tokenbroker.GrantType) string {
	switch {
	case g.Clientless():
		return ""
	case g == tokenbroker.GrantClientCredentials:
		return "a public client has nothing to authenticate with (RFC 6749 §4.4)"
	case g == tokenbroker.GrantSelfSignedJWT, g == tokenbroker.GrantJWTBearer:
		return "a public client has no key to sign with"
	case len(p.AuthMethods) > 0 && !slices.Contains(p.AuthMethods, tokenbroker.AuthNone):
		return p.Title + " takes no public clients: give the OAuth client its secret or key"
	case g == tokenbroker.GrantAuthorizationCode && p.PKCE == pkceOff:
		return p.Title + " takes no PKCE, without which a public client's codes are anybody's (RFC 9700 §2.1.1)"
	}
	return ""
}

// beginning is the command that a credential of a grant begins with.
func beginning(g tokenbroker.GrantType) string {
	switch g {
	case tokenbroker.GrantAuthorizationCode:
		return "tokenctl connect"
	case tokenbroker.GrantDeviceCode:
		return "tokenctl connect --device"
	case tokenbroker.GrantJWTBearer:
		return "tokenctl import with a key file, or a client with a key and tokenctl credential create --grant jwt_bearer"
	case tokenbroker.GrantSelfSignedJWT:
		return "tokenctl import with a key file and --audience"
	case tokenbroker.GrantRefreshToken, tokenbroker.GrantStatic, tokenbroker.GrantClientCredentials, tokenbroker.GrantTokenExchange,
		tokenbroker.GrantGoogleADC, tokenbroker.GrantPassword:
	}
	return "tokenctl credential create --grant " + string(g)
}
