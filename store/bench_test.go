package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

// solo is an engine that lets one transaction at it at a time, so that none shares its sync.
type solo struct {
	store.Engine
	turn sync.Mutex
}

func (e *solo) Txn(ctx context.Context, t store.Txn) (uint64, error) {
	e.turn.Lock()
	defer e.turn.Unlock()
	return e.Engine.Txn(ctx, t)
}

// BenchmarkCommit reports what 64 writers get out of sharing syncs, as a ratio to the same writers without.
func BenchmarkCommit(b *testing.B) {
	const writers = 64
	p := newPlace(b)
	e := p.start(b)
	shared := openOn(b, e, p.kek)
	alone := openOn(b, &solo{Engine: e}, p.kek)
	creds := make([]tokenbroker.Credential, writers)
	for i := range creds {
		creds[i] = create(b, shared, fmt.Sprint("c", i))
	}
	run := func(s *store.Store, each int) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for _, c := range creds {
			wg.Go(func() {
				for range each {
					if _, _, err := s.Commit(b.Context(), outcome(c, 1, "", "at", "")); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	var grouped, single time.Duration
	const each = 10
	n := 0
	for b.Loop() {
		single += run(alone, each)
		grouped += run(shared, each)
		n += writers * each
	}
	b.ReportMetric(float64(n)/grouped.Seconds(), "commits/s")
	b.ReportMetric(single.Seconds()/grouped.Seconds(), "times-solo")
}

// BenchmarkSummaries reports how long a start takes to learn of its credentials.
func BenchmarkSummaries(b *testing.B) {
	p := newPlace(b)
	s := p.open(b)
	const n = 10_000
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := range n / 50 {
				if _, err := s.CreateCredential(b.Context(), credential(fmt.Sprintf("c%d/%d", w, i)), tokenbroker.Grant{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for b.Loop() {
		got := 0
		for _, err := range s.Summaries(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			got++
		}
		if got != n {
			b.Fatalf("got %d, want %d", got, n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/summary")
}
