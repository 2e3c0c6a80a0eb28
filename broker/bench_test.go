package broker_test

import (
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func benchWorld(b *testing.B) *world {
	b.Helper()
	w := newWorld(b, plan{traits: rotating})
	w.up.use(gives(time.Hour, true))
	w.create("a")
	w.get()
	return w
}

func BenchmarkToken(b *testing.B) {
	w := benchWorld(b)
	r := broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}, Holder: "job"}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.b.Token(b.Context(), r); err != nil {
				b.Error(err)
			}
		}
	})
}

// TestTokenFromMemoryAllocatesNothing holds the hot path to what the benchmark measures.
func TestTokenFromMemoryAllocatesNothing(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		r := broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}, Holder: "job"}
		if got := testing.AllocsPerRun(100, func() { _, _ = w.b.Token(t.Context(), r) }); got > 0 {
			t.Errorf("got %v allocations for a token from memory, want none", got)
		}
	})
}

func BenchmarkHerd(b *testing.B) {
	w := newWorld(b, plan{})
	w.up.use(gives(time.Nanosecond, false)) // over on arrival …
	w.up.use(gives(time.Hour, false))
	w.createMachine("a")
	w.get()
	const herd = 1000
	sent := w.up.count()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		_, _ = w.b.SetDisabled(b.Context(), "acme/jobs", true)
		_, err := w.b.UpdateCredential(b.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
			c.Audience = time.Now().String() // a new variant, without a token
			return nil
		})
		fatal(b, err)
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, false)))
		b.StartTimer()
		_, _ = w.b.SetDisabled(b.Context(), "acme/jobs", false)
		var wg sync.WaitGroup
		for range herd {
			wg.Go(func() { w.get() })
		}
		close(let)
		wg.Wait()
	}
	b.ReportMetric(float64(w.up.count()-sent)/float64(b.N), "exchanges/herd")
}

func BenchmarkPublish(b *testing.B) {
	w := benchWorld(b)
	const feeds = 10_000
	for range feeds {
		w.subscribe(nil)
	}
	b.ResetTimer()
	for i := range b.N {
		_, err := w.b.SetDisabled(b.Context(), "acme/jobs", i%2 == 0)
		fatal(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/feeds, "ns/feed")
}
