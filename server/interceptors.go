package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
)

// Meter counts the calls of one method. Its methods are called for every call, by many at once.
type Meter interface {
	// Began is called when a call came in.
	Began()
	// Ended is called when its answer is about to leave, with what the client is told.
	Ended(err error, took time.Duration)
}

// method is what the server knows of a method before anybody calls it.
type method struct {
	need   need
	listed bool         // it is in the guard's table
	meter  func() Meter // made at the first call
	logs   bool         // calls are logged: those of operators, not the hot path
}

// methods finds out about all methods, so that a call costs one look-up.
func methods(count func(method string) Meter) map[string]*method {
	if count == nil {
		count = func(string) Meter { return uncounted{} }
	}
	all := make(map[string]*method, len(needs))
	for name, n := range needs {
		all[name] = &method{need: n, listed: true, meter: sync.OnceValue(func() Meter { return count(name) }),
			logs: strings.HasPrefix(name, "/tokenbroker.v1.") && !strings.HasPrefix(name, "/tokenbroker.v1.TokenService/")}
	}
	return all
}

// method finds a method. One that there is not is not listed, and nobody counts its calls.
func (s *Server) method(name string) *method {
	if m := s.methods[name]; m != nil {
		return m
	}
	return &method{meter: func() Meter { return uncounted{} }}
}

// uncounted is the Meter of nobody.
type uncounted struct{}

func (uncounted) Began()                     {}
func (uncounted) Ended(error, time.Duration) {}

// incoming is a unary call as it came in.
type incoming struct {
	*method
	began time.Time
	req   any
	info  *grpc.UnaryServerInfo
	next  grpc.UnaryHandler // the handler
}

// interceptors returns the one for unary calls and the chain for streams, outermost first. Metrics and logs lie outside of the statuses,
// to see what clients see. Panics are caught twice: in handlers, so that the guard still writes its record, and in what lies around them.
func (s *Server) interceptors() (grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	outer, inner := recovery.WithRecoveryHandlerContext(s.caughtOutside), recovery.WithRecoveryHandlerContext(s.caught)
	s.methods = methods(s.cfg.Meter)
	s.guarded = recovery.UnaryServerInterceptor(inner)
	s.logged = logging.UnaryServerInterceptor(logging.LoggerFunc(s.logCall), logging.WithLogOnEvents(logging.FinishCall))
	stream := append([]grpc.StreamServerInterceptor{recovery.StreamServerInterceptor(outer)}, s.cfg.Stream...)
	stream = append(stream,
		s.statusStream, ratelimit.StreamServerInterceptor(s.limits), s.guardStream, recovery.StreamServerInterceptor(inner))
	return s.unary, stream
}

// unary takes a unary call all the way. It is one function in place of a chain, each link of which would cost every call a closure.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	in := incoming{method: s.method(info.FullMethod), began: time.Now(), req: req, info: info, next: next}
	meter := in.meter()
	meter.Began()
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.caughtOutside(ctx, p)
		}
		meter.Ended(err, time.Since(in.began))
	}()
	if !in.logs {
		return s.statusUnary(ctx, in)
	}
	return s.logged(ctx, req, info, func(ctx context.Context, _ any) (any, error) { return s.statusUnary(ctx, in) })
}

// statusUnary turns errors of all that lies below it into statuses.
func (s *Server) statusUnary(ctx context.Context, in incoming) (any, error) {
	resp, err := s.limitUnary(ctx, in)
	if err != nil {
		pushBack(ctx, err)
		return nil, s.status(err)
	}
	return resp, nil
}

// limitUnary identifies the caller, and does for calls what ratelimit's interceptor does for streams.
func (s *Server) limitUnary(ctx context.Context, in incoming) (any, error) {
	peer, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.limits.check(peer, in.began); err != nil {
		return nil, err
	}
	return s.guardUnary(ctx, peer, in)
}

// statusStream is statusUnary for streams.
func (s *Server) statusStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.status(next(srv, ss))
}

// status is toStatus, with a word in the log, once a second at most, about why the store can't be written: callers are not told.
func (s *Server) status(err error) error {
	if errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		s.refuses.Store(true)
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
	seen atomic.Int64 // when it was used last, in Unix nanoseconds, to a second or so
	gone atomic.Bool  // there may be another one by now
}

// use takes a turn.
func (b *bucket) use(now time.Time) bool {
	if at := now.UnixNano(); at-b.seen.Load() > int64(time.Second) {
		b.seen.Store(at)
	}
	return b.AllowN(now, 1)
}

const bucketLife = 10 * time.Minute

// burstOf is how many calls an identity may make at once: those of two seconds.
func burstOf(perSecond float64) int { return int(min(2*perSecond, math.MaxInt32-1)) + 1 }

func newIdentityLimits(perSecond float64, burst int) *identityLimits {
	return &identityLimits{perSecond: perSecond, burst: burst, buckets: map[string]*bucket{}}
}

// Limit implements ratelimit.Limiter. It has nothing to say of a caller without an identity: the guard refuses that one, with the reason.
func (l *identityLimits) Limit(ctx context.Context) error {
	c, err := callerOf(ctx)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	return l.check(c, time.Now())
}

func (l *identityLimits) check(c *caller, now time.Time) error {
	b := c.bucket.Load() // a connection finds it once
	if b == nil || b.gone.Load() {
		b = l.bucket(c.Identity, now)
		c.bucket.Store(b)
	}
	if !b.use(now) {
		l.refused(c.Identity)
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "calls of this identity", RetryAfter: retrySoon}
	}
	return nil
}

// take takes a turn of an identity.
func (l *identityLimits) take(identity string, now time.Time) bool {
	return l.bucket(identity, now).use(now)
}

func (l *identityLimits) bucket(identity string, now time.Time) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) > bucketLife {
		for id, b := range l.buckets {
			if now.UnixNano()-b.seen.Load() > int64(bucketLife) {
				b.gone.Store(true)
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
	b.seen.Store(now.UnixNano())
	return b
}
