package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// subscription is one open stream. Whoever holds its turn may send: the handler, until the snapshot has ended and for what comes by the
// clock, or a sender.
type subscription struct {
	s    *Server
	call *call
	out  grpc.ServerStream
	feed *broker.Feed
	slow *time.Timer // cuts the connection when a send is blocked

	wake    chan struct{} // holds a value while the feed may have something for the snapshot
	live    atomic.Bool   // the snapshot has ended: the senders are woken instead
	turn    chan struct{} // holds a value while somebody may send
	again   atomic.Bool   // whoever holds the turn has to see to it that the feed is looked at once more
	waiting atomic.Bool   // for a sender
	failed  chan error    // why nothing can be sent any more, for the handler
	tooSlow atomic.Bool   // its reader was cut

	// Guarded by the turn.
	by   *sender                      // nil = the handler, or a goroutine of its own
	over bool                         // it has failed
	told map[string]bool              // selectors that were answered; nil once all are
	sent map[string]tokenbroker.Order // credential and variant → the newest sent; nil for one selector, whose slot sees to that

	basis // by which rules it lives

	lagging atomic.Bool // its reader held up a sender and has not caught up
}

// Subscribe implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) Subscribe(r *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) (err error) {
	selections, err := t.s.selections(r)
	if err != nil {
		return err
	}
	if t.s.shedder.level() >= shedNew {
		return errMemory(retrySoon)
	}
	c := callOf(out.Context())
	if err := t.s.streams.reserve(c.Identity); err != nil {
		return err
	}
	defer t.s.streams.release(c.Identity)
	sub := t.s.subscribe(c, out, len(selections))
	defer func() { sub.close(err) }()
	c.opened = true
	if err := sub.open(out.Context(), selections); err != nil {
		return err
	}
	return sub.run(out.Context(), len(selections))
}

// selections checks what a subscription asks for, before any look-up.
func (s *Server) selections(r *tokenbrokerv1.SubscribeRequest) ([]broker.Selection, error) {
	list := r.GetSelectors()
	if len(list) == 0 || len(list) > s.cfg.Limits.Selectors {
		return nil, tokenbroker.Invalid("selectors", fmt.Errorf("%d selectors, from 1 to %d are allowed", len(list), s.cfg.Limits.Selectors))
	}
	seen := map[string]bool{}
	var selections []broker.Selection
	for i, sel := range list {
		asked := selectionOf(sel)
		if err := asked.Check(); err != nil {
			return nil, within(fmt.Sprintf("selectors[%d].", i), err)
		}
		key := keyOf(asked)
		if seen[key] {
			return nil, tokenbroker.Invalid("selectors", fmt.Errorf("selector %d is there twice", i))
		}
		seen[key] = true
		selections = append(selections, asked)
	}
	return selections, nil
}

// keyOf tells the selectors of one request apart.
func keyOf(s broker.Selection) string {
	return s.Credential + "\x00" + tokenbroker.NewVariant(s.Scopes, s.Subject, s.Audience).Key()
}

func (s *Server) subscribe(c *call, out grpc.ServerStream, selectors int) *subscription {
	sub := &subscription{s: s, call: c, out: out, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), failed: make(chan error, 1),
		told: map[string]bool{}}
	sub.lapsed = make(chan struct{}, 1)
	if selectors > 1 {
		sub.sent = map[string]tokenbroker.Order{}
	}
	sub.turn <- struct{}{}
	sub.feed = s.cfg.Broker.NewFeed(broker.FeedConfig{Holder: c.Identity, Group: c.number, Admit: sub.admit, Wake: sub.awake})
	sub.slow = time.AfterFunc(time.Hour, sub.cut)
	sub.slow.Stop()
	s.streams.add(sub.feed, c)
	return sub
}

// awake is the feed's wake: it never blocks.
func (sub *subscription) awake() {
	if sub.live.Load() {
		sub.s.senders.ready(sub)
		return
	}
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// admit asks the policy in force about one variant.
func (sub *subscription) admit(credential string, asked broker.Selection, v tokenbroker.Variant, granted []string) error {
	d, err := sub.judge(asked, v, granted)
	switch {
	case err != nil:
		return err
	case !d.Allowed:
		return denial(need{action: policy.TokenGet}, d, true)
	}
	sub.lives(credential, d)
	return nil
}

// judge decides on a variant by the policy in force, and on the scopes of its token, if a provider gave others than were asked for.
func (sub *subscription) judge(asked broker.Selection, v tokenbroker.Variant, granted []string) (policy.Decision, error) {
	ctx := sub.out.Context()
	r, err := policyRequest(ctx, sub.s.cfg.Broker, asked, v)
	if err != nil {
		return policy.Decision{}, err
	}
	now := sub.s.cfg.Policy()
	decide := func(r policy.Request) policy.Decision {
		r.Identity, r.Action, r.Time = sub.call.Identity, policy.TokenSubscribe, time.Now()
		return now.Decide(r)
	}
	d := decide(r)
	if granted == nil || !d.Allowed {
		return d, nil
	}
	return ceiling(ctx, sub.s.cfg.Broker, r, granted, d, decide)
}

// open adds the selectors, each after a record of its decision, which binds the stream's id to the identity.
func (sub *subscription) open(ctx context.Context, selections []broker.Selection) error {
	bound := false // a record binds the stream's id to the identity
	for _, sel := range selections {
		rec := sub.opening(ctx, sel)
		switch {
		case rec.Decision == audit.Allow || sub.s.denials.take(sub.call.Identity, time.Now()):
			if err := sub.s.record(ctx, rec); err != nil {
				return err
			}
			bound = true
		case !bound:
			return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "denied selectors of this identity", RetryAfter: retrySoon}
		default:
			sub.s.tally.add(sum{identity: sub.call.Identity, action: rec.Action, reason: summedDenials, code: rec.Code})
		}
		if err := sub.feed.Add(ctx, sel); err != nil {
			return err
		}
	}
	return nil
}

// opening is the record of a selector. One that can't be resolved is judged as it was asked for.
func (sub *subscription) opening(ctx context.Context, sel broker.Selection) audit.Record {
	v, err := sub.s.cfg.Broker.Resolve(ctx, sel)
	if err != nil {
		v = tokenbroker.NewVariant(sel.Scopes, sel.Subject, sel.Audience)
	}
	d, judgeErr := sub.judge(sel, v, nil)
	sub.s.audited(d, policy.TokenSubscribe)
	err = cmp.Or(err, judgeErr)
	rec := sub.call.record
	rec.Kind, rec.Streams, rec.Latency = audit.KindStreamOpen, []uint64{sub.feed.ID}, time.Since(sub.call.began)
	rec.Credential, rec.ScopesAsked, rec.Subject, rec.Audience = sel.Credential, sel.Scopes, sel.Subject, sel.Audience
	rec.Decision, rec.Rule, rec.Mode, rec.Reason, rec.Code = audit.Deny, d.Rule, string(d.Mode), string(d.Reason), codeOf(err)
	if d.Allowed {
		rec.Decision = audit.Allow
	} else {
		shorten(&rec)
	}
	return rec
}

// close ends the feed, once nobody is in a send any more. That it ended, and why, is recorded if it can be.
func (sub *subscription) close(err error) {
	sub.s.streams.remove(sub.feed)
	sub.feed.Close()
	sub.end()
	if sub.live.Load() {
		sub.turn <- struct{}{}
	}
	sub.slow.Stop()
	if sub.lagging.CompareAndSwap(true, false) {
		sub.call.outlet.slower(-1)
	}
	if sub.tooSlow.Load() {
		err = errSlowReader
	}
	sub.s.recordEnd(sub.out.Context(), sub.call, []uint64{sub.feed.ID}, err)
}

// recordEnd records how a stream ended: its client left, or the broker ended it for a reason.
func (s *Server) recordEnd(ctx context.Context, c *call, ids []uint64, err error) {
	err = c.because(err)
	rec := c.record
	rec.Kind, rec.Streams, rec.Latency = audit.KindStreamClose, ids, time.Since(c.began)
	rec.Code = codeOf(err)
	if _, known := rowOf(err); !known && ctx.Err() != nil {
		rec.Code = codeOf(context.Canceled) // what a send says to a client that is gone
	}
	_ = s.record(ctx, rec)
}

// run sends the first state of each selector, the end of the snapshot, and then whatever comes.
func (sub *subscription) run(ctx context.Context, selectors int) error {
	if err := sub.snapshot(ctx, selectors); err != nil {
		return err
	}
	if err := sub.send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{
		SnapshotEnd: &tokenbrokerv1.SnapshotEnd{}}}); err != nil {
		return err
	}
	sub.hand()
	heartbeat := time.NewTicker(sub.s.cfg.Limits.Heartbeat)
	defer heartbeat.Stop()
	return sub.loop(ctx, heartbeat.C)
}

// hand leaves to the senders what the feed has from now on.
func (sub *subscription) hand() {
	sub.told = nil
	sub.live.Store(true)
	<-sub.turn
	sub.s.senders.ready(sub) // for what came just before
}

// snapshot sends until every selector has been answered once. One may have nothing ready: its token ended between the look at it and
// now, and what took its place is on its way.
func (sub *subscription) snapshot(ctx context.Context, selectors int) error {
	for len(sub.told) < selectors {
		more, err := sub.next()
		if err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-sub.wake:
		case <-sub.lapsed:
			if err := sub.feed.Reconsider(ctx); err != nil {
				return err
			}
		case <-sub.s.ending:
			return tokenbroker.ErrDraining
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (sub *subscription) loop(ctx context.Context, heartbeat <-chan time.Time) error {
	goingAway := sub.s.goingAway
	for {
		var err error
		select {
		case err = <-sub.failed:
		case now := <-heartbeat:
			err = sub.sendInTurn(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Heartbeat{
				Heartbeat: &tokenbrokerv1.Heartbeat{ServerTime: timestamppb.New(now)}}})
		case <-goingAway:
			goingAway = nil
			err = sub.sendInTurn(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_GoingAway{
				GoingAway: &tokenbrokerv1.GoingAway{}}})
		case <-sub.s.ending:
			return errors.Join(sub.inTurn(sub.drain), tokenbroker.ErrDraining)
		case <-sub.lapsed:
			err = sub.feed.Reconsider(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// drain sends all that the feed has.
func (sub *subscription) drain() error {
	for {
		if more, err := sub.next(); !more || err != nil {
			return err
		}
	}
}

// next sends what the feed has next, and reports whether it had something.
func (sub *subscription) next() (bool, error) {
	u, ok, err := sub.feed.Next()
	if !ok || err != nil {
		return false, err
	}
	if sub.told != nil {
		sub.told[keyOf(u.Selection)] = true
	}
	if u.Removed != nil {
		return true, sub.send(removed(u))
	}
	e := encodedOf(u.Snapshot)
	if sub.sent != nil {
		if u.Snapshot.Order.Compare(sub.sent[e.key]) <= 0 {
			return true, nil // two selectors turned out to be the same variant
		}
		sub.sent[e.key] = u.Snapshot.Order
	}
	if err := sub.granted(u); err != nil {
		u.Removed = err
		return true, sub.send(removed(u))
	}
	if err := sub.send(e.updateWire); err != nil {
		return true, err
	}
	sub.used(u.Snapshot)
	return true, nil
}

// granted judges a token that has other scopes than were judged when the selector was admitted: a provider may give more than was asked.
func (sub *subscription) granted(u broker.Update) error {
	extra := u.Snapshot.Otherwise()
	if extra == nil {
		return nil
	}
	return sub.admit(u.Snapshot.Credential, u.Selection, u.Snapshot.Variant, extra)
}

func removed(u broker.Update) *tokenbrokerv1.SubscribeResponse {
	reason := tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND
	switch {
	case errors.Is(u.Removed, tokenbroker.ErrScopeNotAllowed), errors.Is(u.Removed, tokenbroker.ErrScopeNotGranted):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED
	case errors.Is(u.Removed, tokenbroker.ErrScopesTooWide):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE
	case errors.Is(u.Removed, tokenbroker.ErrTooMany):
		reason = tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY
	}
	sel := u.Selection
	return &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Removed{Removed: &tokenbrokerv1.Removed{
		Selector: &tokenbrokerv1.Selector{Credential: sel.Credential, Scopes: sel.Scopes, Subject: sel.Subject, Audience: sel.Audience},
		Reason:   reason,
	}}}
}
