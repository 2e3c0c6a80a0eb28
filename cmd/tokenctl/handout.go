package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// handout is a token as a job gets it, in a file or in its environment.
type handout struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpireTime  string `json:"expire_time"` // no expires_in: nobody knows when the file is read; "" = not known
	Scope       string `json:"scope"`
	Generation  uint64 `json:"generation"`

	header string
	expiry time.Time
}

// handoutOf is what a job gets of a token of the protocol.
func handoutOf(t *tokenbrokerv1.Token) handout {
	expiry := t.GetExpireTime().AsTime()
	return handout{AccessToken: t.GetAccessToken(), TokenType: scheme(t.GetTokenType()), ExpireTime: end(expiry), Scope: strings.Join(t.GetScopes(), " "),
		Generation: t.GetGeneration(), header: header(t), expiry: expiry}
}

// handoutFrom is what a job gets of a token of package client.
func handoutFrom(t *tokenbroker.Token) handout {
	name, value := t.Header()
	return handout{AccessToken: t.AccessToken.Reveal(), TokenType: scheme(t.Type), ExpireTime: end(t.Expiry), Scope: strings.Join(t.Scopes, " "),
		Generation: uint64(t.Generation), header: name + ": " + value, expiry: t.Expiry}
}

// end is when a token ends; "" if nobody knows, which the protocol says by no time at all.
func end(t time.Time) string {
	if t.Unix() <= 0 {
		return ""
	}
	return stamp(t)
}

// isFormat reports whether a file can hold a token in this form.
func isFormat(name string) bool { return name == "token" || name == "header" || name == "json" }

// text is what a file holds. A bare token has no newline at its end: what reads a whole file would take it for a part of the token.
func (h handout) text(format string) ([]byte, error) {
	switch format {
	case "json":
		data, err := json.MarshalIndent(h, "", "  ")
		return append(data, '\n'), err
	case "header":
		return []byte(h.header + "\n"), nil
	}
	return []byte(h.AccessToken), nil
}

// renewal is news of a credential: a token, or that there is none now.
type renewal struct {
	credential string
	token      handout
	none       string // why there is no token; "" = there is one
}

// first gets the tokens that a job begins with.
func (s *session) first(ctx context.Context, like *variant, names []string) (map[string]handout, error) {
	all := map[string]handout{}
	for _, name := range names {
		if _, ok := all[name]; ok {
			continue
		}
		resp, err := s.handed(ctx, like.request(name))
		if err != nil {
			return nil, err
		}
		all[name] = handoutOf(resp.GetToken())
	}
	return all, nil
}

// tellEnds tells which tokens are over, each once, and says when the next one will be. told is what was told before.
func (c *cli) tellEnds(latest map[string]handout, told map[string]string, now time.Time) (next time.Duration) {
	next = time.Hour
	for name, h := range latest {
		left := h.expiry.Sub(now)
		switch {
		case h.ExpireTime == "":
		case left > 0:
			next = min(next, left)
		case told[name] != h.ExpireTime:
			told[name] = h.ExpireTime
			c.note("credential %s: its token ended at %s, and there is no newer one", name, h.ExpireTime)
		}
	}
	return next
}

// followTokens sends the news of credentials until ctx ends. Close ends it, and waits.
func (s *session) followTokens(ctx context.Context, like *variant, names []string) *following {
	ctx, cancel := context.WithCancel(ctx)
	f := &following{news: make(chan renewal), ended: make(chan error, len(names)), cancel: cancel}
	for _, name := range names {
		f.wg.Go(func() { f.run(ctx, s.client, name, like.options()) })
	}
	return f
}

// following is credentials that are followed.
type following struct {
	news   chan renewal
	ended  chan error // a stream that is not for us
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Close ends it.
func (f *following) Close() {
	f.cancel()
	f.wg.Wait()
}

func (f *following) run(ctx context.Context, c *client.Client, name string, opts []client.Option) {
	last := errors.New("the stream of credential " + name + " ended")
	for u, err := range c.Subscribe(ctx, name, opts...) {
		n := renewal{credential: name}
		switch {
		case err != nil:
			last, n.none = err, err.Error()
		case u.Token == nil:
			n.none = "credential " + name + ": there is no token now: " + string(u.State)
		case !visible(u.Token.AccessToken.Reveal()):
			n.none = "credential " + name + ": its token has characters that no token may have"
		default:
			n.token = handoutFrom(u.Token)
		}
		select {
		case f.news <- n:
		case <-ctx.Done():
			return
		}
	}
	if ctx.Err() == nil {
		f.ended <- &failure{exit: exitDenied, what: last.Error(), action: "an operator has to give this identity token.subscribe", err: last}
	}
}

// assigned splits what is of the form LEFT=CREDENTIAL; a path may have a = in it, a credential has none.
func assigned(arg string) (left, credential string, ok bool) {
	i := strings.LastIndexByte(arg, '=')
	if i <= 0 || i == len(arg)-1 {
		return "", "", false
	}
	return arg[:i], arg[i+1:], true
}
