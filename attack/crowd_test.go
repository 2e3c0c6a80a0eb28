package attack_test

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// crowd is many streams of one credential that read all they get.
type crowd struct {
	t testing.TB

	mu    sync.Mutex
	seen  []order // by stream: the newest
	ended []error // by stream: why it is over

}

// crowd opens streams on so many connections, each with a certificate of the identity.
func (w *world) crowd(identity string, conns, perConn int, name string, more ...grpc.DialOption) *crowd {
	w.t.Helper()
	c := &crowd{t: w.t, seen: make([]order, conns*perConn), ended: make([]error, conns*perConn)}

	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	w.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	config := w.as(identity)
	for i := range conns {
		conn := w.conn(config, more...)
		for j := range perConn {
			wg.Go(func() { c.read(ctx, conn, i*perConn+j, name) })
		}
	}
	c.until("has its first state", func(i int) bool { return c.seen[i] != order{} })
	return c
}

// read keeps a stream open as a worker does: one that ends is opened anew.
func (c *crowd) read(ctx context.Context, conn *grpc.ClientConn, i int, name string) {
	for ctx.Err() == nil {
		s, err := subscribe(ctx, conn, name)
		for err == nil {
			var m *tokenbrokerv1.SubscribeResponse
			if m, err = s.Recv(); err == nil && m.GetUpdate() != nil {
				c.note(i, orderOf(m.GetUpdate()))
			}
		}
		c.mu.Lock()
		c.ended[i] = err
		c.mu.Unlock()

	}
}

func (c *crowd) note(i int, o order) {
	c.mu.Lock()
	c.seen[i] = o
	c.mu.Unlock()

}

// until waits until all streams fulfil a condition.
func (c *crowd) until(what string, holds func(i int) bool) {
	c.t.Helper()
	eventually(c.t, "every stream "+what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range c.seen {
			if !holds(i) {
				return false
			}
		}
		return true
	})
}

// reach waits until every stream has seen an order or one after it.
func (c *crowd) reach(want order) {
	c.t.Helper()
	c.until("sees the newest state", func(i int) bool {
		return c.seen[i].generation > want.generation || c.seen[i].generation == want.generation && c.seen[i].revision >= want.revision
	})
}

// newest is the order of a credential's state at present.
func (w *world) newest(name string) order {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	s, err := subscribe(ctx, w.operator, name)
	must(w.t, err)
	got, err := snapshot(s)
	must(w.t, err)
	return orderOf(got[name])
}
