package agent_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/audit"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// crowd is many local subscribers of one credential.
type crowd struct {
	w      *world
	mu     sync.Mutex
	newest map[int]uint64 // subscriber → generation of the token that it has
	more   chan struct{}
	wg     sync.WaitGroup
}

// gather opens n streams on a tenth as many connections.
func (w *world) gather(ctx context.Context, n int) *crowd {
	w.t.Helper()
	c := &crowd{w: w, newest: map[int]uint64{}, more: make(chan struct{}, 1)}
	var conn *grpc.ClientConn
	for i := range n {
		if i%10 == 0 {
			conn = w.conn()
		}
		stream, err := tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
			Selectors: []*tokenbrokerv1.Selector{{Credential: "example/api"}}})
		if err != nil {
			w.t.Fatal(err)
		}
		c.wg.Go(func() { c.listen(i, stream) })
	}
	return c
}

func (c *crowd) listen(i int, stream grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse]) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		if token := m.GetUpdate().GetToken(); token != nil {
			c.mu.Lock()
			c.newest[i] = token.GetGeneration()
			c.mu.Unlock()
			select {
			case c.more <- struct{}{}:
			default:
			}
		}
	}
}

// await waits until n have a token after a generation, and returns the newest generation.
func (c *crowd) await(ctx context.Context, n int, after uint64) uint64 {
	c.w.t.Helper()
	for {
		have, newest := 0, uint64(0)
		c.mu.Lock()
		for _, g := range c.newest {
			if newest = max(newest, g); g > after {
				have++
			}
		}
		c.mu.Unlock()
		if have >= n {
			return newest
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			c.w.t.Fatalf("%d of %d subscribers have a token after generation %d", have, n, after)
		}
	}
}

// upstreams is how many streams the broker has opened so far, and how many of them are open.
func (w *world) upstreams() (opened, open int) {
	w.t.Helper()
	streams := map[uint64]bool{}
	trail := &audit.Trail{Path: filepath.Join(w.Dir, "audit.jsonl")}
	if err := trail.Backward(w.t.Context(), 0, func(e audit.Entry) bool {
		for _, id := range e.Streams {
			switch e.Kind {
			case audit.KindStreamOpen:
				streams[id] = streams[id] || false
			case audit.KindStreamClose:
				streams[id] = true
			default:
			}
		}
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	for _, closed := range streams {
		if !closed {
			open++
		}
	}
	return len(streams), open
}

func TestManyLocalSubscribersCostTheBrokerOneStream(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	const n = 100
	c := w.gather(ctx, n)
	generation := c.await(ctx, n, 0)
	w.refresh("example/api")
	c.await(ctx, n, generation)
	if opened, open := w.upstreams(); opened != 1 || open != 1 {
		t.Errorf("the broker opened %d streams, %d of them are open, want 1 for %d local ones", opened, open, n)
	}
	cancel()
	c.wg.Wait()
}

// BenchmarkPush is a fresh token's way from the broker to a thousand local subscribers, on a hundred connections, each with a record.
func BenchmarkPush(b *testing.B) {
	w := start(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	const n = 1000
	c := w.gather(ctx, n)
	generation := c.await(ctx, n, 0)
	for b.Loop() {
		w.refresh("example/api")
		generation = c.await(ctx, n, generation)
	}
	opened, _ := w.upstreams()
	b.ReportMetric(float64(opened), "upstream-streams")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/subscriber")
	cancel()
	c.wg.Wait()
}
