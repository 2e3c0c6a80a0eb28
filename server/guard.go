package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// call is one RPC on its way through the guard.
type call struct {
	*caller
	need     need
	policy   *policy.Policy   // by which it was judged last
	entered  *policy.Policy   // that was in force when it came in
	edition  uint64           // of the credential of a token method, before anything was looked up
	asked    policy.Request   // what was judged
	given    *broker.Snapshot // whose token the answer holds; nil = none
	began    time.Time
	decision policy.Decision
	record   audit.Record
	shared   *encoded    // holds the answer of GetToken
	opened   bool        // of a stream: its opening is recorded, and its end will be
	ctx      callContext // of a unary call
}

// callKey is where a handler finds its call.
type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// may asks the policy about one more thing, for handlers that touch several.
func (c *call) may(r policy.Request) policy.Decision {
	r.Identity, r.Action, r.Time = c.Identity, c.need.action, time.Now()
	return c.policy.Decide(r)
}

// admit begins a call.
func (s *Server) admit(peer *caller, m *method, began time.Time) *call {
	inForce := s.cfg.Policy()
	c := &call{caller: peer, need: m.need, policy: inForce, entered: inForce, began: began}
	c.record = audit.Record{Kind: audit.KindCall, RequestID: requestID(), Identity: peer.Identity, Peer: peer.addr,
		CertFingerprint: peer.Fingerprint, CertSerial: peer.Serial, Action: string(m.need.action), PolicyRevision: c.policy.Revision()}
	return c
}

// offers refuses a call of a method that there is not, or not where it came in.
func (s *Server) offers(peer *caller, m *method) error {
	if m.listed && (s.admin == nil || peer.admin || m.need.worker) {
		return nil
	}
	s.tally.add(sum{identity: peer.Identity, reason: summedUnknown, code: codeOf(errUnknownMethod)})
	return errUnknownMethod
}

// requestID tells the records of one call from those of others. It is no secret.
func requestID() string { return strconv.FormatUint(rand.Uint64(), 32) } // a power of two is quickly done

// guardUnary decides on a call, lets it run, and releases its answer once the record of it is written.
func (s *Server) guardUnary(ctx context.Context, peer *caller, in incoming) (any, error) {
	if err := s.offers(peer, in.method); err != nil {
		return nil, err
	}
	if in.need.open {
		return s.guarded(ctx, in.req, in.info, in.next)
	}
	end, err := endOf(ctx, in.began, s.cfg.Limits.CallDeadline)
	if err != nil {
		return nil, err
	}
	if resp, ok, err := s.again(peer, in); ok {
		return resp, err
	}
	c := s.admit(peer, in.method, in.began)
	c.ctx.start(ctx, c, end)
	defer c.ctx.stop()
	resp, err := s.decideAndRun(&c.ctx, c, in)
	if err != nil {
		err = c.ctx.late(err)
	}
	c.fill(err)
	if !c.decision.Allowed {
		return nil, s.recordDenial(ctx, c, err)
	}
	if auditErr := s.record(ctx, c.record); auditErr != nil && err == nil {
		return nil, auditErr
	}
	if err == nil {
		if c.need.change && s.refuses.CompareAndSwap(true, false) {
			s.cfg.Log.Info("the store takes changes again")
		}
		s.used(c)
		s.remember(c, in)
	}
	if c.shared != nil && err == nil {
		return c.shared.getWire, nil
	}
	return resp, err
}

// recordDenial records a call that was denied or malformed, or a stream that did not open, and returns the caller's error. An identity that is denied again and again is
// told just that: what it does must not fill the log. How often is recorded soon.
func (s *Server) recordDenial(ctx context.Context, c *call, err error) error {
	if !s.denials.take(c.Identity, time.Now()) {
		s.tally.add(sum{identity: c.Identity, action: c.record.Action, reason: summedDenials, code: codeOf(err)})
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "denied calls of this identity", RetryAfter: retrySoon}
	}
	_ = s.record(ctx, c.record) // a denial gives nothing away, recorded or not
	return err
}

// record writes an audit record. A caller who leaves does not take back what was done for it, so its leaving does not keep the record
// from being written; the log has a deadline of its own.
func (s *Server) record(ctx context.Context, r audit.Record) error {
	return s.cfg.Audit(context.WithoutCancel(ctx), r)
}

func (s *Server) decideAndRun(ctx context.Context, c *call, in incoming) (any, error) {
	if err := s.decide(ctx, c, in.req); err != nil {
		return nil, err
	}
	if c.need.change {
		intent := c.record
		intent.Kind, intent.Decision, intent.Rule = audit.KindCallIntent, audit.Allow, c.decision.Rule
		if err := s.record(ctx, intent); err != nil {
			return nil, err
		}
	}
	resp, err := s.guarded(ctx, in.req, in.info, in.next)
	if err != nil {
		return nil, err
	}
	if err := s.release(ctx, c); err != nil {
		return nil, err
	}
	s.withhold(c, resp)
	return resp, nil
}

// withhold takes the token out of the answer to a report, if its caller may report but neither get nor subscribe to it, any more or ever.
func (s *Server) withhold(c *call, resp any) {
	r, ok := resp.(*tokenbrokerv1.ReportRejectedResponse)
	if !ok || c.given == nil {
		return
	}
	for _, action := range []policy.Action{policy.TokenGet, policy.TokenSubscribe} {
		q := c.asked
		q.Identity, q.Action, q.Time = c.Identity, action, time.Now()
		if c.policy.Decide(q).Allowed {
			return
		}
	}
	r.Token, c.given = nil, nil
}

// guardStream is guardUnary for streams. What a stream sends is recorded by those who send it.
func (s *Server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	peer, err := callerOf(ss.Context())
	if err != nil {
		return err
	}
	m := s.method(info.FullMethod)
	if err := s.offers(peer, m); err != nil {
		return err
	}
	c := s.admit(peer, m, time.Now())
	ctx, done := peer.during(ss.Context())
	defer done()
	wrapped := middleware.WrapServerStream(ss)
	wrapped.WrappedContext = context.WithValue(ctx, callKey{}, c)
	return peer.because(s.runStream(ctx, c, func() error { return next(srv, wrapped) }))
}

// runStream decides on a stream, and lets it run.
func (s *Server) runStream(ctx context.Context, c *call, run func() error) error {
	if c.need.open || c.need.action == policy.ReflectionUse {
		if err := s.beside(c); err != nil {
			return err
		}
		defer c.aside.Add(-1)
	}
	if c.need.open {
		return run()
	}
	if err := s.decide(ctx, c, nil); err != nil {
		c.fill(err)
		return s.recordDenial(ctx, c, err)
	}
	if c.need.action == policy.ReflectionUse {
		return s.reflect(ctx, c, run)
	}
	err := run()
	if err != nil && !c.opened {
		c.fill(err)
		return s.recordDenial(ctx, c, err)
	}
	return err
}

// besideMost is how many watches of health and reflections a connection may have open at once: they need no right, or hold no token.
const besideMost = 16

// beside counts a stream that no other limit knows of.
func (s *Server) beside(c *call) error {
	if s.shedder.level() >= shedNew {
		return errMemory(retrySoon)
	}
	if c.aside.Add(1) > besideMost {
		c.aside.Add(-1)
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "health watches and reflections on this connection", RetryAfter: retrySoon}
	}
	return nil
}

// reflect runs the reflection service, which knows nothing of a drain and would hold it up for as long as its client likes.
func (s *Server) reflect(ctx context.Context, c *call, run func() error) error {
	c.fill(nil)
	if err := s.record(ctx, c.record); err != nil {
		return err
	}
	done := make(chan error, 1)
	s.lingering.Go(func() { done <- run() })
	select {
	case err := <-done:
		return err
	case <-s.ending:
		return tokenbroker.ErrDraining // the stream ends with this, and then so does run
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill completes the record of a call with how it ended.
func (c *call) fill(err error) {
	c.record.Latency = time.Since(c.began)
	c.record.Rule, c.record.Mode, c.record.Reason = c.decision.Rule, string(c.decision.Mode), string(c.decision.Reason)
	c.record.Decision = audit.Deny
	if c.decision.Allowed {
		c.record.Decision = audit.Allow
	}
	if !c.decision.Allowed {
		c.shorten()
	}
	c.record.Code = codeOf(err)
	if c.given != nil && c.given.Token != nil && err == nil {
		t := c.given.Token
		c.record.Generation, c.record.ScopesGranted, c.record.TokenMAC, c.record.Expiry = t.Generation, t.Scopes, c.given.TokenMAC, t.Expiry
	}
}

// shorten keeps of a denied caller's words as much as tells what it was about.
func (c *call) shorten() { shorten(&c.record) }

func shorten(r *audit.Record) {
	const most = 4
	if n := len(r.ScopesAsked); n > most {
		r.ScopesAsked = append(slices.Clone(r.ScopesAsked[:most]), fmt.Sprintf("(%d more)", n-most))
	}
	r.Subject, r.Audience = clip(r.Subject), clip(r.Audience)
}

// clip bounds what a caller's own words add to a record.
func clip(s string) string { return s[:min(len(s), tokenbroker.MaxNameBytes)] }
