package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	reportCodeMost  = 64 // bytes of an error code, as the broker takes it
	reportPause     = 30 * time.Second
	reportPauseMin  = 50 * time.Millisecond
	mostVain        = 2           // reports of one request that the broker may answer without a newer token: at first, and when it said that it can help
	givenUp         = time.Second // how soon after a request had waited in vain another one waits
	narrowPause     = time.Minute // between reports that a generation lacks a scope
	manyRejections  = 1024
	narrowTimeLimit = retryWait
)

// rejection is what a client knows of a generation that a resource server refused. Its times are for whose turn it is.
type rejection struct {
	turn  chan struct{} // holds one item: somebody reports and waits for all
	next  time.Time     // a further report can't help before
	over  time.Time     // nobody waits for a newer token before: somebody did, in vain
	users int           // who may take a turn; of rejections.mu
}

// refusedToken names a rejection.
type refusedToken struct {
	variant    string
	generation tokenbroker.Generation
	narrow     bool // for want of a scope
}

// rejections are those of a client, so that all its Transports make one report of a generation.
type rejections struct {
	mu sync.Mutex
	of map[refusedToken]*rejection
}

func (r *rejections) enter(which refusedToken) *rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.of[which]
	if one == nil {
		if r.of == nil {
			r.of = map[refusedToken]*rejection{}
		}
		one = &rejection{turn: make(chan struct{}, 1)}
		r.sweep()
		r.of[which] = one
	}
	one.users++
	return one
}

func (r *rejections) leave(one *rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one.users--
}

// sweep drops those that say nothing any more, once there are many. r.mu is held.
func (r *rejections) sweep() {
	if len(r.of) < manyRejections {
		return
	}
	now := time.Now()
	for which, one := range r.of {
		if one.users == 0 && now.After(one.next) && now.After(one.over) {
			delete(r.of, which)
		}
	}
}

// newer returns a token that is newer than a refused one: that which is held by now, or what comes of a report within the time that
// the request may wait.
func (t *transport) newer(req *http.Request, resp *http.Response, refused tokenbroker.Token) (tokenbroker.Token, bool) {
	ctx, cancel := context.WithTimeout(req.Context(), t.wait)
	defer cancel()
	if tok, ok := t.held(ctx, refused); ok {
		return tok, true
	}
	one := t.c.rejections.enter(refusedToken{variant: t.variant, generation: refused.Generation})
	defer t.c.rejections.leave(one)
	if ctx.Err() != nil || !one.take(ctx) {
		return tokenbroker.Token{}, false
	}
	defer one.pass()
	if tok, ok := t.held(ctx, refused); ok { // whoever had the turn before has seen to it
		return tok, true
	}
	if time.Now().Before(one.over) {
		return tokenbroker.Token{}, false
	}
	p := &pursuit{t: t, of: one, refused: refused, code: codeOf(resp)}
	if !replayable(req) { // it gains nothing by waiting, but the next request does by the report
		return p.report(ctx)
	}
	tok, ok := p.run(ctx)
	if !ok && req.Context().Err() == nil { // not this request alone has had enough
		one.over = later(one.next, time.Now().Add(givenUp))
	}
	return tok, ok
}

// held is the token that the client holds, if it is newer than a refused one.
func (t *transport) held(ctx context.Context, refused tokenbroker.Token) (tokenbroker.Token, bool) {
	tok, err := t.c.Token(ctx, t.credential, t.opts...)
	return tok, err == nil && tok.Generation > refused.Generation
}

func (r *rejection) take(ctx context.Context) bool {
	select {
	case r.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *rejection) pass() { <-r.turn }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pursuit is one request's turn to get a newer token.
type pursuit struct {
	t       *transport
	of      *rejection
	refused tokenbroker.Token
	code    string // of the API
	failed  int    // reports that the broker did not answer
	vain    int    // those that it answered without a newer token
	dead    bool   // no newer token is to come
}

// run reports, waits for what the broker publishes, and reports again when the broker said that it may help, while ctx lasts.
func (p *pursuit) run(ctx context.Context) (tokenbroker.Token, bool) {
	for ctx.Err() == nil && !p.dead && !p.t.c.isClosed() {
		if p.vain < mostVain {
			if tok, ok := p.report(ctx); ok || p.dead {
				return tok, ok
			}
		}
		if tok, ok := p.watch(ctx); ok {
			return tok, true
		}
	}
	return tokenbroker.Token{}, false
}

// report tells the broker, unless it is too soon for that.
func (p *pursuit) report(ctx context.Context) (tokenbroker.Token, bool) {
	if time.Now().Before(p.of.next) {
		return tokenbroker.Token{}, false
	}
	tok, wait, err := p.t.report(ctx, p.refused, http.StatusUnauthorized, p.code)
	switch {
	case err == nil && tok.Generation > p.refused.Generation:
		return tok, true
	case ctx.Err() != nil: // it says nothing of the broker
		return tokenbroker.Token{}, false
	case err == nil:
		p.of.next = time.Now().Add(max(wait, reportPauseMin))
		p.vain++
	case unanswered(err):
		p.of.next = time.Now().Add(max(retryAfter(err), reportPauseMin+jitter(p.failed)))
		p.failed++
	default:
		p.of.next = time.Now().Add(reportPause)
		p.dead = true
	}
	return tokenbroker.Token{}, false
}

func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}

// watch waits for a newer token to be published, until a further report is due. An identity that may not subscribe waits for that alone.
func (p *pursuit) watch(ctx context.Context) (tokenbroker.Token, bool) {
	if p.vain < mostVain {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, p.of.next)
		defer cancel()
	}
	for u, err := range p.t.c.Subscribe(ctx, p.t.credential, p.t.opts...) {
		if err == nil && u.Token != nil && u.Token.Generation > p.refused.Generation {
			return *u.Token, true
		}
	}
	select {
	case <-ctx.Done():
	case <-p.t.c.closed:
	}
	return tokenbroker.Token{}, false
}

// narrow reports that a token's scopes do not suffice, for the broker to count: once a minute and generation.
func (t *transport) narrow(req *http.Request, tok tokenbroker.Token) {
	ctx, cancel := context.WithTimeout(req.Context(), narrowTimeLimit)
	defer cancel()
	one := t.c.rejections.enter(refusedToken{variant: t.variant, generation: tok.Generation, narrow: true})
	defer t.c.rejections.leave(one)
	select {
	case one.turn <- struct{}{}:
		defer one.pass()
	default:
		return // somebody does so right now
	}
	if time.Now().Before(one.next) {
		return
	}
	one.next = time.Now().Add(narrowPause)
	_, _, _ = t.report(ctx, tok, http.StatusForbidden, insufficientScope)
}

// codeOf is what the API calls the refusal, as the broker takes it. Of what the API says in words nothing goes anywhere.
func codeOf(resp *http.Response) string {
	code := refusalIn(resp.Header).params["error"]
	switch {
	case code == "" && resp.StatusCode == http.StatusUnauthorized:
		return invalidToken
	case code == "" || len(code) > reportCodeMost:
		return "status_" + strconv.Itoa(resp.StatusCode)
	}
	for i := range len(code) {
		if c := code[i]; !isAlnum(c) && c != '_' && c != '-' && c != '.' {
			return "status_" + strconv.Itoa(resp.StatusCode)
		}
	}
	return code
}

func variantKey(credential string, opts []Option) string {
	a := asked(opts)
	return keyOf(credential, tokenbroker.NewVariant(a.scopes, a.subject, a.audience))
}

func (t *transport) report(ctx context.Context, refused tokenbroker.Token, status int, code string) (tokenbroker.Token, time.Duration, error) {
	return t.c.ReportRejected(ctx, t.credential, refused, status, append(slices.Clip(t.opts), ErrorCode(code))...)
}
