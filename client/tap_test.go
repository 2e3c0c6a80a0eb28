package client_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// tap counts what a client sends.
type tap struct {
	mu     sync.Mutex
	gets   int
	report *tokenbrokerv1.ReportRejectedRequest // the last
	opened []int                                // selectors of each stream that was opened
	open   map[grpc.ClientStream]int            // selectors of those that are open
	gap    bool                                 // there was a moment without a stream after the first
}

func (p *tap) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithUnaryInterceptor(p.unary), grpc.WithStreamInterceptor(p.stream)}
}

func (p *tap) unary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	p.mu.Lock()
	switch r := req.(type) {
	case *tokenbrokerv1.GetTokenRequest:
		p.gets++
	case *tokenbrokerv1.ReportRejectedRequest:
		p.report = r
	}
	p.mu.Unlock()
	return call(ctx, method, req, resp, conn, opts...)
}

func (p *tap) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil || method != tokenbrokerv1.TokenService_Subscribe_FullMethodName {
		return s, err
	}
	return &tappedStream{ClientStream: s, p: p}, nil
}

type tappedStream struct {
	grpc.ClientStream
	p *tap
}

func (s *tappedStream) SendMsg(m any) error {
	n := len(m.(*tokenbrokerv1.SubscribeRequest).GetSelectors())
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.opened = append(s.p.opened, n)
	if s.p.open == nil {
		s.p.open = map[grpc.ClientStream]int{}
	}
	s.p.open[s] = n
	return s.ClientStream.SendMsg(m)
}

func (s *tappedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		delete(s.p.open, s)
		s.p.gap = s.p.gap || len(s.p.open) == 0
	}
	return err
}

// now says how many selectors each open stream has, fewest first.
func (p *tap) now() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []int
	for _, n := range p.open {
		got = append(got, n)
	}
	slices.Sort(got)
	return got
}

// counts says how often GetToken was called, how many streams were opened, and whether there was a time without one after the first.
func (p *tap) counts() (gets, opened int, gap bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gets, len(p.opened), p.gap
}

// tapped runs a test in fake time against a broker with a client whose calls are counted.
func tapped(t *testing.T, cfg brokertest.Config, do func(*testing.T, *brokertest.Broker, *client.Client, *tap)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.WatchEvery = cmp.Or(cfg.WatchEvery, time.Minute) // hours pass in which nothing of it changes
		b := brokertest.Start(t, cfg)
		defer b.Stop()
		p := &tap{}
		c, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID,
			Files: b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}), Dial: append(p.options(), b.Dialer())})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		do(t, b, c, p)
	})
}
