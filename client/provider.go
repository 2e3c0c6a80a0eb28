package client

import (
	"context"

	"github.com/tokenbroker/tokenbroker"
)

// Provider gives tokens in a shape of T, for libraries that ask with a context: Token(context.Context) (*T, error).
type Provider[T any] struct {
	c          *Client
	credential string
	opts       []Option
	shape      func(tokenbroker.Token) *T
}

// ProviderOf makes a Provider. shape puts a token into the library's own type; for cloud.google.com/go/auth that is
//
//	func(t tokenbroker.Token) *auth.Token {
//		return &auth.Token{Value: t.AccessToken.Reveal(), Type: t.Type, Expiry: t.Expiry}
//	}
//
// and the Provider is an auth.TokenProvider. Don't wrap it in a cache of the library's, such as auth.NewCachedTokenProvider: it answers from memory
// itself, and knows of newer tokens. shape must be safe for concurrent use, and not change the token's Scopes and Metadata.
func ProviderOf[T any](c *Client, credential string, shape func(tokenbroker.Token) *T, opts ...Option) *Provider[T] {
	return &Provider[T]{c: c, credential: credential, opts: opts, shape: shape}
}

// Token is Client.Token in the shape of T. An API key with a header of its own has none that such libraries know: that is an error.
func (p *Provider[T]) Token(ctx context.Context) (*T, error) {
	tok, err := p.c.Token(ctx, p.credential, p.opts...)
	if err != nil {
		return nil, err
	}
	if name, _ := tok.Header(); name != "Authorization" {
		return nil, &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "the token goes into the header " + name +
			", which such a library does not know: use Transport"}
	}
	return p.shape(tok), nil
}
