package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/usage"
)

// Config is what a Server needs.
type Config struct {
	Broker    *broker.Broker                            // required
	Policy    func() *policy.Policy                     // the policy in force; required
	Audit     func(context.Context, audit.Record) error // writes one record, returns when it is written; required
	AuditLate func(audit.Record) (audit.Receipt, bool)  // begins to write one, as audit.Log.Later; nil = each answer waits for its record by itself
	Trail     Trail                                     // nil = there is no AuditService
	MACs      func(token string) []string               // what records may name a token by, the newest first; nil = only by what callers give
	TLS       *mtls.Source                              // required
	Accept    mtls.ServerOptions                        // whom the listener lets in
	Admin     *mtls.Source                              // of ServeAdmin; nil = there is one listener, for everything
	AdminLets mtls.ServerOptions                        // whom ServeAdmin lets in
	Consents  Consents                                  // nil = there is no ConsentService
	Providers Providers                                 // nil = there is no ProviderService
	Log       *slog.Logger                              // nil = slog.Default()
	Limits    Limits                                    // zero values are good
	Meter     func(method string) Meter                 // who counts the calls of a unary method, asked for each once; nil = nobody
	Stream    []grpc.StreamServerInterceptor            // run right after recover; metrics
	Opened    func(streams int)                         // told how many subscriptions are open, at each change; nil = nobody asks
	Denied    func(action policy.Action, reason string) // told of each denied call; nil = nobody asks
	Audited   func(rule string, action policy.Action)   // told of each call and selector that a rule in audit mode lets pass; nil = nobody asks
	Usage     *usage.Book                               // counts who used what; nil = nobody counts
	Edge      Edge                                      // told of connections
	Lives     func(fresh bool) int64                    // bytes of memory that are in use, freshly counted or as last known; nil = as the runtime has it
	Cut       func(reason string)                       // told of each connection that is cut for its certificate; nil = nobody asks
}

// How many denied calls of one identity are recorded one by one: beyond that they are refused, counted and summed up.
const (
	deniedPerSecond = 10
	deniedBurst     = 200
)

// Server serves the broker's RPCs.
type Server struct {
	cfg     Config
	grpc    *grpc.Server // for workers, and for everybody if there is no other
	admin   *grpc.Server // nil = none
	peers   *peers
	health  *healthService
	streams *streams
	senders *senders
	limits  *identityLimits
	shedder *shedder

	admission *admission

	methods map[string]*method          // by full name
	logged  grpc.UnaryServerInterceptor // logs calls of operators
	guarded grpc.UnaryServerInterceptor // the recovery of handlers
	trouble rate.Sometimes              // limits what is logged of a store that refuses
	refuses atomic.Bool                 // the store has refused since a change last went well
	denials *identityLimits             // denied calls that are recorded one by one
	tally   *tally                      // of what is not

	lingering sync.WaitGroup // goroutines of reflections and tails, which may outlive their streams for a moment

	drainOnce sync.Once
	goingAway chan struct{} // closed: tell subscribers to go elsewhere
	ending    chan struct{} // closed: end subscriptions and health watches
}

// New makes a Server. Serve runs it.
func New(cfg Config) (*Server, error) {
	if cfg.Broker == nil || cfg.Policy == nil || cfg.Audit == nil || cfg.TLS == nil {
		return nil, errors.New("server: Config needs Broker, Policy, Audit and TLS")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Limits = cfg.Limits.filled()
	s := &Server{cfg: cfg, goingAway: make(chan struct{}), ending: make(chan struct{}), trouble: rate.Sometimes{Interval: time.Second}}
	s.limits = newIdentityLimits(cfg.Limits.CallsPerSecond, burstOf(cfg.Limits.CallsPerSecond))
	s.denials = newIdentityLimits(deniedPerSecond, deniedBurst)
	s.tally = newTally(cfg.Audit)
	s.limits.refused = func(identity string) {
		s.tally.add(sum{identity: identity, reason: summedTooMany, code: codeOf(tokenbroker.ErrTooMany)})
	}
	s.streams = newStreams(cfg.Limits.StreamsPerIdentity, cfg.Opened)
	s.senders = newSenders()
	s.shedder = newShedder(cfg)
	s.admission = newAdmission(cfg.Limits, cfg.Edge, s.shedder)
	s.health = newHealth(s.ending)
	s.peers = newPeers(cfg.Log, cfg.Cut)
	s.grpc = grpc.NewServer(s.options(cfg.TLS.Gate(cfg.Accept), false)...)
	s.registerWorker(s.grpc)
	if cfg.Admin == nil {
		s.registerAdmin(s.grpc)
		return s, nil
	}
	s.admin = grpc.NewServer(s.options(cfg.Admin.Gate(cfg.AdminLets), true)...)
	s.registerWorker(s.admin)
	s.registerAdmin(s.admin)
	return s, nil
}

// registerWorker registers what the listener of workers serves. The table says which methods these are, and is asked for each call, too.
func (s *Server) registerWorker(g *grpc.Server) {
	tokenbrokerv1.RegisterTokenServiceServer(g, &tokenService{s: s})
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
}

// registerAdmin registers what is for operators.
func (s *Server) registerAdmin(g *grpc.Server) {
	tokenbrokerv1.RegisterCredentialServiceServer(g, &credentialService{b: s.cfg.Broker, audit: s.cfg.Audit, usage: s.cfg.Usage})
	tokenbrokerv1.RegisterOAuthClientServiceServer(g, &oauthClientService{b: s.cfg.Broker})
	tokenbrokerv1.RegisterConsentServiceServer(g, newConsentService(s.cfg))
	tokenbrokerv1.RegisterProviderServiceServer(g, newProviderService(s.cfg))
	tokenbrokerv1.RegisterAuditServiceServer(g, newAuditService(s))
	tokenbrokerv1.RegisterPolicyServiceServer(g, &policyService{b: s.cfg.Broker, usage: s.cfg.Usage})
}

func (s *Server) options(gate *mtls.Gate, admin bool) []grpc.ServerOption {
	l := s.cfg.Limits
	unary, stream := s.interceptors()
	return append(Transport(),
		grpc.Creds(newCredentials(gate, admin, s.tally.handshakes(logRefused(s.cfg.Log)), s.peers, s.admission)),
		grpc.UnaryInterceptor(unary),
		grpc.ChainStreamInterceptor(stream...),
		grpc.UnknownServiceHandler(unknownMethod),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxConcurrentStreams(l.StreamsPerConn),
		grpc.MaxHeaderListSize(l.HeaderBytes),
		grpc.MaxRecvMsgSize(l.RequestBytes),
		grpc.ConnectionTimeout(l.HandshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: l.Keepalive, Timeout: l.KeepaliveTimeout, MaxConnectionIdle: l.ConnectionIdle,
			MaxConnectionAge: l.ConnectionAge, MaxConnectionAgeGrace: l.ConnectionGrace,
		}),
	)
}

// streamWorkers is how many goroutines wait for calls. A new one for each call would have to grow its stack each time; streams keep
// theirs, so that many of them leave none.
const streamWorkers = 512

// Transport is how the server tunes its connections, for whoever wants to compare it with another grpc-go server: requests are small,
// so windows need not be probed for.
func Transport() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.StaticStreamWindowSize(64 << 10), grpc.StaticConnWindowSize(1 << 20), grpc.NumStreamWorkers(streamWorkers)}
}

// Serve serves l until Drain or Close, also one that came before. It closes l. With Config.Admin it serves what workers need, and nothing
// else.
func (s *Server) Serve(l net.Listener) error {
	return s.serve(s.grpc, &door{Listener: l, admission: s.admission})
}

// ServeAdmin is Serve for everything, to those whom Config.Admin vouches for.
func (s *Server) ServeAdmin(l net.Listener) error {
	return s.serve(s.admin, &door{Listener: l, admission: s.admission, admin: true})
}

func (s *Server) serve(g *grpc.Server, l net.Listener) error {
	if err := g.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// SetServing says by the health service whether the broker is ready. It has no effect once draining began.
func (s *Server) SetServing(ready bool) { s.health.set(ready) }

// Close ends at once a server that is not drained, also one that never served.
func (s *Server) Close() {
	s.each((*grpc.Server).Stop)
	s.tally.close()
}

// each does something to all servers at a time, and waits.
func (s *Server) each(do func(*grpc.Server)) {
	var wg sync.WaitGroup
	if s.admin != nil {
		wg.Go(func() { do(s.admin) })
	}
	do(s.grpc)
	wg.Wait()
}

// PolicyChanged judges all subscriptions anew. Call it after another policy came in force.
func (s *Server) PolicyChanged(ctx context.Context) { s.streams.reconsider(ctx) }

// CertificatesChanged judges the peers of all connections anew: one whose certificate is denied, or does not chain to a bundle any more, is
// told so and cut. Call it after certificates, bundles or the deny list changed. Calls are judged by what is in force anyway.
func (s *Server) CertificatesChanged() { s.peers.reconsider() }

// Drain ends serving in order: health says NOT_SERVING and subscribers are told to go elsewhere; no exchange is begun any more and
// those in flight are committed; subscriptions and health watches end; the other calls are let finish. When ctx ends first, what
// is left is cut.
func (s *Server) Drain(ctx context.Context) {
	s.drainOnce.Do(func() {
		s.health.shutdown()
		close(s.goingAway)
		done := make(chan struct{})
		go func() {
			s.cfg.Broker.Drain()
			close(s.ending)
			s.each((*grpc.Server).GracefulStop)
			s.lingering.Wait()
			s.senders.wait()
			s.tally.close()
			close(done)
		}()
		select {
		case <-done:
		case <-ctx.Done():
			s.cfg.Broker.Close()
			s.Close()
			<-done
		}
	})
}
