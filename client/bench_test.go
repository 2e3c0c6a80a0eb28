package client_test

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

// askers is how many goroutines of a worker ask at a time.
const askers = 256

// ways are the ways to a cached token, each with the name that the benchmark has for it.
func ways(t testing.TB, c *client.Client) map[string]func() error {
	t.Helper()
	source := c.TokenSource(t.Context(), "example/api")
	if _, err := source.Token(); err != nil {
		t.Fatal(err)
	}
	return map[string]func() error{
		"Token":       func() error { _, err := c.Token(t.Context(), "example/api"); return err },
		"TokenSource": func() error { _, err := source.Token(); return err },
	}
}

// BenchmarkCachedToken is what a worker pays for asking before each request. x/reuse is the time as a part of that of
// oauth2.ReuseTokenSource, asked as often by as many in the same run, which knows of one token and does not know when a newer one may be had.
func BenchmarkCachedToken(b *testing.B) {
	broker := brokertest.Start(b, brokertest.Config{})
	broker.AddClientCredentials("example/api", "files.read")
	c := worker(b, broker)
	reuse := oauth2.ReuseTokenSource(&oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}, nil)
	for name, ask := range ways(b, c) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.ResetTimer()
			mine := together(b, b.N, ask)
			b.StopTimer()
			other := together(b, max(b.N/10, askers), func() error { _, err := reuse.Token(); return err })
			b.ReportMetric(mine.Seconds()/other.Seconds(), "x/reuse")
		})
	}
}

// together has the askers do something n times in all, or somewhat more, and says how long one time takes.
func together(b *testing.B, n int, do func() error) time.Duration {
	b.Helper()
	each := (n + askers - 1) / askers
	began := time.Now()
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for range each {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began) / time.Duration(each*askers)
}

func TestACachedTokenAllocatesNothing(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	for name, ask := range ways(t, worker(t, b)) {
		got := testing.AllocsPerRun(1000, func() {
			if err := ask(); err != nil {
				t.Error(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: got %v allocations, want none", name, got)
		}
	}
}
