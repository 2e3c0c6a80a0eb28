package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const (
	maxSelectors = 256
	heartbeat    = 30 * time.Second
)

// subscription is one open stream. It is of one goroutine; what changes comes by its selections' slots.
type subscription struct {
	a    *Agent
	out  grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]
	conn *conn
	id   uint64 // of its records
	list []*selection
	wake chan struct{} // holds a value while a slot may have something

	began time.Time
	slow  *time.Timer
	rules *ruleset // by which it was judged last
}

// selection is one selector of a stream.
type selection struct {
	question
	slot    slot
	stop    func() // ends the client's calls, and leaves the user's share; nil = it is not followed
	told    bool   // it was answered once
	removed bool   // that it has no token is the last that was told
}

// Subscribe implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) Subscribe(r *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
	ctx := out.Context()
	s := &subscription{a: t.a, out: out, conn: connOf(ctx), id: rand.Uint64() >> 11, wake: make(chan struct{}, 1), began: time.Now()} // 53 bits: exact in any JSON
	if err := cmp.Or(s.read(ctx, r), t.a.hurried(s.conn.peer.UID)); err != nil {
		return err
	}
	s.slow = time.AfterFunc(time.Hour, func() { _ = s.conn.Close() })
	s.slow.Stop()
	defer s.slow.Stop()
	defer s.quit()
	if err := s.judge(ctx); err != nil {
		return err
	}
	err := s.run(ctx)
	s.close(ctx, err)
	return err
}

// read checks what a subscription asks for.
func (s *subscription) read(ctx context.Context, r *tokenbrokerv1.SubscribeRequest) error {
	list := r.GetSelectors()
	if len(list) == 0 || len(list) > maxSelectors {
		return tokenbroker.Invalid("selectors", fmt.Errorf("%d selectors, from 1 to %d are allowed", len(list), maxSelectors))
	}
	seen := map[string]bool{}
	for i, sel := range list {
		q := asked(ctx, sel)
		if err := q.check(); err != nil {
			return tokenbroker.Invalid(fmt.Sprintf("selectors[%d]", i), err)
		}
		key := q.credential + "\x00" + tokenbroker.NewVariant(q.scopes, q.subject, q.audience).Key()
		if seen[key] {
			return tokenbroker.Invalid("selectors", fmt.Errorf("selector %d is there twice", i))
		}
		seen[key] = true
		if i > 0 {
			q.id = s.list[0].id // they are one call
		}
		s.list = append(s.list, &selection{question: q})
	}
	return nil
}

// judge asks the rules in force about each selector: those that are allowed now are followed, those that are not any more are left.
func (s *subscription) judge(ctx context.Context) error {
	s.rules = s.a.rules.Load()
	for _, sel := range s.list {
		d := s.rules.decide(sel.peer, sel.credential)
		switch {
		case d.allowed && sel.stop == nil:
			if err := s.admit(ctx, sel, d); err != nil {
				return err
			}
		case !d.allowed && (sel.stop != nil || !sel.told):
			sel.leave()
			if err := s.refuse(ctx, sel, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// admit follows a selector that the rules allow, if its user may have another token in use.
func (s *subscription) admit(ctx context.Context, sel *selection, d decision) error {
	release, crowded := s.a.claim(&sel.question)
	r := s.record(audit.KindStreamOpen, sel, d)
	r.Code = codeOf(crowded)
	if err := s.a.record(ctx, r); err != nil {
		if release != nil {
			release(false)
		}
		return err
	}
	if crowded != nil {
		return s.remove(sel, crowded)
	}
	sel.follow(s, release)
	return nil
}

// refuse tells that the rules give the caller no such credential.
func (s *subscription) refuse(ctx context.Context, sel *selection, d decision) error {
	if err := s.a.denied(ctx, sel.question, s.record(audit.KindStreamOpen, sel, d)); !errors.Is(err, errNoRule) {
		return err
	}
	return s.remove(sel, tokenbroker.ErrNotFound)
}

func (s *subscription) record(kind audit.Kind, sel *selection, d decision) audit.Record {
	r := sel.record(actionSubscribe, d)
	r.Kind, r.Streams, r.Latency = kind, []uint64{s.id}, time.Since(s.began)
	return r
}

// run sends the first state of each selector, the end of the snapshot, and then whatever comes.
func (s *subscription) run(ctx context.Context) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	snapshot := false
	for {
		if err := s.flush(ctx); err != nil {
			return err
		}
		if !snapshot && s.answered() {
			snapshot = true
			if err := s.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{
				SnapshotEnd: &tokenbrokerv1.SnapshotEnd{}}}); err != nil {
				return err
			}
		}
		if err := s.await(ctx, beat.C); err != nil {
			return err
		}
	}
}

// await waits for something to do, and does what comes by the clock or the rules.
func (s *subscription) await(ctx context.Context, beat <-chan time.Time) error {
	select {
	case <-s.wake:
		return nil
	case <-s.rules.replaced:
		return s.judge(ctx)
	case now := <-beat:
		return s.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Heartbeat{
			Heartbeat: &tokenbrokerv1.Heartbeat{ServerTime: timestamppb.New(now)}}})
	case <-s.a.ending:
		err := s.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_GoingAway{GoingAway: &tokenbrokerv1.GoingAway{}}})
		return errors.Join(err, tokenbroker.ErrDraining)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answered reports whether each selector was answered once.
func (s *subscription) answered() bool {
	for _, sel := range s.list {
		if !sel.told {
			return false
		}
	}
	return true
}

// send sends a message. The connection of a reader that does not read is closed, which ends the stream.
func (s *subscription) send(m *tokenbrokerv1.SubscribeResponse) error {
	s.slow.Reset(s.a.cfg.SlowReader)
	defer s.slow.Stop()
	return s.out.Send(m)
}

// quit ends all that the client does for the stream.
func (s *subscription) quit() {
	for _, sel := range s.list {
		sel.leave()
	}
}

// close records how the stream ended.
func (s *subscription) close(ctx context.Context, err error) {
	d := decision{allowed: true, identity: s.conn.peer.identity()}
	r := s.record(audit.KindStreamClose, &selection{question: question{peer: s.conn.peer, id: s.list[0].id}}, d)
	if r.Code = codeOf(err); ctx.Err() != nil {
		r.Code = codeOf(context.Canceled) // what a send says to a client that is gone
	}
	_ = s.a.record(ctx, r)
}
