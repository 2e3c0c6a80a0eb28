package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// silence is how long a stream may say nothing: heartbeats come every 30 s.
const silence = 90 * time.Second

// link is one stream of the broker, with the slots that it answers for.
type link struct {
	cancel context.CancelFunc
	slots  []*slot            // in the order of the selectors
	of     map[string][]*slot // credential → those of it
}

// newLink makes a link and the context that it lives in.
func newLink(ctx context.Context, slots []*slot) (*link, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	l := &link{cancel: cancel, slots: slots, of: map[string][]*slot{}}
	for _, s := range slots {
		name := s.selector.GetCredential()
		l.of[name] = append(l.of[name], s)
	}
	return l, ctx
}

// covers reports whether the link answers for these slots and no others.
func (l *link) covers(slots []*slot) bool {
	if len(l.slots) != len(slots) {
		return false
	}
	mine := map[*slot]bool{}
	for _, s := range l.slots {
		mine[s] = true
	}
	return !slices.ContainsFunc(slots, func(s *slot) bool { return !mine[s] })
}

// tell tells the shard of an event, if that still listens.
func (*link) tell(ctx context.Context, sh *shard, e event) {
	select {
	case sh.events <- e:
	case <-ctx.Done():
	}
}

// follow opens the stream, as soon as there is a broker, and has the slots take what it tells, until it ends.
func (l *link) follow(ctx context.Context, tokens tokenbrokerv1.TokenServiceClient, tell func(eventKind)) error {
	defer func() {
		for _, s := range l.slots {
			s.leave(l)
		}
	}()
	r := &tokenbrokerv1.SubscribeRequest{}
	for _, s := range l.slots {
		r.Selectors = append(r.Selectors, s.selector)
	}
	stream, err := tokens.Subscribe(ctx, r, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	watchdog := time.AfterFunc(silence, l.cancel)
	defer watchdog.Stop()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		watchdog.Reset(silence)
		l.take(m, tell)
	}
}

// take has the slots take one message.
func (l *link) take(m *tokenbrokerv1.SubscribeResponse, tell func(eventKind)) {
	switch e := m.GetEvent().(type) {
	case *tokenbrokerv1.SubscribeResponse_Update:
		u := updateFromProto(e.Update)
		for _, s := range l.of[e.Update.GetSelector().GetCredential()] {
			if answers(e.Update, s.variant) {
				s.take(l, u)
			}
		}
	case *tokenbrokerv1.SubscribeResponse_Removed:
		l.removed(e.Removed)
		if e.Removed.GetReason() == tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY {
			tell(crowded)
		}
	case *tokenbrokerv1.SubscribeResponse_SnapshotEnd:
		tell(snapshot)
	case *tokenbrokerv1.SubscribeResponse_GoingAway:
		tell(away)
	}
}

// answers reports whether an update is of what was asked for: the broker fills in what was left empty.
func answers(u *tokenbrokerv1.Update, asked tokenbroker.Variant) bool {
	is := u.GetSelector()
	scopes := tokenbroker.NewVariant(is.GetScopes(), "", "").Scopes
	return (slices.Equal(asked.Scopes, scopes) || len(asked.Scopes) == 0 && u.GetDefaultScopes()) &&
		(asked.Subject == is.GetSubject() || asked.Subject == "" && u.GetDefaultSubject()) &&
		(asked.Audience == is.GetAudience() || asked.Audience == "" && u.GetDefaultAudience())
}

// removed has the slot that a removal is of take it. A removal names what was asked for.
func (l *link) removed(r *tokenbrokerv1.Removed) {
	is := r.GetSelector()
	v := tokenbroker.NewVariant(is.GetScopes(), is.GetSubject(), is.GetAudience())
	key := keyOf(is.GetCredential(), v)
	for _, s := range l.of[is.GetCredential()] {
		if s.key == key && s.removed(fmt.Errorf("credential %q: %w", is.GetCredential(), removals(r.GetReason()))) {
			s.c.refresh(s)
		}
	}
}

func removals(r tokenbrokerv1.RemovedReason) error {
	switch r {
	case tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED:
		return tokenbroker.ErrScopeNotAllowed
	case tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE:
		return tokenbroker.ErrScopesTooWide
	case tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY:
		return tokenbroker.ErrTooMany
	default:
		return tokenbroker.ErrNotFound
	}
}

func updateFromProto(m *tokenbrokerv1.Update) Update {
	u := Update{Order: tokenbroker.Order{Generation: tokenbroker.Generation(m.GetGeneration()), Revision: m.GetRevision()},
		State: stateFromProto(m.GetState()), Recovery: recoveryFromProto(m.GetRecoveryAction()), RefreshTime: timeOf(m.GetRefreshTime()),
		Scopes: m.GetSelector().GetScopes(), Subject: m.GetSelector().GetSubject(), Audience: m.GetSelector().GetAudience()}
	if m.GetToken() != nil {
		t := fromProto(m.GetToken())
		u.Token = &t
	}
	return u
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func stateFromProto(s tokenbrokerv1.CredentialState) tokenbroker.State {
	return tokenbroker.State(strings.TrimPrefix(s.String(), "CREDENTIAL_STATE_"))
}

func recoveryFromProto(r tokenbrokerv1.RecoveryAction) tokenbroker.Recovery {
	return tokenbroker.Recovery(strings.TrimPrefix(r.String(), "RECOVERY_ACTION_"))
}
