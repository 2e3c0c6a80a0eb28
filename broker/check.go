package broker

import (
	"context"
	"slices"

	"github.com/tokenbroker/tokenbroker"
)

// Checked is the verdict on the current access token of a variant. It does not hold the token.
type Checked struct {
	Reply   tokenbroker.CheckReply
	Order   tokenbroker.Order
	Token   tokenbroker.Token // without the access token
	Missing []string          // scopes that were asked for and that the token does not have
}

// Check gets a variant's token as a worker would, and asks what a resource server would say of it. Where nobody can be asked, the reply has no
// code but that of a worker's report of a 401. Nobody is handed the token.
func (b *Broker) Check(ctx context.Context, sel Selection) (Checked, error) {
	s, err := b.Token(ctx, Request{Selection: sel})
	if err != nil {
		return Checked{}, err
	}
	e := s.of.e
	e.mu.Lock()
	cred, rejected := e.cred, s.of.rejected == s.Order.Generation
	e.mu.Unlock()
	client, err := b.clientOf(ctx, cred)
	if err != nil {
		return Checked{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ExchangeTimeout)
	defer cancel()
	r, err := b.cfg.Upstream.Check(ctx, tokenbroker.CheckRequest{Credential: cred, Client: client, Secret: e.secretsToTry(client)[0], Token: *s.Token})
	if err != nil {
		f := asFailure(err)
		return Checked{}, &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, Detail: "it could not be asked: " + f.Code,
			RetryAfter: max(retryBase, f.RetryAfter), Metadata: map[string]string{"code": f.Code}}
	}
	b.noteSkew(cred.Provider, r.Skew, nil)
	if r.Method == tokenbroker.CheckNone && rejected {
		r.Code = "reported_401" // nobody can be asked, and somebody has said it
	}
	if r.Scopes == nil {
		r.Scopes = s.Token.Scopes
	}
	c := Checked{Reply: r, Order: s.Order, Token: *s.Token, Missing: without(s.Variant.Scopes, r.Scopes)}
	c.Token.AccessToken = tokenbroker.Secret{}
	return c, nil
}

// without lists what of all is not in some, in the order of all.
func without(all, some []string) (rest []string) {
	for _, s := range all {
		if !slices.Contains(some, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
