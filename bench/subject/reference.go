package subject

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// reference is a bare grpc-go server.
type reference struct {
	tokenbrokerv1.UnimplementedTokenServiceServer

	grpc   *grpc.Server
	listen net.Listener
	served chan error
	get    atomic.Pointer[tokenbrokerv1.GetTokenResponse]

	mu      sync.Mutex
	update  *tokenbrokerv1.SubscribeResponse
	streams map[grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]]struct{}
}

func openReference(ctx context.Context, c Config) (*reference, error) {
	source, err := mtls.Open(c.Site.files("server"))
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	opts := []grpc.ServerOption{grpc.Creds(credentials.NewTLS(source.ServerTLS(mtls.ServerOptions{})))}
	if c.Role == Tuned {
		opts = append(opts, server.Transport()...)
	}
	r := &reference{grpc: grpc.NewServer(opts...), listen: l, served: make(chan error, 1),
		streams: map[grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]]struct{}{}}
	tokenbrokerv1.RegisterTokenServiceServer(r.grpc, r)
	go func() { r.served <- r.grpc.Serve(l) }()
	return r, nil
}

// GetToken implements tokenbrokerv1.TokenServiceServer.
func (r *reference) GetToken(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	return r.get.Load(), nil
}

// Subscribe implements tokenbrokerv1.TokenServiceServer: it sends what there is, as the product does, and waits to be used by publish.
func (r *reference) Subscribe(_ *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
	r.mu.Lock()
	err := errors.Join(out.Send(r.update), out.Send(&tokenbrokerv1.SubscribeResponse{
		Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{SnapshotEnd: &tokenbrokerv1.SnapshotEnd{}}}))
	if err == nil {
		r.streams[out] = struct{}{}
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	<-out.Context().Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, out)
	return out.Context().Err()
}

func (r *reference) addr() string { return r.listen.Addr().String() }

func (r *reference) replies(o Order) error {
	get, update := &tokenbrokerv1.GetTokenResponse{}, &tokenbrokerv1.SubscribeResponse{}
	if err := errors.Join(proto.Unmarshal(o.Get, get), proto.Unmarshal(o.Update, update)); err != nil {
		return err
	}
	r.get.Store(get)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.update = update
	return nil
}

// publish is the naive way: one loop, one Send per stream.
func (r *reference) publish(context.Context) (Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := proto.CloneOf(r.update)
	next.GetUpdate().Generation++
	next.GetUpdate().GetToken().Generation++
	r.update = next
	now := time.Now().UnixNano()
	for s := range r.streams {
		if err := s.Send(next); err != nil {
			return Report{}, err
		}
	}
	return Report{Answered: now, Published: now}, nil
}

func (r *reference) close() error {
	r.grpc.Stop()
	if err := <-r.served; !errors.Is(err, grpc.ErrServerStopped) { // it had not yet begun
		return err
	}
	return nil
}
