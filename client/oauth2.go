package client

import (
	"context"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker"
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
		if name, _ := t.Header(); name != "Authorization" {
			return nil, &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "the token goes into the header " + name +
				", which no oauth2.Token can say: use Transport"}
		}
		return &oauth2.Token{AccessToken: t.AccessToken.Reveal(), TokenType: t.Type, Expiry: t.Expiry}, nil
	})
}

type sourceFunc func() (*oauth2.Token, error)

// Token implements oauth2.TokenSource.
func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }
