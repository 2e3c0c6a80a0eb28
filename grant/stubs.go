package grant

import (
	"errors"

	"github.com/tokenbroker/tokenbroker"
)

// ParseKey is not built yet.
func (c *Client) ParseKey(tokenbroker.NewKey) (tokenbroker.ParsedKey, error) {
	return tokenbroker.ParsedKey{}, tokenbroker.Invalid("privateKey", errors.New("private keys are not supported yet"))
}

// Advise is not built yet.
func (c *Client) Advise(tokenbroker.Credential, *tokenbroker.OAuthClient) []string { return nil }
