package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Update is what a subscriber is told.
type Update struct {
	Order    tokenbroker.Order
	State    tokenbroker.State
	Recovery tokenbroker.Recovery
	Token    *tokenbroker.Token // nil if there is none now
	Err      error              // why there is none for this identity, e.g. tokenbroker.ErrNotFound; nil while the broker tells of the credential

	Scopes            []string // as the broker reads what was asked for: the credential's own where nothing was
	Subject, Audience string
	RefreshTime       time.Time // when the broker means to have a newer token; zero if it is not going to
}

// silence is how long a stream may say nothing: heartbeats come every 30 s.
const silence = 90 * time.Second

// Subscribe yields the state of a credential, and then every change of it, until ctx ends or the consumer stops. It reconnects by itself,
// with full jitter, and does not tell the same state twice. An error is yielded, and ends it, only if connecting again can't help: the
// request is malformed, or the identity is refused. When the credential does not exist, or is not for this identity, the
// error wraps tokenbroker.ErrNotFound, ErrScopeNotAllowed or ErrTooMany and the subscription goes on: it may come alive.
func (c *Client) Subscribe(ctx context.Context, credential string, opts ...Option) iter.Seq2[Update, error] {
	slot, _ := c.slot(credential, opts)
	return func(yield func(Update, error) bool) {
		s := &subscription{c: c, slot: slot, yield: yield}
		for failures := 0; ; failures++ {
			before := s.last
			err := s.once(ctx)
			switch {
			case errors.Is(err, errStopped), ctx.Err() != nil:
				return
			case c.isClosed():
				yield(Update{}, errClosed)
				return
			case final(err):
				yield(Update{}, fromStatus(err))
				return
			case s.last != before:
				failures = 0
			}
			c.wait(ctx, jitter(failures))
		}
	}
}

// subscription is one Subscribe over its connections.
type subscription struct {
	c     *Client
	slot  *slot
	yield func(Update, error) bool
	last  tokenbroker.Order
}

var (
	errStopped = errors.New("the consumer stopped")
	errClosed  = errors.New("client: closed")
	errCrowded = errors.New("the credential has too many variants in use: subscribe again later")
)

// once follows one stream to its end.
func (s *subscription) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.c.tokens.Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{s.slot.selector}})
	if err != nil {
		return err
	}
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		watchdog.Reset(silence)
		if !s.take(m) {
			return errStopped
		}
		if m.GetRemoved().GetReason() == tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY {
			return errCrowded
		}
	}
}

// take tells the consumer of a message; false if that wants no more.
func (s *subscription) take(m *tokenbrokerv1.SubscribeResponse) bool {
	switch e := m.GetEvent().(type) {
	case *tokenbrokerv1.SubscribeResponse_Removed:
		err := tokenbroker.ErrNotFound
		switch e.Removed.GetReason() {
		case tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED:
			err = tokenbroker.ErrScopeNotAllowed
		case tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE:
			err = tokenbroker.ErrScopesTooWide
		case tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY:
			err = tokenbroker.ErrTooMany
		default:
		}
		err = fmt.Errorf("credential %q: %w", s.slot.selector.GetCredential(), err)
		return s.yield(Update{Err: err}, err)
	case *tokenbrokerv1.SubscribeResponse_Update:
		return s.update(e.Update)
	}
	return true
}

func (s *subscription) update(m *tokenbrokerv1.Update) bool {
	u := Update{Order: tokenbroker.Order{Generation: tokenbroker.Generation(m.GetGeneration()), Revision: m.GetRevision()},
		State: stateFromProto(m.GetState()), Recovery: recoveryFromProto(m.GetRecoveryAction()),
		Scopes: m.GetSelector().GetScopes(), Subject: m.GetSelector().GetSubject(), Audience: m.GetSelector().GetAudience()}
	if t := m.GetRefreshTime(); t != nil {
		u.RefreshTime = t.AsTime()
	}
	if u.Order.Compare(s.last) <= 0 {
		return true // known from an earlier connection
	}
	s.last = u.Order
	if m.GetToken() != nil {
		t := fromProto(m.GetToken())
		u.Token = &t
		s.slot.keep(&held{token: t, askAt: m.GetRefreshTime().AsTime(), due: u.RefreshTime})
	}
	return s.yield(u, nil)
}

// final reports whether connecting again can't help.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// wait waits, but not longer than ctx and the client last.
func (c *Client) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	case <-ctx.Done():
	}
}

func stateFromProto(s tokenbrokerv1.CredentialState) tokenbroker.State {
	return tokenbroker.State(strings.TrimPrefix(s.String(), "CREDENTIAL_STATE_"))
}

func recoveryFromProto(r tokenbrokerv1.RecoveryAction) tokenbroker.Recovery {
	return tokenbroker.Recovery(strings.TrimPrefix(r.String(), "RECOVERY_ACTION_"))
}
