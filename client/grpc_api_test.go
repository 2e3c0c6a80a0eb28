package client_test

import (
	"context"
	"crypto/x509"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// grpcAPI is a gRPC server on a loopback port that keeps the metadata it saw. Its one service is that of health.
type grpcAPI struct {
	Addr string
	srv  *grpc.Server
	done chan struct{}

	mu   sync.Mutex
	seen []metadata.MD
}

// exampleGRPC starts one. What it returns besides are credentials that trust its certificate.
func exampleGRPC() (*grpcAPI, credentials.TransportCredentials) {
	web := httptest.NewTLSServer(nil) // for its certificate
	web.Close()
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	return startGRPC(grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0]))), credentials.NewClientTLSFromCert(pool, "")
}

func startGRPC(opts ...grpc.ServerOption) *grpcAPI {
	a := &grpcAPI{done: make(chan struct{})}
	a.srv = grpc.NewServer(append(opts, grpc.UnaryInterceptor(a.keep))...)
	grpc_health_v1.RegisterHealthServer(a.srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	a.Addr = l.Addr().String()
	go func() {
		defer close(a.done)
		_ = a.srv.Serve(l)
	}()
	return a
}

func (a *grpcAPI) keep(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.mu.Lock()
	a.seen = append(a.seen, md)
	a.mu.Unlock()
	return next(ctx, req)
}

// last is a header of the last call, "" if there is none.
func (a *grpcAPI) last(header string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) == 0 {
		return ""
	}
	return strings.Join(a.seen[len(a.seen)-1].Get(header), ", ")
}

// Scheme is that of the last call's Authorization.
func (a *grpcAPI) Scheme() string {
	scheme, _, _ := strings.Cut(a.last("authorization"), " ")
	return scheme
}

// Close ends it.
func (a *grpcAPI) Close() {
	a.srv.Stop()
	<-a.done
}
