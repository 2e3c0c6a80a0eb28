package audit_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

func TestAReceiptIsGoodOnceTheSinkTookTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := run(t, s, audit.Options{})
		must(t, l.Write(t.Context(), audit.Record{RequestID: "first"}))
		release := make(chan struct{})
		s.set(func() { s.hang = release })
		if _, ok := l.Later(audit.Record{RequestID: "in the sink"}); !ok {
			t.Fatal("a sink that is well was not given the record")
		}
		synctest.Wait() // until it is, and what comes now goes out together
		one, ok := l.Later(audit.Record{RequestID: "one"})
		other, also := l.Later(audit.Record{RequestID: "other"})
		if !ok || !also || one != other {
			t.Fatalf("taken: %t, %t; the same receipt: %t; want all", ok, also, one == other)
		}
		var waiting sync.WaitGroup
		done := make(chan struct{})
		waiting.Go(func() {
			must(t, one.Wait())
			close(done)
		})
		synctest.Wait()
		select {
		case <-done:
			t.Error("the receipt is good while the sink has not taken the record")
		default:
		}
		s.set(func() { s.hang = nil })
		close(release)
		waiting.Wait()
		must(t, audit.Receipt{}.Wait())
	})
}

func TestLaterTakesNothingForASinkThatIsNotWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := run(t, failing{s}, audit.Options{})
		synctest.Wait() // until it runs
		taken := func() bool {
			r, ok := l.Later(audit.Record{RequestID: "later"})
			return ok && r.Wait() == nil
		}
		if !taken() {
			t.Error("a sink that is well was not given the record")
		}
		s.set(func() { s.err = errors.New("full") })
		r, ok := l.Later(audit.Record{RequestID: "unlucky"}) // nobody knows yet
		if err := r.Wait(); !ok || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, taken: %t, want ErrAuditUnavailable", err, ok)
		}
		if taken() {
			t.Error("a sink that failed was given a record")
		}
		s.set(func() { s.err = nil })
		time.Sleep(1100 * time.Millisecond) // it tries by itself
		if taken() {
			t.Error("a sink was given a record ahead of any that it took since it failed")
		}
		must(t, l.Write(t.Context(), audit.Record{RequestID: "first"}))
		if !taken() {
			t.Error("a sink that recovered was not given the record")
		}
		hang := make(chan struct{})
		s.set(func() { s.hang = hang })
		_, ok = l.Later(audit.Record{RequestID: "stuck"})
		synctest.Wait()
		time.Sleep(60 * time.Millisecond)
		if _, again := l.Later(audit.Record{RequestID: "behind it"}); !ok || again {
			t.Errorf("a sink that has hung for 60 ms was given a record: %t", again)
		}
		close(hang)
	})
}

// A disk that is slow is not prompt between two writes either.
func TestLaterTakesNothingForASinkWhoseLastWriteTookLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{})
		time.AfterFunc(51*time.Millisecond, func() { close(s.hang) })
		must(t, l.Write(t.Context(), audit.Record{RequestID: "slow"}))
		if _, ok := l.Later(audit.Record{RequestID: "behind it"}); ok {
			t.Error("a sink that is slow was given a record")
		}
		must(t, l.Write(t.Context(), audit.Record{RequestID: "fast"}))
		if r, ok := l.Later(audit.Record{RequestID: "next"}); !ok || r.Wait() != nil {
			t.Error("a sink that is fast again was not given a record")
		}
	})
}

func TestLaterTakesNothingBeforeTheLogRuns(t *testing.T) {
	if _, ok := audit.New(&sink{}, audit.Options{}).Later(audit.Record{}); ok {
		t.Error("a log that nobody runs took a record")
	}
}
