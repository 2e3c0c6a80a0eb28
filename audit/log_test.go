package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a writer whose faults a test sets.
type sink struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	writes int
	syncs  int
	hang   chan struct{} // a write waits until it is closed
	err    error         // what a write returns
	part   int           // how many bytes it takes all the same
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.err != nil {
		return s.buf.Write(b[:min(s.part, len(b))])
	}
	return s.buf.Write(b)
}

func (s *sink) Sync() error { s.syncs++; return nil }

func (s *sink) set(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

func (s *sink) text() string { s.mu.Lock(); defer s.mu.Unlock(); return s.buf.String() }

// failing makes the error of a sink come out: Write of the buffer above has none.
type failing struct{ *sink }

func (f failing) Write(b []byte) (int, error) {
	n, err := f.sink.Write(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	return n, errors.Join(err, f.err)
}

// entry is what the tests read of a line.
type entry struct {
	Seq       uint64
	Kind      audit.Kind
	Action    string
	RequestID string `json:"request_id"`
	Count     uint64
}

func parse(t *testing.T, text string) []entry {
	t.Helper()
	var all []entry
	for s := range strings.Lines(text) {
		var e entry
		if err := json.Unmarshal([]byte(s), &e); err != nil || !strings.HasSuffix(s, "\n") {
			t.Fatalf("not a line: %q: %v", s, err)
		}
		all = append(all, e)
	}
	return all
}

// run runs a log until the test ends.
func run(t testing.TB, w io.Writer, opts audit.Options) *audit.Log {
	t.Helper()
	l := audit.New(w, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func TestManyWritersShareFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{Sync: true})
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if err := l.Write(t.Context(), audit.Record{RequestID: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(s.hang)
		wg.Wait()
		if s.writes > 2 || s.syncs != s.writes {
			t.Errorf("got %d writes and %d syncs, want two of each at most", s.writes, s.syncs)
		}
		seen := map[string]bool{}
		for i, e := range parse(t, s.text()) {
			if e.Seq != uint64(i+1) || seen[e.RequestID] {
				t.Errorf("line %d has seq %d and request %s (seen: %v)", i+1, e.Seq, e.RequestID, seen[e.RequestID])
			}
			seen[e.RequestID] = true
		}
		if len(seen) != n {
			t.Errorf("got %d records, want %d", len(seen), n)
		}
	})
}

func TestAHangingSinkHangsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{})
		write := func(id string) (time.Duration, error) {
			began := time.Now()
			err := l.Write(t.Context(), audit.Record{RequestID: id})
			return time.Since(began), err
		}
		var wg sync.WaitGroup
		for _, id := range []string{"a", "b"} {
			wg.Go(func() {
				if took, err := write(id); took != 2*time.Second || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
					t.Errorf("got %v after %v, want ErrAuditUnavailable after 2s", err, took)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		for range 3 {
			if took, err := write("refused"); took != 0 || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
				t.Errorf("got %v after %v, want ErrAuditUnavailable at once", err, took)
			}
		}
		if err := l.Healthy(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("Healthy() = %v, want ErrAuditUnavailable", err)
		}
		s.set(func() { close(s.hang); s.hang = nil })
		time.Sleep(2 * time.Second)
		if err := l.Healthy(); err != nil {
			t.Errorf("Healthy() = %v after the sink came back", err)
		}
		if took, err := write("c"); took != 0 || err != nil {
			t.Errorf("got %v after %v, want success", err, took)
		}
		var got []string
		for _, e := range parse(t, s.text()) {
			got = append(got, e.Action+e.RequestID+strings.Repeat("!", int(e.Count)))
		}
		if want := "a audit.gap!!! b c"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", strings.Join(got, " "), want)
		}
	})
}

func TestAFailedWriteIsToldToItsCallersAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{err: errors.New("disk on fire")}
		l := run(t, failing{s}, audit.Options{})
		for range 2 {
			if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, s.err) || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
				t.Errorf("got %v, want ErrAuditUnavailable and the sink's error", err)
			}
		}
		if err := l.Healthy(); !errors.Is(err, s.err) {
			t.Errorf("Healthy() = %v, want the sink's error", err)
		}
		s.set(func() { s.err = nil })
		time.Sleep(time.Second + time.Millisecond) // nobody writes: it has to recover by itself
		if err := l.Healthy(); err != nil {
			t.Errorf("Healthy() = %v after the sink came back", err)
		}
		if got := parse(t, s.text()); len(got) != 1 || got[0] != (entry{Seq: 1, Kind: audit.KindSystem, Action: audit.ActionGap, Count: 2}) {
			t.Errorf("got %+v, want a gap of two", got)
		}
	})
}

func TestATornLineStandsAlone(t *testing.T) {
	for _, part := range []int{1, 30, len(line(1)) - 1} {
		synctest.Test(t, func(t *testing.T) {
			s := &sink{err: errors.New("full"), part: part}
			l := run(t, failing{s}, audit.Options{})
			if err := l.Write(t.Context(), audit.Record{Time: noon}); err == nil {
				t.Error("got no error")
			}
			s.set(func() { s.err = nil })
			must(t, l.Write(t.Context(), audit.Record{RequestID: "x"}))
			torn, rest, _ := strings.Cut(s.text(), "\n")
			got := parse(t, rest)
			if len(torn) != part || len(got) != 3 || got[0].Action != audit.ActionTorn || got[1].Action != audit.ActionGap || got[2].RequestID != "x" || got[0].Seq != 2 {
				t.Errorf("got %q and %+v, want torn, gap and x from seq 2", torn, got)
			}
		})
	}
}

func TestACrashTailIsMarked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, []byte(line(6)+line(7)[:40]), 0o600))
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	must(t, l.Write(t.Context(), audit.Record{RequestID: "x"}))
	_, rest, _ := strings.Cut(read(t, path)[len(line(6)):], "\n")
	got := parse(t, rest)
	if len(got) != 2 || got[0].Action != audit.ActionTorn || got[0].Seq != 8 || got[1].RequestID != "x" || got[1].Seq != 9 {
		t.Errorf("got %+v, want a torn mark with seq 8, then x", got)
	}
}

// crowd has a hundred callers write, of whose records about five may wait, while the sink hangs. It returns how many were refused, and when the
// last of them was, once then ended.
func crowd(t *testing.T, s *sink, l *audit.Log, then func()) (refused int, last time.Duration) {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 100 {
		wg.Go(func() {
			err := l.Write(t.Context(), audit.Record{RequestID: strings.Repeat("x", 100)})
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			refused, last = refused+1, time.Since(began)
			if !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
				t.Errorf("got %v, want ErrAuditUnavailable", err)
			}
		})
		synctest.Wait()
	}
	then()
	wg.Wait()
	return refused, last
}

func TestWhatMayWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{MaxPending: 1000})
		refused, last := crowd(t, s, l, func() {})
		if refused != 100 || last != 2*time.Second {
			t.Errorf("got %d of 100 refused, the last after %v; want all after 2s", refused, last)
		}
		close(s.hang)
		must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
		kept, gap := 0, uint64(0)
		for _, r := range parse(t, s.text()) {
			switch {
			case r.Action == audit.ActionGap:
				gap += r.Count
			case strings.HasPrefix(r.RequestID, "x"):
				kept++
			}
		}
		if kept < 2 || kept > 10 || gap < uint64(100-kept) {
			t.Errorf("got %d records and a gap of %d, want the few that may wait, and a gap of the others", kept, gap)
		}
	})
}

func TestWhoFindsNoRoomWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{MaxPending: 1000})
		if refused, _ := crowd(t, s, l, func() { close(s.hang) }); refused > 0 {
			t.Errorf("got %d of 100 refused although the sink moves", refused)
		}
	})
}

func TestACallerWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Write(ctx, audit.Record{}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, want both the context's error and ErrAuditUnavailable", err)
		}
		close(s.hang)
	})
}

func TestRunDrainsAndThenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := audit.New(s, audit.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := l.Write(t.Context(), audit.Record{}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		cancel()
		close(s.hang)
		must(t, <-done)
		wg.Wait()
		if got := parse(t, s.text()); len(got) != 3 {
			t.Errorf("got %d records, want the three that waited", len(got))
		}
		if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, want ErrAuditUnavailable", err)
		}
		if l.Healthy() == nil || l.Run(t.Context()) == nil {
			t.Error("a closed log is healthy, or runs again")
		}
	})
}

func TestNotRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := audit.New(io.Discard, audit.Options{})
		if err := l.Healthy(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("Healthy() = %v, want ErrAuditUnavailable", err)
		}
		if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, want ErrAuditUnavailable", err)
		}
	})
}

func TestWritersDoNotRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				if err := l.Write(t.Context(), audit.Record{ScopesAsked: []string{"s"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	must(t, f.Reopen())
	wg.Wait()
	got := parse(t, read(t, path))
	if len(got) != 800 || got[799].Seq != 800 {
		t.Errorf("got %d records, want 800", len(got))
	}
}

func BenchmarkWrite(b *testing.B) {
	r := audit.Record{
		Kind: audit.KindCall, RequestID: "01J0000000000000", Identity: "spiffe://example.org/job/reports", Peer: "192.0.2.1:50000",
		CertFingerprint: strings.Repeat("ab", 32), Action: "token.get", Credential: "google/reports-drive",
		ScopesAsked: []string{"https://www.googleapis.com/auth/drive.readonly"}, PolicyRevision: "0123456789abcdef",
		Rule: "reports-read", Decision: audit.Allow, Code: "OK", Generation: 7, Latency: time.Millisecond,
	}
	f, err := audit.OpenFile(filepath.Join(b.TempDir(), "audit.jsonl"))
	must(b, err)
	defer f.Close()
	for name, w := range map[string]io.Writer{"discard": io.Discard, "file": f} {
		b.Run(name, func(b *testing.B) {
			l := run(b, w, audit.Options{})
			b.ReportAllocs()
			b.SetParallelism(32) // of GOMAXPROCS; 64 writers on two cores
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := l.Write(context.Background(), r); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkAppendLine(b *testing.B) {
	r := audit.Record{Time: noon, Identity: "spiffe://example.org/job/reports", Credential: "google/a", ScopesAsked: []string{"s"}, Decision: audit.Allow}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = (&audit.Entry{Seq: 1, Trail: "t", Record: r}).AppendLine(buf[:0])
	}
}
