package client

import (
	"context"

	"golang.org/x/oauth2"
)

// TokenSource is Token for libraries that take an oauth2.TokenSource. ctx governs every wait of it: give it the lifetime of the job, not of
// one request. Don't wrap it in oauth2.ReuseTokenSource: it reuses tokens itself, and knows of newer ones.
func (c *Client) TokenSource(ctx context.Context, credential string, opts ...Option) oauth2.TokenSource {
	s, least := c.slot(credential, opts)
	return sourceFunc(func() (*oauth2.Token, error) {
		t, err := c.token(ctx, s, least)
		if err != nil {
			return nil, err
		}
		return &oauth2.Token{AccessToken: t.AccessToken.Reveal(), TokenType: t.Type, Expiry: t.Expiry}, nil
	})
}

type sourceFunc func() (*oauth2.Token, error)

// Token implements oauth2.TokenSource.
func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }
