package client

import (
	"context"
	"sync/atomic"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker"
)

// TokenSource is Token for libraries that take an oauth2.TokenSource. ctx governs every wait of it: give it the lifetime of the job, not of
// one request. Don't wrap it in oauth2.ReuseTokenSource: it reuses tokens itself, and knows of newer ones. All who ask share the
// *oauth2.Token: do not change it.
func (c *Client) TokenSource(ctx context.Context, credential string, opts ...Option) oauth2.TokenSource {
	a := asked(opts)
	var known atomic.Pointer[slot]
	known.Store(c.slotOf(credential, a))
	return sourceFunc(func() (*oauth2.Token, error) {
		if a.minValidity == 0 {
			if h := known.Load().ready(); h != nil && h.oauth2 != nil {
				return h.oauth2, nil
			}
		}
		s := c.slotOf(credential, a) // the one of before may have been dropped for want of use
		known.Store(s)
		h, err := c.token(ctx, s, a.minValidity)
		if err != nil {
			return nil, err
		}
		if h.oauth2 == nil {
			name, _ := h.token.Header()
			return nil, &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "the token goes into the header " + name +
				", which no oauth2.Token can say: use Transport"}
		}
		return h.oauth2, nil
	})
}

type sourceFunc func() (*oauth2.Token, error)

// Token implements oauth2.TokenSource.
func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }
