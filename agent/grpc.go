package agent

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// The limits of a connection that speaks gRPC.
const (
	maxMessage = 64 << 10
	maxHeader  = 32 << 10
)

// kernel are transport credentials by which the kernel vouches for a peer: nothing is encrypted, as nothing leaves the host.
type kernel struct {
	credentials.TransportCredentials
}

// vouched is what a call knows of its caller.
type vouched struct {
	credentials.CommonAuthInfo
	conn *conn
}

// AuthType implements credentials.AuthInfo.
func (vouched) AuthType() string { return "peer credentials" }

// ServerHandshake implements credentials.TransportCredentials.
func (kernel) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, vouched{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c.(*conn)}, nil
}

// Info implements credentials.TransportCredentials.
func (kernel) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peer credentials"}
}

// Clone implements credentials.TransportCredentials.
func (k kernel) Clone() credentials.TransportCredentials { return k }

// connOf is the connection that a call came by.
func connOf(ctx context.Context) *conn {
	p, _ := peer.FromContext(ctx)
	return p.AuthInfo.(vouched).conn
}

// newGRPC makes the server of the same services as the broker's for workers.
func (a *Agent) newGRPC() *grpc.Server {
	s := grpc.NewServer(grpc.Creds(kernel{}), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader), grpc.ConnectionTimeout(sortTimeout), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.InTapHandle(a.tap), grpc.UnaryInterceptor(a.statusUnary), grpc.StreamInterceptor(a.statusStream))
	tokenbrokerv1.RegisterTokenServiceServer(s, &tokenService{a: a})
	grpc_health_v1.RegisterHealthServer(s, a.health)
	reflection.Register(s)
	return s
}

// tap bounds how many calls a user may have under way, before any of their requests is read.
func (a *Agent) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	end := a.lobby.begin(connOf(ctx))
	if end == nil {
		return ctx, a.status(&tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "calls of this user", RetryAfter: time.Second})
	}
	context.AfterFunc(ctx, end)
	return ctx, nil
}

// recovered turns a panic into an error: it must not end the agent for the whole host.
func (a *Agent) recovered(err *error) {
	if p := recover(); p != nil {
		*err = statusOf(a.panicked(p)).Err()
	}
}

// panicked tells the log of a panic. Its value may hold anything, and goes nowhere.
func (a *Agent) panicked(value any) error {
	a.cfg.Log.Error("panic in a handler", "type", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	return errInternal
}

// statusUnary turns errors into the statuses that the broker would give.
func (a *Agent) statusUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer a.recovered(&err)
	resp, err = next(ctx, req)
	if err != nil {
		noRetry(ctx, err)
		return nil, statusOf(err).Err()
	}
	return resp, nil
}

// statusStream is statusUnary for streams. The streams of the other services know nothing of a drain: it ends their context, and what does
// not look at that is ended with its patience.
func (a *Agent) statusStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer a.recovered(&err)
	if info.FullMethod == tokenbrokerv1.TokenService_Subscribe_FullMethodName {
		return a.status(next(srv, ss))
	}
	ctx, cancel := context.WithCancel(ss.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-a.ending:
			cancel()
		case <-ctx.Done():
		}
	})
	return next(srv, during{ss, func() context.Context { return ctx }})
}

// during is a stream with a context of its own.
type during struct {
	grpc.ServerStream
	ctx func() context.Context
}

// Context implements grpc.ServerStream.
func (d during) Context() context.Context { return d.ctx() }

func (a *Agent) status(err error) error { return statusOf(a.explained(err, false, noToken)).Err() }

// tokenService is the TokenService of an agent.
type tokenService struct {
	tokenbrokerv1.UnimplementedTokenServiceServer
	a *Agent
}

// variantRequest is a request that names a token.
type variantRequest interface {
	GetCredential() string
	GetScopes() []string
	GetSubject() string
	GetAudience() string
}

func asked(ctx context.Context, r variantRequest) question {
	return question{peer: connOf(ctx).peer, credential: r.GetCredential(), scopes: r.GetScopes(), subject: r.GetSubject(), audience: r.GetAudience(),
		began: time.Now(), id: requestID()}
}

// GetToken implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) GetToken(ctx context.Context, r *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	q := asked(ctx, r)
	if d := r.GetMinValidity(); d != nil {
		if q.least = d.AsDuration(); d.CheckValid() != nil {
			q.least = -1
		}
	}
	tok, err := t.a.token(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.GetTokenResponse{Token: toProto(tok)}
	var due time.Time
	resp.State, resp.RecoveryAction, due = t.a.standing(q)
	if !due.IsZero() {
		resp.RefreshTime = timestamppb.New(due)
	}
	return resp, nil
}

// standing is how a token that is held stands, as far as the client knows: whether its refresh is overdue.
func (a *Agent) standing(q question) (tokenbrokerv1.CredentialState, tokenbrokerv1.RecoveryAction, time.Time) {
	due, stale := a.cfg.Client.Stale(q.credential, q.options()...)
	if stale {
		return tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DEGRADED, tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_RETRY, due
	}
	return tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY, tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_NONE, time.Time{}
}

// ReportRejected implements tokenbrokerv1.TokenServiceServer.
func (t *tokenService) ReportRejected(ctx context.Context, r *tokenbrokerv1.ReportRejectedRequest) (*tokenbrokerv1.ReportRejectedResponse, error) {
	q := asked(ctx, r)
	tok, wait, err := t.a.report(ctx, q, tokenbroker.Generation(r.GetGeneration()), int(r.GetHttpStatus()), r.GetErrorCode())
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.ReportRejectedResponse{Token: toProto(tok), Outcome: tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_COUNTED}
	resp.State, resp.RecoveryAction, _ = t.a.standing(q)
	switch {
	case uint64(tok.Generation) > r.GetGeneration():
		resp.Outcome = tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_NEWER
	case wait > 0:
		resp.Outcome, resp.RetryDelay = tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_WAIT, durationpb.New(wait)
	}
	return resp, nil
}

func toProto(t tokenbroker.Token) *tokenbrokerv1.Token {
	return &tokenbrokerv1.Token{AccessToken: t.AccessToken.Reveal(), TokenType: t.Type, Scopes: t.Scopes, ExpireTime: timestamppb.New(t.Expiry),
		ExpireTimeEstimated: t.ExpiryEstimated, Generation: uint64(t.Generation), Metadata: t.Metadata}
}
