package server_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// crowd subscribes with so many streams on each of some connections, and tells of the newest order that each has seen.
type crowd struct {
	t        *testing.T
	watchers []*watcher
}

func newCrowd(t *testing.T, b *brokertest.Broker, conns, streams int, name string) *crowd {
	t.Helper()
	c := &crowd{t: t}
	for i := range conns {
		conn := b.Conn(worker(fmt.Sprint("crowd-", i)))
		for range streams {
			c.watchers = append(c.watchers, watch(t, conn, sel(name)))
		}
	}
	for _, w := range c.watchers {
		w.ready(0)
	}
	return c
}

// reach waits until every stream of the crowd has seen an order.
func (c *crowd) reach(want tokenbroker.Order) {
	c.t.Helper()
	for _, w := range c.watchers {
		w.until(func(e *tokenbrokerv1.SubscribeResponse) bool {
			return e.GetUpdate() != nil && orderOf(e.GetUpdate()).Compare(want) >= 0
		})
	}
}

func (c *crowd) leave() {
	for _, w := range c.watchers {
		w.cancel()
	}
}

// newest is the order of a credential's state at present.
func newest(t *testing.T, conn *grpc.ClientConn, name string) tokenbroker.Order {
	t.Helper()
	w := watch(t, conn, sel(name))
	defer w.cancel()
	return orderOf(w.update())
}

func TestSlowReadersDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		const slow = 6 // more than there are senders
		for range slow {
			unread(t, b, "example/bulky")
		}
		for subscribers(t, b, "example/bulky") < slow {
			time.Sleep(time.Millisecond)
		}
		edit(6) // what the transport holds for them is nearly full
		looks := b.Worker()
		others := newCrowd(t, b, 10, 100, "example/bulky")
		defer others.leave()
		for subscribers(t, b, "example/bulky") < slow+1000 {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		for range 5 {
			edit(1)
			others.reach(newest(t, looks, "example/bulky"))
		}
		if late := time.Since(began); late > time.Second {
			t.Errorf("%d slow readers held up the others by %v in all, want less than the second that a few new senders take", slow, late)
		}
		if n := subscribers(t, b, "example/bulky"); n != slow+1000 {
			t.Errorf("got %d subscribers, want all still there", n)
		}
	})
}

// TestManySlowReadersAtOnceDelayLikeOne: each catches a sender for a moment, one after the other, were there not more senders each time.
func TestManySlowReadersAtOnceDelayLikeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		const slow = 60
		for range slow {
			unread(t, b, "example/bulky")
		}
		for subscribers(t, b, "example/bulky") < slow {
			time.Sleep(time.Millisecond)
		}
		others := newCrowd(t, b, 2, 2, "example/bulky")
		defer others.leave()
		for range 12 { // somewhere among them all are caught
			began := time.Now()
			edit(1)
			others.reach(newest(t, b.Worker(), "example/bulky"))
			if late := time.Since(began); late > 500*time.Millisecond {
				t.Errorf("%d slow readers held up the others by %v", slow, late)
			}
		}
	})
}

func TestAReaderOnTheConnectionOfASlowOneIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		conn := b.Conn(worker("both"), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(16<<20))
		if _, err := tokensOf(conn).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{sel("example/bulky")}}); err != nil {
			t.Fatal(err)
		}
		w := watch(t, conn, sel("example/bulky"))
		defer w.cancel()
		w.ready(0)
		other := &crowd{t: t, watchers: []*watcher{w}}
		began := time.Now()
		for range 40 {
			edit(1)
			other.reach(newest(t, b.Worker(), "example/bulky"))
		}
		if late := time.Since(began); late > time.Second {
			t.Errorf("a slow reader held up the other stream of its connection by %v", late)
		}
	})
}

func TestASlowReaderThatCatchesUpIsServedAsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		stream := unread(t, b, "example/bulky")
		for subscribers(t, b, "example/bulky") < 1 {
			time.Sleep(time.Millisecond)
		}
		for range 3 {
			edit(30)
			time.Sleep(time.Second) // its sender is replaced
			for want := newest(t, b.Worker(), "example/bulky"); ; {
				e, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if u := e.GetUpdate(); u != nil && orderOf(u) == want {
					break
				}
			}
		}
		began := time.Now()
		edit(1)
		for want := newest(t, b.Worker(), "example/bulky"); ; {
			e, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if u := e.GetUpdate(); u != nil && orderOf(u) == want {
				break
			}
		}
		if late := time.Since(began); late > 0 {
			t.Errorf("a reader that has caught up gets the next update %v late", late)
		}
	})
}

func TestInAStormOrdersRiseAndTheNewestArrives(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	all := newCrowd(t, b, 4, 25, "example/api") // each watcher checks that orders rise
	var wg sync.WaitGroup
	for storm := range 4 {
		wg.Go(func() {
			for i := range 25 {
				_, err := b.Daemon.Broker().SetDisabled(context.Background(), "example/api", (storm+i)%2 == 0)
				if err != nil && !errors.Is(err, tokenbroker.ErrETagMismatch) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := b.Daemon.Broker().SetDisabled(t.Context(), "example/api", false); err != nil {
		t.Fatal(err)
	}
	all.reach(newest(t, b.Worker(), "example/api"))
	for _, w := range all.watchers {
		w.cancel()
		if err := w.end(); status.Code(err) != codes.Canceled {
			t.Errorf("a stream ended with %v, want by its client", err)
		}
	}
	eventually(t, "all have left", func() bool { return subscribers(t, b, "example/api") == 0 })
}

func TestAShutdownDoesNotWaitForASlowReaderForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: 5 * time.Second, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		for range 4 {
			unread(t, b, "example/bulky")
		}
		w := watch(t, b.Worker(), sel("example/bulky"))
		w.ready(0)
		for subscribers(t, b, "example/bulky") < 5 {
			time.Sleep(time.Millisecond)
		}
		edit(20)
		began := time.Now()
		b.Shutdown()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the shutdown took %v with blocked sends, want no more than the slow reader's time", took)
		}
		wantFault(t, w.end(), codes.Unavailable, "SHUTTING_DOWN")
	})
}

func TestASubscriberThatLeavesInASendHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{SlowReader: time.Hour, ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		edit := bulky(t, b)
		ctx, leave := context.WithCancel(t.Context())
		conn := b.Conn(worker("leaves"), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
		for range 3 {
			_, err := tokensOf(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{sel("example/bulky")}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for subscribers(t, b, "example/bulky") < 3 {
			time.Sleep(time.Millisecond)
		}
		edit(30)
		leave()
		synctest.Wait()
		if n := subscribers(t, b, "example/bulky"); n != 0 {
			t.Errorf("got %d subscribers, want those in a send gone as well", n)
		}
		w := watch(t, b.Worker(), sel("example/bulky"))
		defer w.cancel()
		w.ready(0)
		edit(1)
		(&crowd{t: t, watchers: []*watcher{w}}).reach(newest(t, b.Worker(), "example/bulky"))
	})
}

// gate stands in the way of sends. It is a fault that the transport can't be made to have at a given moment.
type gate struct {
	grpc.ServerStream
	armed     *atomic.Bool
	entered   chan struct{}
	open      chan struct{}
	sending   atomic.Int32
	panicking bool
}

func (g *gate) SendMsg(m any) error {
	if !g.armed.Load() {
		return g.ServerStream.SendMsg(m)
	}
	if g.panicking {
		panic("the send")
	}
	if g.sending.Add(1) > 1 {
		panic("two send at once")
	}
	defer g.sending.Add(-1)
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	return g.ServerStream.SendMsg(m)
}

// gated is a server whose streams pass a gate, and what its handlers end with.
func gated(t *testing.T, g *gate) (r *rig, ended chan error) {
	t.Helper()
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	g.armed, g.entered, g.open, ended = new(atomic.Bool), make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
	r = newRig(t, b, func(c *server.Config) {
		c.Limits.Heartbeat = time.Millisecond // so that the handler wants to send all the time
		c.Stream = []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			g.ServerStream = ss
			err := next(srv, g)
			if g.sending.Load() > 0 {
				t.Error("the handler returned while a send was under way")
			}
			ended <- err
			return err
		}}
	})
	return r, ended
}

func TestAHandlerDoesNotReturnWhileASendIsUnderWay(t *testing.T) {
	g := &gate{}
	r, ended := gated(t, g)
	w := watch(t, r.serve(brokertest.WorkerID), sel("example/api"))
	w.ready(0)
	g.armed.Store(true)
	for _, off := range []bool{true, false} {
		if _, err := r.b.Daemon.Broker().SetDisabled(t.Context(), "example/api", off); err != nil {
			t.Fatal(err)
		}
	}
	<-g.entered
	w.cancel()
	if err := w.end(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want CANCELED", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the handler returned %v", err)
	default:
	}
	g.armed.Store(false)
	close(g.open)
	if err := <-ended; err == nil {
		t.Error("the handler returned nil")
	}
}

func TestAPanicInASendEndsItsStreamOnly(t *testing.T) {
	g := &gate{panicking: true}
	r, ended := gated(t, g)
	conn := r.serve(brokertest.WorkerID)
	w := watch(t, conn, sel("example/api"))
	w.ready(0)
	g.armed.Store(true)
	if _, err := r.b.Daemon.Broker().SetDisabled(t.Context(), "example/api", true); err != nil {
		t.Fatal(err)
	}
	wantFault(t, w.end(), codes.Internal, "INTERNAL")
	<-ended
	g.armed.Store(false)
	if u := watch(t, conn, sel("example/api")).update(); u.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED {
		t.Errorf("got %v, want another stream served", u.GetState())
	}
}
