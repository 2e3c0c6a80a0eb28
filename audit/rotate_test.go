package audit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

// writeMany lets writers put n records each, and returns their request ids.
func writeMany(t *testing.T, l *audit.Log, prefix string, writers, n int) []string {
	t.Helper()
	var wg sync.WaitGroup
	ids := make([]string, writers*n)
	for w := range writers {
		wg.Go(func() {
			for i := range n {
				id := fmt.Sprintf("%s-%d-%04d", prefix, w, i)
				if err := l.Write(t.Context(), audit.Record{RequestID: id}); err != nil {
					t.Errorf("write %s: %v", id, err)
				}
				ids[w*n+i] = id
			}
		})
	}
	wg.Wait()
	return ids
}

// wantTrail reads files as one trail: every line parses, the numbers are gapless from 1, and each record is there once.
func wantTrail(t *testing.T, ids []string, paths ...string) {
	t.Helper()
	var got []string
	seq := uint64(0)
	for _, path := range paths {
		for n, e := range parse(t, read(t, path)) {
			if seq++; e.Seq != seq {
				t.Fatalf("%s, line %d: got seq %d, want %d", path, n+1, e.Seq, seq)
			}
			got = append(got, e.RequestID)
		}
	}
	slices.Sort(got)
	if slices.Sort(ids); !slices.Equal(got, ids) {
		t.Errorf("got %d records, want the %d that writers were told of", len(got), len(ids))
	}
}

// TestRotationUnderLoadLosesNoLine renames the file away again and again while records are written, as logrotate does: with a
// Reopen behind each rename, and without, where the file has to notice by itself.
func TestRotationUnderLoadLosesNoLine(t *testing.T) {
	for _, reopen := range []bool{true, false} {
		t.Run(fmt.Sprintf("reopen %t", reopen), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			f := openFile(t, path)
			l := run(t, f, audit.Options{Tail: f.Tail()})
			stop := make(chan struct{})
			var rotated []string
			var rotations atomic.Int32
			var wg sync.WaitGroup
			wg.Go(func() {
				for ended := false; !ended; {
					select {
					case <-stop:
						ended = true
					default:
					}
					if len(rotated) == 200 || !rename(t, path, fmt.Sprintf("%s.%d", path, len(rotated))) {
						continue
					}
					rotated = append(rotated, fmt.Sprintf("%s.%d", path, len(rotated)))
					rotations.Add(1)
					if reopen {
						must(t, f.Reopen())
					}
				}
			})
			var ids []string
			for round := 0; round < 1000 && rotations.Load() < 3; round++ { // many records may share a write, and between writes nothing is renamed
				ids = append(ids, writeMany(t, l, fmt.Sprint("r", round), 8, 100)...)
			}
			close(stop)
			wg.Wait()
			must(t, l.Write(t.Context(), audit.Record{RequestID: "last"}))
			if len(rotated) < 3 {
				t.Errorf("got %d rotations, want some", len(rotated))
			}
			wantTrail(t, append(ids, "last"), append(rotated, path)...)
		})
	}
}

// rename moves the file away if there is something in it.
func rename(t *testing.T, from, to string) bool {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil || info.Size() == 0 {
		return false
	}
	must(t, os.Rename(from, to))
	return true
}

func TestReopenDoesNotRaceWithWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail(), Sync: true})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					must(t, f.Reopen())
				}
			}
		})
	}
	ids := writeMany(t, l, "r", 4, 50)
	close(stop)
	wg.Wait()
	wantTrail(t, ids, path)
}

// TestTwoProcessesOnOneFileBreakNoLine is what an overlap of an old and a new broker does. Each counts for itself.
func TestTwoProcessesOnOneFileBreakNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	logs := map[string]*audit.Log{}
	for _, name := range []string{"old", "new"} { // both open the file before either writes
		f := openFile(t, path)
		logs[name] = run(t, f, audit.Options{Tail: f.Tail()})
	}
	var wg sync.WaitGroup
	for name, l := range logs {
		wg.Go(func() { writeMany(t, l, name, 4, 50) })
	}
	wg.Wait()
	last, count := map[string]uint64{}, 0
	for _, e := range parse(t, read(t, path)) {
		name, _, _ := strings.Cut(e.RequestID, "-")
		if e.Seq != last[name]+1 {
			t.Errorf("%s: got seq %d after %d", name, e.Seq, last[name])
		}
		last[name], count = e.Seq, count+1
	}
	if count != 2*4*50 {
		t.Errorf("got %d records, want %d", count, 2*4*50)
	}
}

func TestAnUnfinishedLineThatCannotBeCutOffIsToldOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, []byte(line(1)+`{"v":2,"trail":"t","seq":2,"ti`), 0o600))
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
	text := read(t, path)
	lines := strings.SplitAfter(text, "\n")
	if len(lines) != 5 || lines[1] != `{"v":2,"trail":"t","seq":2,"ti`+"\n" {
		t.Fatalf("got %q, want the unfinished line to stand alone", text)
	}
	got := parse(t, lines[2]+lines[3])
	if got[0].Action != audit.ActionTorn || got[0].Seq != 3 || got[1].RequestID != "after" || got[1].Seq != 4 {
		t.Errorf("got %+v, want the torn line told of with seq 3, and the record with seq 4", got)
	}
}

func TestAFileThatIsClosedUnderALogIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f, err := audit.OpenFile(path)
	must(t, err)
	l := run(t, f, audit.Options{})
	must(t, l.Write(t.Context(), audit.Record{}))
	must(t, f.Reopen())
	must(t, f.Close()) // also what Reopen opened
	err = l.Write(t.Context(), audit.Record{})
	if !errors.Is(err, tokenbroker.ErrAuditUnavailable) || !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want ErrAuditUnavailable and os.ErrClosed", err)
	}
}

func TestALongLastLineIsLookedBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, []byte(line(41)+strings.Repeat("x", 1000)+"\n\n"), 0o600))
	if got := openFile(t, path).Tail(); got.Seq != 41 || got.Trail != "t" {
		t.Errorf("got %+v, want seq 41 from before the lines that are none", got)
	}
	must(t, os.WriteFile(path, []byte(line(41)+strings.Repeat("x", 2<<20)+"\n"), 0o600))
	if got := openFile(t, path).Tail(); got != (audit.Tail{}) {
		t.Errorf("got %+v, want that it did not look further than it says", got)
	}
}
