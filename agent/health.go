package agent

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const (
	lookAtHealth = time.Second      // between looks, for those who watch
	lookAtBroker = time.Minute      // between looks at a broker that was there
	reachAgain   = time.Second      // between looks at one that is away, over those that package client takes to connect
	reachFor     = 10 * time.Second // for the broker to answer, until the log says that it does not
)

// healthService is grpc's health service, which says the same as /healthz at any time.
type healthService struct {
	*health.Server
	ail func() error // why the agent can hand out nothing; nil if it can
}

// newHealthService serves "liveness" from now on, and all else once the agent runs.
func newHealthService(ail func() error) *healthService {
	h := &healthService{Server: health.NewServer(), ail: ail}
	h.SetServingStatus("liveness", grpc_health_v1.HealthCheckResponse_SERVING)
	h.set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	return h
}

func (h *healthService) set(to grpc_health_v1.HealthCheckResponse_ServingStatus) {
	for _, name := range []string{"", "readiness", tokenbrokerv1.TokenService_ServiceDesc.ServiceName} {
		h.SetServingStatus(name, to)
	}
}

// look takes up how the agent is.
func (h *healthService) look() error {
	err := h.ail()
	if err != nil {
		h.set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		return err
	}
	h.set(grpc_health_v1.HealthCheckResponse_SERVING)
	return nil
}

// Check implements grpc_health_v1.HealthServer.
func (h *healthService) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	_ = h.look()
	return h.Server.Check(ctx, r)
}

// List implements grpc_health_v1.HealthServer.
func (h *healthService) List(ctx context.Context, r *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	_ = h.look()
	return h.Server.List(ctx, r)
}

// Watch implements grpc_health_v1.HealthServer.
func (h *healthService) Watch(r *grpc_health_v1.HealthCheckRequest, out grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	_ = h.look()
	return h.Server.Watch(r, out)
}

// watch tells those who watch, until ctx ends.
func (h *healthService) watch(ctx context.Context) error {
	tick := time.NewTicker(lookAtHealth)
	defer tick.Stop()
	for {
		_ = h.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ail is why the agent can hand out nothing; nil if it can. The broker's outage is no illness of the agent; that its own certificate has ended is.
func (a *Agent) ail() error { return cmp.Or(a.log.Healthy(), a.certificate()) }

// watchBroker tells the log of a broker that can't be reached, at the start or for longer than a moment later on, and of when it can again. Else nobody
// would hear of it until a job asks for what is not held. Jobs are served all the while.
func (a *Agent) watchBroker(ctx context.Context) error {
	away, err := false, a.reach(ctx)
	again := time.NewTimer(0)
	defer again.Stop()
	for ctx.Err() == nil {
		switch {
		case err != nil && !away:
			a.cfg.Log.Warn("the broker can't be reached: until it can, jobs get no tokens but those that are held", "broker", a.cfg.Client.Addr(), "error", err,
				"do", "see whether the broker runs, and whether address and certificates are right: tokenctl get with the agent's environment says more")
		case err == nil && away:
			a.cfg.Log.Info("the broker is reached", "broker", a.cfg.Client.Addr())
		}
		if away = err != nil; away {
			again.Reset(reachAgain)
		} else {
			again.Reset(lookAtBroker)
		}
		select {
		case <-again.C:
			err = a.reach(ctx, grpc.WaitForReady(true))
		case <-ctx.Done():
		}
	}
	return nil
}

// reach asks the broker for its health, which it tells everybody whose certificate it takes. Whatever it answers, it is reached.
func (a *Agent) reach(ctx context.Context, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, reachFor)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(a.cfg.Client.Conn()).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, opts...)
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	default:
		return nil
	}
}
