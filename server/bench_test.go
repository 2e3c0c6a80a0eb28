//go:build unix

package server_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// The benchmarks measure the whole broker (policy, metrics and audit on) against a bare grpc-go server with the same transport
// options, certificates and tokens, in turn, and report medians of the ratios. Clients run in the same process and count on both sides.

const benchToken = 1024 // bytes

// bare is a grpc-go server that does nothing but answer.
type bare struct {
	tokenbrokerv1.UnimplementedTokenServiceServer
	answer *tokenbrokerv1.GetTokenResponse
	update *tokenbrokerv1.SubscribeResponse
	addr   net.Addr

	mu      sync.Mutex
	streams []grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]
}

func (s *bare) GetToken(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	return s.answer, nil
}

func (s *bare) Subscribe(_ *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
	err := out.Send(s.update)
	s.mu.Lock()
	s.streams = append(s.streams, out)
	s.mu.Unlock()
	<-out.Context().Done()
	return err
}

// publish is the naive loop.
func (s *bare) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, out := range s.streams {
		_ = out.Send(s.update)
	}
}

// pitch is a broker, a bare server that answers alike, and clients that both take.
type pitch struct {
	b      *testing.B
	broker *brokertest.Broker
	bare   *bare
	began  atomic.Int64 // when the last publishing began, since start
	start  time.Time
}

func newPitch(b *testing.B) *pitch {
	b.Helper()
	p := &pitch{b: b, start: time.Now()}
	p.broker = brokertest.Start(b, brokertest.Config{TCP: true, Observe: p.observe, Limits: server.Limits{CallsPerSecond: 1e9,
		StreamsPerConn: 1 << 20, Heartbeat: time.Hour, ConnectionAge: 24 * time.Hour}})
	p.broker.Sandbox.Fail("fast", sandbox.Fault{Set: map[string]any{"access_token": strings.Repeat("t", benchToken)}, Times: sandbox.Forever})
	p.broker.AddClientCredentials("example/api", "files.read")
	answer, err := tokensOf(p.broker.Worker()).GetToken(b.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	must(b, err)
	p.serveBare(answer)
	return p
}

// observe notes when a publishing begins: when the state changes.
func (p *pitch) observe(ev broker.Event) {
	if ev.Kind == broker.EventState {
		p.began.Store(int64(time.Since(p.start)))
	}
}

func (p *pitch) serveBare(answer *tokenbrokerv1.GetTokenResponse) {
	p.b.Helper()
	file := func(name string) string { return filepath.Join(p.broker.Dir, name) }
	source, err := mtls.Open(mtls.Files{Cert: file("server.pem"), Key: file("server.key"), CA: file("ca.pem")})
	must(p.b, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(p.b, err)
	p.bare = &bare{answer: answer, addr: l.Addr(), update: &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{
		Update: &tokenbrokerv1.Update{Selector: sel("example/api", "files.read"), Generation: 1, Revision: 1, State: answer.GetState(),
			Token: answer.GetToken(), RefreshTime: answer.GetRefreshTime(), DefaultScopes: true, DefaultSubject: true, DefaultAudience: true}}}}
	s := grpc.NewServer(append(server.Transport(), grpc.Creds(credentials.NewTLS(source.ServerTLS(mtls.ServerOptions{}))))...)
	tokenbrokerv1.RegisterTokenServiceServer(s, p.bare)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p.b.Cleanup(func() { s.Stop(); must(p.b, <-served) })
}

// dial opens connections, each of an identity of its own.
func (p *pitch) dial(addr net.Addr, n int) []*lean {
	p.b.Helper()
	conns := make([]*lean, n)
	for i := range conns {
		cert, key, err := p.broker.CA().Issue(mtls.Template{SPIFFEID: worker(fmt.Sprint("bench-", i)), Client: true})
		must(p.b, err)
		conns[i] = dialLean(p.b, addr, clientTLSWith(p.b, p.broker, cert, key))
	}
	return conns
}

// cost is what a piece of work took.
type cost struct{ took, cpu time.Duration }

func measure(work func() time.Duration) cost {
	before := cpu()
	took := work()
	return cost{took: took, cpu: cpu() - before}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// compare reports medians of n pieces of work, a round at a time: ours, and ours by theirs.
func compare(b *testing.B, n int, ours, theirs []cost) {
	b.Helper()
	median := func(of func(i int) float64) float64 {
		var all []float64
		for i := range ours {
			all = append(all, of(i))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(median(func(i int) float64 { return float64(ours[i].cpu) / float64(n) }), "cpu-ns/msg")
	b.ReportMetric(median(func(i int) float64 { return float64(ours[i].cpu) / float64(theirs[i].cpu) }), "cpu-ratio")
	b.ReportMetric(median(func(i int) float64 { return float64(ours[i].took) / float64(theirs[i].took) }), "time-ratio")
	b.ReportMetric(median(func(i int) float64 { return float64(ours[i].took) / 1e6 }), "ms/round")
}

func BenchmarkGetToken(b *testing.B) {
	for _, shape := range []struct{ conns, inFlight int }{{8, 64}, {64, 1}} {
		b.Run(fmt.Sprintf("%dx%d", shape.conns, shape.inFlight), func(b *testing.B) {
			const calls = 12_800
			p := newPitch(b)
			r := newRequest(b, tokenbrokerv1.TokenService_GetToken_FullMethodName, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			run := func(conns []*lean) cost {
				return measure(func() time.Duration {
					began := time.Now()
					var wg sync.WaitGroup
					for _, c := range conns {
						wg.Go(func() {
							if err := c.call(r, calls/len(conns), shape.inFlight); err != nil {
								b.Error(err)
							}
						})
					}
					wg.Wait()
					return time.Since(began)
				})
			}
			ours, theirs := p.dial(p.broker.Daemon.Addr(), shape.conns), p.dial(p.bare.addr, shape.conns)
			run(theirs)
			run(ours)
			var our, their []cost
			b.ReportAllocs()
			for b.Loop() {
				their = append(their, run(theirs))
				our = append(our, run(ours))
			}
			compare(b, calls, our, their)
		})
	}
}

// fans are streams that count what comes.
type fans struct {
	conns []*lean
	left  atomic.Int64
	done  chan time.Time
}

// subscribe opens streams and waits for the first token of each.
func (p *pitch) subscribe(addr net.Addr, conns, streams int) *fans {
	p.b.Helper()
	f := &fans{conns: p.dial(addr, conns), done: make(chan time.Time, 1)}
	r := newRequest(p.b, tokenbrokerv1.TokenService_Subscribe_FullMethodName, &tokenbrokerv1.SubscribeRequest{
		Selectors: []*tokenbrokerv1.Selector{sel("example/api")}})
	f.expect(conns * streams)
	var wg sync.WaitGroup
	for _, c := range f.conns {
		c.got = f.got
		for range streams {
			must(p.b, c.send(r))
		}
		must(p.b, c.out.Flush())
		wg.Go(c.listen)
	}
	p.b.Cleanup(wg.Wait)
	p.b.Cleanup(func() {
		for _, c := range f.conns {
			_ = c.conn.Close()
		}
	})
	<-f.done
	return f
}

func (f *fans) expect(n int) { f.left.Store(int64(n)) }

func (f *fans) got(message int) {
	if message > benchToken && f.left.Add(-1) == 0 {
		f.done <- time.Now()
	}
}

func BenchmarkFanOut(b *testing.B) {
	const conns, streams = 100, 100
	p := newPitch(b)
	ours, theirs := p.subscribe(p.broker.Daemon.Addr(), conns, streams), p.subscribe(p.bare.addr, conns, streams)
	credential := func(disabled bool) {
		_, err := p.broker.Daemon.Broker().SetDisabled(b.Context(), "example/api", disabled)
		must(b, err)
	}
	naive := func() time.Duration {
		theirs.expect(conns * streams)
		began := time.Now()
		p.bare.publish()
		return (<-theirs.done).Sub(began)
	}
	shared := func() time.Duration {
		ours.expect(conns * streams)
		credential(false)
		last := (<-ours.done).Sub(p.start)
		return last - time.Duration(p.began.Load())
	}
	var our, their []cost
	b.ReportAllocs()
	for b.Loop() {
		credential(true) // a small message, not measured
		time.Sleep(300 * time.Millisecond)
		their = append(their, measure(naive))
		our = append(our, measure(shared))
	}
	compare(b, conns*streams, our, their)
}
