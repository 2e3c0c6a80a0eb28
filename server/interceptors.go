package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
)

// interceptors returns the chains, outermost first. Metrics and logs lie outside of the statuses, to see what clients see. Panics are
// caught twice: in handlers, so that the guard still writes its record, and in what lies around them.
func (s *Server) interceptors() ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	outer, inner := recovery.WithRecoveryHandlerContext(s.caughtOutside), recovery.WithRecoveryHandlerContext(s.caught)
	log, operator := logging.LoggerFunc(s.logCall), selector.MatchFunc(operatorMethod)
	events := logging.WithLogOnEvents(logging.FinishCall)
	unary := append([]grpc.UnaryServerInterceptor{recovery.UnaryServerInterceptor(outer)}, s.cfg.Unary...)
	unary = append(unary,
		selector.UnaryServerInterceptor(logging.UnaryServerInterceptor(log, events), operator), s.statusUnary)
	s.guarded = recovery.UnaryServerInterceptor(inner)
	stream := append([]grpc.StreamServerInterceptor{recovery.StreamServerInterceptor(outer)}, s.cfg.Stream...)
	stream = append(stream,
		s.statusStream, ratelimit.StreamServerInterceptor(s.limits), s.guardStream, recovery.StreamServerInterceptor(inner))
	return unary, stream
}

// statusUnary turns errors of all that lies below it into statuses. What lies below is called by name and not chained: each link of a
// chain costs every call a closure.
func (s *Server) statusUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := s.limitUnary(ctx, req, info, next)
	if err != nil {
		return nil, s.status(err)
	}
	return resp, nil
}

// limitUnary identifies the caller, and does for calls what ratelimit's interceptor does for streams.
func (s *Server) limitUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	peer, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.limits.check(peer); err != nil {
		return nil, err
	}
	return s.guardUnary(ctx, peer, req, info, next)
}

// statusStream is statusUnary for streams.
func (s *Server) statusStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.status(next(srv, ss))
}

// status is toStatus, with a word in the log, once a second at most, about why the store can't be written: callers are not told.
func (s *Server) status(err error) error {
	if errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		s.trouble.Do(func() { s.cfg.Log.Error("the store refuses", "error", err) })
	}
	return toStatus(s.cfg.Log, err)
}

// caught turns a panic into an error. Its value may hold anything, so only its type is logged.
func (s *Server) caught(_ context.Context, p any) error {
	s.cfg.Log.Error("panic in a handler", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	return fmt.Errorf("panic of type %T", p)
}

// caughtOutside is caught for what lies outside of the statuses.
func (s *Server) caughtOutside(ctx context.Context, p any) error {
	return toStatus(s.cfg.Log, s.caught(ctx, p))
}

// operatorMethod selects what is logged: not the hot path.
func operatorMethod(_ context.Context, m interceptors.CallMeta) bool {
	return strings.HasPrefix(m.Service, "tokenbroker.v1.") && m.Service != "tokenbroker.v1.TokenService"
}

func (s *Server) logCall(ctx context.Context, level logging.Level, _ string, fields ...any) {
	if c, err := callerOf(ctx); err == nil {
		fields = append(fields, "identity", c.Identity)
	}
	s.cfg.Log.Log(ctx, slog.Level(level), "call ended", fields...)
}

// identityLimits is a token bucket per identity. Buckets of identities that were not seen for a while go.
type identityLimits struct {
	perSecond float64
	burst     int
	refused   func(identity string) // told of each that check refuses

	mu      sync.Mutex
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	*rate.Limiter
	seen time.Time
}

const bucketLife = 10 * time.Minute

func newIdentityLimits(perSecond float64, burst int) *identityLimits {
	return &identityLimits{perSecond: perSecond, burst: burst, buckets: map[string]*bucket{}}
}

// Limit implements ratelimit.Limiter. It has nothing to say of a caller without an identity: the guard refuses that one, with the reason.
func (l *identityLimits) Limit(ctx context.Context) error {
	c, err := callerOf(ctx)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	return l.check(c)
}

func (l *identityLimits) check(c *caller) error {
	if !l.take(c.Identity, time.Now()) {
		l.refused(c.Identity)
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "calls of this identity", RetryAfter: retrySoon}
	}
	return nil
}

// take takes a turn of an identity.
func (l *identityLimits) take(identity string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucketLocked(identity, now).AllowN(now, 1)
}

func (l *identityLimits) bucketLocked(identity string, now time.Time) *bucket {
	if now.Sub(l.swept) > bucketLife {
		for id, b := range l.buckets {
			if now.Sub(b.seen) > bucketLife {
				delete(l.buckets, id)
			}
		}
		l.swept = now
	}
	b := l.buckets[identity]
	if b == nil {
		b = &bucket{Limiter: rate.NewLimiter(rate.Limit(l.perSecond), l.burst)}
		l.buckets[identity] = b
	}
	b.seen = now
	return b
}
