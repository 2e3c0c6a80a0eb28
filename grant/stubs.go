package grant

import (
	"context"
	"errors"

	"github.com/tokenbroker/tokenbroker"
)

// Revoke is not built yet.
func (c *Client) Revoke(context.Context, tokenbroker.RevokeRequest) error {
	return refuse("revocation_not_supported")
}

// Check is not built yet: it says that the provider offers no way to ask.
func (c *Client) Check(context.Context, tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	return tokenbroker.CheckReply{Method: tokenbroker.CheckNone}, nil
}

// ParseKey is not built yet.
func (c *Client) ParseKey(tokenbroker.NewKey) (tokenbroker.ParsedKey, error) {
	return tokenbroker.ParsedKey{}, tokenbroker.Invalid("privateKey", errors.New("private keys are not supported yet"))
}

// Advise is not built yet.
func (c *Client) Advise(tokenbroker.Credential, *tokenbroker.OAuthClient) []string { return nil }
