package agent

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// slot holds the newest change of one selector that was not sent yet: a stream that is behind gets the newest alone.
type slot struct {
	mu     sync.Mutex
	change *client.Change
}

func (s *slot) put(c client.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = &c
}

// putBack puts a change back, unless a newer one came.
func (s *slot) putBack(c *client.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.change == nil {
		s.change = c
	}
}

func (s *slot) take() *client.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.change
	s.change = nil
	return c
}

// follow has the client tell of each change. release is for when that ends.
func (sel *selection) follow(s *subscription, release func(had bool)) {
	stop := s.a.cfg.Client.OnChange(sel.credential, func(c client.Change) {
		sel.slot.put(c)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}, sel.options()...)
	sel.stop = func() {
		stop()
		release(true)
	}
}

// leave ends follow.
func (sel *selection) leave() {
	if sel.stop == nil {
		return
	}
	sel.stop()
	sel.stop = nil
	sel.slot.take()
}

// flush sends what the slots hold.
func (s *subscription) flush(ctx context.Context) error {
	for _, sel := range s.list {
		c := sel.slot.take()
		if c == nil {
			continue
		}
		if d := s.a.rules.Load().decide(sel.peer, sel.credential); !d.allowed {
			sel.slot.putBack(c) // judge tells, as soon as it is called; or the rules allow it again by then
		} else if err := s.tell(ctx, sel, c.Update, d); err != nil {
			return err
		}
	}
	return nil
}

// tell sends one change, after its record if it holds a token.
func (s *subscription) tell(ctx context.Context, sel *selection, u client.Update, d decision) error {
	if u.Err != nil {
		return s.remove(sel, u.Err)
	}
	m := &tokenbrokerv1.Update{
		Selector:   &tokenbrokerv1.Selector{Credential: sel.credential, Scopes: u.Scopes, Subject: u.Subject, Audience: u.Audience},
		Generation: uint64(u.Order.Generation), Revision: u.Order.Revision, State: stateToProto(u.State), RecoveryAction: recoveryToProto(u.Recovery),
		DefaultScopes: len(sel.scopes) == 0, DefaultSubject: sel.subject == "", DefaultAudience: sel.audience == "",
	}
	if !u.RefreshTime.IsZero() {
		m.RefreshTime = timestamppb.New(u.RefreshTime)
	}
	if u.Token != nil {
		r := s.record(audit.KindDeliver, sel, d)
		r.Generation, r.ScopesGranted, r.Expiry, r.Reason = u.Token.Generation, u.Token.Scopes, u.Token.Expiry, string(u.State)
		if err := s.a.record(ctx, r); err != nil {
			return err
		}
		s.a.handed.note(&sel.question, u.Token.Generation)
		m.Token = toProto(*u.Token)
	}
	sel.told, sel.removed = true, false
	return s.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: m}})
}

// remove tells that a selector has no token, once. An error that is about more than the credential ends the stream, as at the broker: the
// agent may not subscribe, or is about to end.
func (s *subscription) remove(sel *selection, why error) error {
	reason := tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND
	switch {
	case errors.Is(why, tokenbroker.ErrScopeNotAllowed):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED
	case errors.Is(why, tokenbroker.ErrScopesTooWide):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE
	case errors.Is(why, tokenbroker.ErrTooMany):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY
	case !errors.Is(why, tokenbroker.ErrNotFound):
		return why
	}
	if sel.removed {
		return nil
	}
	sel.told, sel.removed = true, true
	return s.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Removed{Removed: &tokenbrokerv1.Removed{
		Selector: &tokenbrokerv1.Selector{Credential: sel.credential, Scopes: sel.scopes, Subject: sel.subject, Audience: sel.audience},
		Reason:   reason}}})
}

func stateToProto(s tokenbroker.State) tokenbrokerv1.CredentialState {
	return tokenbrokerv1.CredentialState(tokenbrokerv1.CredentialState_value["CREDENTIAL_STATE_"+string(s)])
}

func recoveryToProto(r tokenbroker.Recovery) tokenbrokerv1.RecoveryAction {
	return tokenbrokerv1.RecoveryAction(tokenbrokerv1.RecoveryAction_value["RECOVERY_ACTION_"+string(r)])
}
