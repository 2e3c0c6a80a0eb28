package server

import (
	"context"
	"errors"
	"sync"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// healthService is grpc's health service whose watches end on a drain: left alone they would hold up GracefulStop.
type healthService struct {
	*health.Server
	ending <-chan struct{}

	mu    sync.Mutex
	ready bool
	down  bool
}

// readiness lists the names that follow readiness; "liveness" is SERVING for as long as anything answers.
var readiness = []string{"", "readiness", tokenbrokerv1.TokenService_ServiceDesc.ServiceName,
	tokenbrokerv1.CredentialService_ServiceDesc.ServiceName, tokenbrokerv1.OAuthClientService_ServiceDesc.ServiceName}

func newHealth(ending <-chan struct{}) *healthService {
	h := &healthService{Server: health.NewServer(), ending: ending}
	h.SetServingStatus("liveness", grpc_health_v1.HealthCheckResponse_SERVING)
	h.set(false)
	return h
}

func (h *healthService) set(ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = ready && !h.down
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if h.ready {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	for _, name := range readiness {
		h.SetServingStatus(name, status)
	}
}

func (h *healthService) shutdown() {
	h.set(false)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
}

// Watch implements grpc_health_v1.HealthServer.
func (h *healthService) Watch(r *grpc_health_v1.HealthCheckRequest, out grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-h.ending:
			cancel()
		case <-stop:
		}
	})
	defer wg.Wait()
	defer close(stop)
	wrapped := middleware.WrapServerStream(out)
	wrapped.WrappedContext = ctx
	return h.Server.Watch(r, &grpc.GenericServerStream[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse]{ServerStream: wrapped})
}

// Ready says why the server should get no calls; nil if it should.
func (s *Server) Ready() error {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	switch {
	case s.health.down:
		return errors.New("draining")
	case !s.health.ready:
		return errors.New("not serving yet")
	}
	return nil
}
