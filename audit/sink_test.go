package audit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

// short takes one byte less than it is given and does not say why.
type short struct{ bytes.Buffer }

func (s *short) Write(b []byte) (int, error) { return s.Buffer.Write(b[:len(b)-1]) }

// unsynced can't be made durable.
type unsynced struct {
	bytes.Buffer
	err error
}

func (u *unsynced) Sync() error { return u.err }

func TestAShortWriteIsAnError(t *testing.T) {
	l := run(t, &short{}, audit.Options{})
	if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, io.ErrShortWrite) || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
		t.Errorf("got %v, want io.ErrShortWrite and ErrAuditUnavailable", err)
	}
}

func TestAFailedSyncIsAnErrorIfSyncIsAskedFor(t *testing.T) {
	for _, ask := range []bool{true, false} {
		u := &unsynced{err: errors.New("no power")}
		l := run(t, u, audit.Options{Sync: ask})
		if err := l.Write(t.Context(), audit.Record{}); errors.Is(err, u.err) != ask {
			t.Errorf("Sync %v: got %v", ask, err)
		}
	}
}

func TestRunTellsWhenTheLastWriteFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{}), err: errors.New("full")}
		l := audit.New(failing{s}, audit.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for range 2 { // one is under way when ctx ends, the other one waits
			go func() {
				if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, s.err) {
					t.Errorf("got %v, want the sink's error", err)
				}
			}()
			synctest.Wait()
		}
		cancel()
		close(s.hang)
		if err := <-done; !errors.Is(err, s.err) {
			t.Errorf("got %v, want the sink's error", err)
		}
		synctest.Wait()
	})
}

// slow takes its time, but moves.
type slow struct{ bytes.Buffer }

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(1500 * time.Millisecond)
	return s.Buffer.Write(b)
}

func TestASinkThatMovesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := run(t, &slow{}, audit.Options{})
		var wg sync.WaitGroup
		for n := range 3 { // the second and third wait for the first one's write, too: 3 s less their late start
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
				if err := l.Write(t.Context(), audit.Record{}); err != nil {
					t.Errorf("record %d: %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestDeadlineAndRetryAreOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{Deadline: 300 * time.Millisecond, Retry: time.Minute})
		began := time.Now()
		if err := l.Write(t.Context(), audit.Record{}); err == nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("got %v after %v, want an error after 300ms", err, time.Since(began))
		}
		if err := l.Write(t.Context(), audit.Record{}); err == nil {
			t.Error("got no error while the sink is stuck")
		}
		s.set(func() { close(s.hang); s.hang = nil })
		time.Sleep(59 * time.Second)
		if n := strings.Count(s.text(), audit.ActionGap); n != 0 {
			t.Errorf("got %d gaps before the retry", n)
		}
		time.Sleep(2 * time.Second)
		if n := strings.Count(s.text(), audit.ActionGap); n != 1 {
			t.Errorf("got %d gaps after the retry, want 1", n)
		}
	})
}

func TestARecordIsCopiedBeforeWriteReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{})
		scopes := []string{"asked"}
		if err := l.Write(t.Context(), audit.Record{ScopesAsked: scopes}); err == nil { // it is under way
			t.Error("got no error")
		}
		scopes[0] = "changed"
		close(s.hang)
		synctest.Wait()
		if !strings.Contains(s.text(), "asked\"]") || strings.Contains(s.text(), "changed") {
			t.Errorf("got %s, want the scopes as they were", s.text())
		}
	})
}

func TestTheTimeIsFilledIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := run(t, s, audit.Options{})
		must(t, l.Write(t.Context(), audit.Record{}))
		must(t, l.Write(t.Context(), audit.Record{Time: noon}))
		if got := s.text(); !strings.Contains(got, `"time":"2000-01-01T00:00:00Z"`) || !strings.Contains(got, `"time":"2026-01-02T11:00:00.000005Z"`) {
			t.Errorf("got %s, want the bubble's time and the record's own", got)
		}
	})
}

func TestALogCountsOnAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for range 3 {
		f, err := audit.OpenFile(path)
		must(t, err)
		l := audit.New(f, audit.Options{Tail: f.Tail()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		must(t, l.Write(t.Context(), audit.Record{}))
		cancel()
		must(t, <-done)
		must(t, f.Close())
	}
	for i, e := range parse(t, read(t, path)) {
		if e.Seq != uint64(i+1) {
			t.Errorf("line %d has seq %d", i+1, e.Seq)
		}
	}
}

func TestADeletedFolderIsAnErrorUntilItIsBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	path := filepath.Join(dir, "audit.jsonl")
	must(t, os.Mkdir(dir, 0o700))
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	must(t, l.Write(t.Context(), audit.Record{}))
	must(t, os.RemoveAll(dir))
	if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
		t.Errorf("got %v, want ErrAuditUnavailable", err)
	}
	must(t, os.Mkdir(dir, 0o700))
	must(t, l.Write(t.Context(), audit.Record{RequestID: "back"}))
	if got := parse(t, read(t, path)); len(got) < 2 || got[0].Count != 1 || got[1].Seq != 3 {
		t.Errorf("got %+v, want a gap of one and the record with seq 3", got)
	}
}
