package agent

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/client"
)

// distant is a broker as far as its health goes, which comes and goes.
type distant struct {
	health *health.Server
	wg     sync.WaitGroup
	server *grpc.Server
	in     atomic.Pointer[inlet]
}

func (d *distant) come(opts ...grpc.ServerOption) {
	in, server := newInlet(&net.UnixAddr{Name: "broker", Net: "unix"}), grpc.NewServer(opts...)
	grpc_health_v1.RegisterHealthServer(server, d.health)
	d.server = server
	d.in.Store(in)
	d.wg.Go(func() { _ = server.Serve(in) })
}

func (d *distant) leave() {
	d.server.Stop()
	_ = d.in.Load().Close()
	d.wg.Wait()
}

func (d *distant) dial(context.Context, string) (net.Conn, error) {
	in := d.in.Load()
	mine, theirs := net.Pipe()
	select {
	case in.conns <- theirs:
		return mine, nil
	case <-in.done:
		return nil, errors.New("nobody is there")
	}
}

func TestABrokerThatGoesAwayIsToldOfOnceAndSoIsItsReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := newBare(t), &distant{health: health.NewServer()}
		_ = b.cfg.Client.Close()
		d.come()
		c, err := client.New(client.Config{Addr: "unix:///none", Dial: []grpc.DialOption{grpc.WithContextDialer(d.dial)}})
		if err != nil {
			t.Fatal(err)
		}
		b.cfg.Client = c
		ctx, cancel := context.WithCancel(t.Context())
		b.wg.Go(func() { _ = b.watchBroker(ctx) })
		lines := func(away, back int) {
			t.Helper()
			synctest.Wait()
			if got := b.log.String(); strings.Count(got, "can't be reached") != away || strings.Count(got, "is reached") != back {
				t.Errorf("got log\n%s\nwant %d lines of an absence and %d of a return", got, away, back)
			}
		}
		time.Sleep(time.Hour)
		lines(0, 0)
		d.leave()
		time.Sleep(time.Hour)
		lines(1, 0)
		d.come()
		time.Sleep(5 * time.Minute)
		lines(1, 1)
		d.leave() // for a moment: it restarts
		d.come()
		time.Sleep(time.Hour)
		lines(1, 1)
		d.leave()
		var asked atomic.Int32
		d.come(grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			asked.Add(1)
			return nil, status.Error(codes.Unavailable, "no upstream") // as a proxy in front of it says
		}))
		time.Sleep(time.Hour)
		lines(2, 1)
		if got := asked.Load(); got > 3700 {
			t.Errorf("a proxy is asked %d times in an hour, want once a second at most", got)
		}
		cancel()
		d.leave()
		b.end()
	})
}
