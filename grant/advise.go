package grant

import (
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// expirySoon is how long before the end of a key or secret an operator hears of it.
const expirySoon = 30 * 24 * time.Hour

// Advise returns what is allowed and should be known about a credential that [Client.Validate] accepts, one sentence each.
func (c *Client) Advise(cred tokenbroker.Credential, client *tokenbroker.OAuthClient) []string {
	e, ok := c.endpoints[cred.Provider]
	if !ok {
		return nil
	}
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch cred.Grant {
	case tokenbroker.GrantPassword:
		add("a password grant hands the user's password around (RFC 9700 §2.4); the password is dropped as soon as the provider gives a refresh token")
	case tokenbroker.GrantStatic:
		add("a static token does not renew itself: rotate it by hand, and give its expiry so that you are warned 30, 7 and 1 day ahead")
	case tokenbroker.GrantSelfSignedJWT:
		add("a self-signed JWT can't be revoked before its hour is over, other than by deleting the key")
	case tokenbroker.GrantGoogleADC:
		add("google_adc acts as whatever identity this machine has; who can change that can change what workers get")
	case tokenbroker.GrantRefreshToken, tokenbroker.GrantAuthorizationCode, tokenbroker.GrantDeviceCode:
		if client != nil && client.Auth.Public() && !e.traits.Rotates {
			add("OAuth client %q is public and provider %s does not rotate refresh tokens: one that leaks can be used by anyone until it is revoked (RFC 9700 §4.14.2); use a client with a secret", client.Name, e.name)
		}
	case tokenbroker.GrantClientCredentials, tokenbroker.GrantJWTBearer, tokenbroker.GrantTokenExchange:
	}
	if client == nil {
		return list
	}
	for _, s := range client.Secrets {
		if due := s.Due(); !due.IsZero() && time.Until(due) < expirySoon {
			add("%s %s of OAuth client %q is to be replaced by %s", kindOfSecret(s), s.Fingerprint, client.Name, due.UTC().Format(time.DateOnly))
		}
	}
	return list
}
