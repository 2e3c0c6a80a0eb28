package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// patience is how long a call that nothing stands in for waits for a broker to connect to, after the first attempt has failed.
const patience = 5 * time.Second

// Token returns a token that is valid now: from memory, or from the broker. While the broker does not answer, the last good one is
// returned until it ends. ctx governs the wait; the call itself is shared by all who wait for the same token. Callers share the Token's
// Scopes and Metadata: do not change them.
func (c *Client) Token(ctx context.Context, credential string, opts ...Option) (tokenbroker.Token, error) {
	if len(opts) == 0 {
		if s := c.known(credential); s != nil {
			if h := s.ready(); h != nil {
				return h.token, nil
			}
		}
	}
	s, least := c.slot(credential, opts)
	h, err := c.token(ctx, s, least)
	if err != nil {
		return tokenbroker.Token{}, err
	}
	return h.token, nil
}

func (c *Client) token(ctx context.Context, s *slot, least time.Duration) (*held, error) {
	if h := s.ready(); h != nil && (least <= skew || h.left(time.Now()) > least) {
		return h, nil
	}
	s.touch()
	ch := c.calls.DoChan(flight(s, least), func() (any, error) { return c.ask(s, least) })
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*held), nil
	case <-ctx.Done():
		if err := s.trouble(); err != nil {
			return nil, fmt.Errorf("%w while waiting for a token of %q: %w", ctx.Err(), s.selector.GetCredential(), err)
		}
		return nil, ctx.Err()
	}
}

// flight names what those who wait for the same token wait for.
func flight(s *slot, least time.Duration) string { return s.key + "\x00" + least.String() }

// refresh is ask for a slot that nobody waits for.
func (c *Client) refresh(s *slot) {
	c.spawn(func() {
		_, _, _ = c.calls.Do(flight(s, 0), func() (any, error) { return c.ask(s, 0) }) // the slot knows
	})
}

// ask gets a token for those who wait, and has it kept fresh from then on. The last good one stands in for a broker that does not answer.
func (c *Client) ask(s *slot, least time.Duration) (h *held, err error) {
	done := make(chan struct{})
	if !c.spawn(func() { <-done }) {
		return nil, errClosed
	}
	defer close(done)
	h, err = c.fetch(s, least)
	switch {
	case err == nil:
		c.enroll(s, false)
		return h, nil
	case unanswered(err):
		if h := c.standIn(s, least); h != nil {
			return h, nil
		}
	}
	return nil, err
}

// standIn is the last good token of a slot, or that of the credential's own variant where it is the same: who names exactly the scopes that
// the credential has anyway asks for no other token. It is nil if there is none.
func (c *Client) standIn(s *slot, least time.Duration) *held {
	if h := s.good(least); h != nil {
		return h
	}
	if v := s.variant; len(v.Scopes) == 0 || v.Subject != "" || v.Audience != "" {
		return nil
	}
	own := c.find(s.selector.GetCredential(), nil)
	if own == nil || !own.has(s.variant.Scopes) {
		return nil
	}
	return own.good(least)
}

// fetch asks the broker. After a failure the next question waits a little, so that a worker in a loop does not make a storm.
func (c *Client) fetch(s *slot, least time.Duration) (*held, error) {
	r := &tokenbrokerv1.GetTokenRequest{Credential: s.selector.GetCredential(), Scopes: s.selector.GetScopes(),
		Subject: s.selector.GetSubject(), Audience: s.selector.GetAudience()}
	if least > 0 {
		r.MinValidity = durationpb.New(least)
	}
	resp, err := c.get(r, callTimeout)
	if err != nil && disconnected(err) && c.standIn(s, least) == nil {
		s.troubled(err)
		if again, late := c.get(r, patience, grpc.WaitForReady(true)); status.Code(late) != codes.DeadlineExceeded {
			resp, err = again, late // else the first says more of why
		}
	}
	if err != nil {
		err = fromStatus(err)
		s.failed(err)
		return nil, err
	}
	return s.fetched(resp.GetToken(), Update{State: stateFromProto(resp.GetState()), Recovery: recoveryFromProto(resp.GetRecoveryAction()),
		RefreshTime: timeOf(resp.GetRefreshTime())}), nil
}

func (c *Client) get(r *tokenbrokerv1.GetTokenRequest, limit time.Duration, opts ...grpc.CallOption) (*tokenbrokerv1.GetTokenResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return c.tokens.GetToken(ctx, r, opts...)
}

// disconnected reports whether there was no broker to ask, or one that is about to end. An agent that says that its broker does not answer has
// waited for it already.
func disconnected(err error) bool {
	if st := status.Convert(err); st.Code() != codes.Unavailable || reasonOf(st) == "TRANSPORT" {
		return false
	}
	p, ok := errors.AsType[*tokenbroker.Problem](fromStatus(err))
	return !ok || errors.Is(p, tokenbroker.ErrDraining)
}

// ReportRejected tells the broker that a resource server refused a token with an HTTP status, and returns the current one: a newer
// one if there is or can be one. The duration is how long to wait before a further report can help, 0 if there is a newer token.
// See ErrorCode for what else the resource server may have said.
//
// A broker that has started anew takes no report of what it does not know to have given. It is asked for its token then, and told once more.
func (c *Client) ReportRejected(ctx context.Context, credential string, rejected tokenbroker.Token, httpStatus int, opts ...Option) (tokenbroker.Token, time.Duration, error) {
	a := asked(opts)
	s := c.slotOf(credential, a)
	resp, err := c.tell(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: credential, Scopes: s.selector.GetScopes(),
		Subject: s.selector.GetSubject(), Audience: s.selector.GetAudience(), Generation: uint64(rejected.Generation),
		HttpStatus: int32(min(httpStatus, 999)), ErrorCode: a.errorCode})
	if err != nil {
		return tokenbroker.Token{}, 0, fromStatus(err)
	}
	if resp.GetToken() == nil { // it may report, and not have the token any more
		return tokenbroker.Token{}, resp.GetRetryDelay().AsDuration(), tokenbroker.ErrNotFound
	}
	h := s.fetched(resp.GetToken(), Update{State: stateFromProto(resp.GetState()), Recovery: recoveryFromProto(resp.GetRecoveryAction())})
	return h.token, resp.GetRetryDelay().AsDuration(), nil
}

// tell makes a report, the second time after the broker has handed out its token, whatever is in memory.
func (c *Client) tell(ctx context.Context, r *tokenbrokerv1.ReportRejectedRequest) (*tokenbrokerv1.ReportRejectedResponse, error) {
	resp, err := c.tokens.ReportRejected(ctx, r)
	if err == nil || !errors.Is(fromStatus(err), tokenbroker.ErrNotHanded) {
		return resp, err
	}
	if _, late := c.tokens.GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: r.GetCredential(), Scopes: r.GetScopes(),
		Subject: r.GetSubject(), Audience: r.GetAudience()}); late != nil {
		return nil, late
	}
	return c.tokens.ReportRejected(ctx, r)
}

func fromProto(t *tokenbrokerv1.Token) tokenbroker.Token {
	return tokenbroker.Token{AccessToken: tokenbroker.NewSecret(t.GetAccessToken()), Type: t.GetTokenType(), Scopes: t.GetScopes(),
		Expiry: t.GetExpireTime().AsTime(), ExpiryEstimated: t.GetExpireTimeEstimated(), Generation: tokenbroker.Generation(t.GetGeneration()),
		Metadata: t.GetMetadata()}
}
