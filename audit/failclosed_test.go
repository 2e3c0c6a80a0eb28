package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

// rounds is how often a promise is tried: whole in a soak, shortened otherwise.
func rounds() int {
	if os.Getenv("TOKENBROKER_SOAK") != "" {
		return 200
	}
	return 20
}

// refused wants that a record is refused, in no more time than the deadline.
func refused(t *testing.T, l *audit.Log) {
	t.Helper()
	began := time.Now()
	err := l.Write(t.Context(), audit.Record{RequestID: "refused"})
	if !errors.Is(err, tokenbroker.ErrAuditUnavailable) || time.Since(began) > 2*time.Second {
		t.Errorf("got %v after %v, want a refusal within 2s", err, time.Since(began))
	}
	if err := l.Healthy(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
		t.Errorf("got health %v, want that it is down", err)
	}
}

// wantWhole wants that what is written is a chain without a fault, with as many refused callers.
func wantWhole(t *testing.T, lost uint64, lines ...string) {
	t.Helper()
	if r := verify(t, audit.VerifyOptions{}, lines...); !r.OK() || r.Refused != lost {
		t.Errorf("got %+v, want a whole chain and %d refused", r, lost)
	}
}

// TestP24ASinkThatIsFullRefusesAndRecovers has a sink that takes nothing, or a part of a line, and does so again and again.
func TestP24ASinkThatIsFullRefusesAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := run(t, failing{s}, audit.Options{})
		for n := range rounds() {
			s.set(func() { s.err, s.part = errors.New("full"), n%7*60 })
			refused(t, l)
			s.set(func() { s.err = nil })
			time.Sleep(time.Second + time.Millisecond) // nobody writes
			if err := l.Healthy(); err != nil {
				t.Fatalf("round %d: got %v after it had room again", n, err)
			}
			must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
		}
		wantWhole(t, uint64(rounds()), s.text())
	})
}

// TestP24ASinkThatHangsRefusesAndRecovers has a sink that is a black hole for a while.
func TestP24ASinkThatHangsRefusesAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := run(t, s, audit.Options{})
		for n := range rounds() {
			hole := make(chan struct{})
			s.set(func() { s.hang = hole })
			refused(t, l) // after the deadline
			refused(t, l) // at once
			time.Sleep(time.Hour)
			refused(t, l)
			s.set(func() { s.hang = nil })
			close(hole)
			time.Sleep(2 * time.Second)
			if err := l.Healthy(); err != nil {
				t.Fatalf("round %d: got %v after it came back", n, err)
			}
			must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
		}
		wantWhole(t, uint64(2*rounds()), s.text()) // the first of each round was under way, and is in the trail
	})
}

// TestP24ASlowSinkIsWaitedForAsLongAsItMoves has a sink that takes nearly the deadline for each write.
func TestP24ASlowSinkIsWaitedForAsLongAsItMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		l := run(t, s, audit.Options{})
		for range rounds() {
			began := time.Now()
			if err := l.Write(t.Context(), audit.Record{}); err != nil || time.Since(began) > 2*time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
		}
		wantWhole(t, 0, s.String())
	})
}

// TestP24APathThatIsNoFileRefusesAndRecovers replaces the file by what can't be written, a pipe that nobody reads among it.
func TestP24APathThatIsNoFileRefusesAndRecovers(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"a full device": func(path string) error { return os.Symlink("/dev/full", path) },
		"a folder":      func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":        func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a dead link":   func(path string) error { return os.Symlink(path+"/no", path) },
		"a shared file": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o622)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			f := openFile(t, path)
			l := run(t, f, audit.Options{Tail: f.Tail()})
			var files []string
			for n := range rounds() / 4 {
				must(t, l.Write(t.Context(), audit.Record{RequestID: "before"}))
				old := fmt.Sprintf("%s.%d", path, n)
				must(t, os.Rename(path, old))
				files = append(files, read(t, old))
				must(t, replace(path))
				refused(t, l)
				must(t, os.Remove(path))
				must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
				must(t, l.Healthy())
			}
			wantWhole(t, uint64(rounds()/4), append(files, read(t, path))...)
		})
	}
}

// TestP24ADeletedFileIsMadeAnewAndToldOf deletes the file under the log, also while it is idle.
func TestP24ADeletedFileIsMadeAnewAndToldOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	told := make(chan struct{}, 1)
	l := run(t, f, audit.Options{Tail: f.Tail(), Look: time.Millisecond, Deleted: func() { told <- struct{}{} }})
	wake, stop := l.Subscribe()
	defer stop()
	must(t, l.Write(t.Context(), audit.Record{RequestID: "lost"}))
	<-wake
	for n := range rounds() {
		must(t, os.Remove(path))
		<-told // nobody writes: the look alone finds it
		<-wake
		text := read(t, path)
		got := parse(t, text)
		if len(got) != 1 || got[0].Action != audit.ActionDeleted || got[0].Seq != uint64(n+2) {
			t.Fatalf("round %d: got %+v, want a record of the deletion that goes on with the trail", n, got)
		}
	}
}

// TestP24AnIdleSinkThatIsGoneIsNoticed has a path that can't be written while nobody writes.
func TestP24AnIdleSinkThatIsGoneIsNoticed(t *testing.T) {
	s := &looked{err: make(chan error, 1)}
	synctest.Test(t, func(t *testing.T) {
		s.ok = make(chan struct{})
		l := run(t, s, audit.Options{})
		must(t, l.Write(t.Context(), audit.Record{}))
		s.set(func() { s.sink.err = errors.New("no such disk") })
		time.Sleep(5*time.Second + time.Millisecond)
		if err := l.Healthy(); !errors.Is(err, s.sink.err) || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v after 5s, want what the look found", err)
		}
		s.set(func() { s.sink.err = nil })
		time.Sleep(5 * time.Second)
		if err := l.Healthy(); err != nil {
			t.Errorf("got %v after it came back", err)
		}
	})
}

// looked is a sink that can be looked at.
type looked struct {
	sink
	err chan error
	ok  chan struct{}
}

func (s *looked) Look() error { s.mu.Lock(); defer s.mu.Unlock(); return s.sink.err }

// TestP24ALookThatHangsRefuses: a file system that hangs may do so in a look too.
func TestP24ALookThatHangsRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{back: make(chan struct{})}
		l := run(t, s, audit.Options{})
		time.Sleep(5 * time.Second)
		refused(t, l)
		refused(t, l)
		close(s.back)
		time.Sleep(2 * time.Second)
		must(t, l.Healthy())
		must(t, l.Write(t.Context(), audit.Record{}))
	})
}

// stuck is a sink whose look hangs.
type stuck struct {
	sink
	back chan struct{}
}

func (s *stuck) Look() error { <-s.back; return nil }

func TestP24AFullDiskIsSeenByALook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	must(t, f.Look())
	must(t, os.Remove(path))
	must(t, f.Look())
	if _, err := os.Stat(path); err != nil {
		t.Errorf("got %v, want that the look made the file anew", err)
	}
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if err := f.Look(); err == nil {
		t.Error("a folder is taken for a sink")
	}
}

// TestRotationAndRestartKeepTheChain rotates, crashes and starts again, and wants one chain over all files.
func TestRotationAndRestartKeepTheChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var sources []audit.Source
	for n := range 12 {
		f, err := audit.OpenFile(path)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		l, done := audit.New(f, audit.Options{Tail: f.Tail(), Sync: n%2 == 0}), make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for range 3 {
			must(t, l.Write(t.Context(), audit.Record{Kind: audit.KindCall}))
		}
		cancel()
		must(t, <-done)
		must(t, f.Close())
		if n%3 == 0 { // a crash leaves a part of a line
			must(t, os.WriteFile(path, []byte(read(t, path)+`{"v":2,"trail":"`), 0o600))
		}
		if n%4 == 2 {
			old := fmt.Sprintf("%s.%d", path, n)
			must(t, os.Rename(path, old))
			sources = append(sources, audit.FileSource(old))
		}
	}
	r, err := audit.Verify(t.Context(), append(sources, audit.FileSource(path)), audit.VerifyOptions{})
	if err != nil || !r.OK() || r.First != 1 || r.Torn != 4 || r.Last != 36+4 {
		t.Errorf("got %+v, %v, want one chain with four torn lines", r, err)
	}
	if strings.Count(read(t, path), r.Trail) < 3 {
		t.Error("the trail has another id in its last file")
	}
}
