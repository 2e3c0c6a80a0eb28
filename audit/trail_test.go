package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/audit"
)

// chained makes the lines from to to of a trail whose hashes are real.
func chained(trail string, from, to uint64) string {
	var b []byte
	var prev audit.Hash
	for seq := uint64(1); seq <= to; seq++ {
		if seq == from {
			b = b[:0]
		}
		e := audit.Entry{Trail: trail, Seq: seq, Prev: prev, Record: audit.Record{Time: noon, RequestID: fmt.Sprint("r", seq)}}
		b = append(e.AppendLine(b), '\n')
		prev = e.Hash
	}
	return string(b)
}

// folder writes files and returns the path of audit.jsonl.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return filepath.Join(dir, "audit.jsonl")
}

// backward reads all numbers below before.
func backward(t *testing.T, trail *audit.Trail, before uint64) (seqs []uint64) {
	t.Helper()
	must(t, trail.Backward(t.Context(), before, func(e audit.Entry) bool { seqs = append(seqs, e.Seq); return true }))
	return seqs
}

// down counts from one number down to another.
func down(from, to uint64) (all []uint64) {
	for ; from >= to && from > 0; from-- {
		all = append(all, from)
	}
	return all
}

func TestFilesAreFoundByNameAndOrderedByNumber(t *testing.T) {
	path := folder(t, map[string]string{
		"audit.jsonl": chained("t", 41, 45), "audit.jsonl.1": chained("t", 31, 40), "audit.jsonl.2": chained("t", 21, 30),
		"audit.jsonl-20261128": chained("t", 11, 20), "audit-2026-11-27T12:00:00Z.jsonl": chained("t", 1, 10),
		"audit.jsonl.3.gz": "x", "audit.jsonl.pub": "x", "audit-checkpoints.jsonl": chained("t", 1, 2), "other.jsonl": chained("t", 1, 2), "audit.jsonl.9": "",
	})
	got, err := audit.Files(path)
	must(t, err)
	for i, f := range got {
		got[i] = filepath.Base(f)
	}
	want := []string{"audit-2026-11-27T12:00:00Z.jsonl", "audit.jsonl-20261128", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	trail := &audit.Trail{Path: path}
	if got := backward(t, trail, 0); !slices.Equal(got, down(45, 1)) {
		t.Errorf("got %v, want 45 down to 1", got)
	}
	for _, before := range []uint64{1, 2, 11, 12, 41, 42, 45, 46, 1000} {
		if got := backward(t, trail, before); !slices.Equal(got, down(min(before-1, 45), 1)) {
			t.Errorf("before %d: got %v", before, got)
		}
	}
}

func TestBackwardFindsItsPlaceInALargeFile(t *testing.T) {
	path := folder(t, map[string]string{"audit.jsonl": chained("t", 1, 5000)})
	trail := &audit.Trail{Path: path}
	if got := backward(t, trail, 0); !slices.Equal(got, down(5000, 1)) {
		t.Errorf("got %d entries, want all of them in order", len(got))
	}
	for before := uint64(2); before < 5000; before += 311 {
		var got []uint64
		must(t, trail.Backward(t.Context(), before, func(e audit.Entry) bool { got = append(got, e.Seq); return len(got) < 3 }))
		if !slices.Equal(got, down(before-1, max(before, 4)-3)) {
			t.Errorf("before %d: got %v", before, got)
		}
	}
}

func TestWhatIsUnreadableIsSkippedAndTold(t *testing.T) {
	lines := strings.SplitAfter(chained("t", 1, 6), "\n")
	text := lines[0] + "garbage\n" + lines[1] + "\n" + strings.Repeat("x", 3<<20) + "\n" + lines[2] + `{"v":3}` + "\n" + lines[3] + "\xff\n" + lines[4][:50]
	path := folder(t, map[string]string{"audit.jsonl": text, "audit.jsonl.1": chained("u", 1, 2), "audit.jsonl.2": `{"v":1,"seq":1,"time":"2026-01-02T11:00:00Z","kind":"call"}` + "\n"})
	var told []string
	trail := &audit.Trail{Path: path, Skipped: func(s audit.Skip) {
		told = append(told, fmt.Sprintf("%s@%d %v", filepath.Base(s.Path), s.Offset, s.Err))
	}}
	if got := backward(t, trail, 0); !slices.Equal(got, down(4, 1)) {
		t.Errorf("got %v, want 4 down to 1", got)
	}
	if len(told) != 6 || !strings.Contains(told[0], "another trail") || !strings.Contains(strings.Join(told, " "), "too long") || !strings.HasPrefix(told[5], fmt.Sprintf("audit.jsonl@%d ", len(lines[0]))) {
		t.Errorf("got %q, want the other trail, five lines, and where they are", told)
	}
}

func TestBackwardEndsWhenAskedTo(t *testing.T) {
	path := folder(t, map[string]string{"audit.jsonl": chained("t", 1, 5)})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := (&audit.Trail{Path: path}).Backward(ctx, 0, func(audit.Entry) bool { n++; cancel(); return true })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("got %v after %d entries, want the end of the context after one", err, n)
	}
	if err := (&audit.Trail{Path: filepath.Join(t.TempDir(), "no", "audit.jsonl")}).Backward(t.Context(), 0, func(audit.Entry) bool { return true }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v without a folder", err)
	}
	if got := backward(t, &audit.Trail{Path: filepath.Join(t.TempDir(), "audit.jsonl")}, 0); len(got) != 0 {
		t.Errorf("got %v without a file", got)
	}
}

// TestFollowSeesEachEntryOnceOverRotations has readers follow while records are written and the file is renamed away.
func TestFollowSeesEachEntryOnceOverRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	const total, each = 600, 60
	var wg sync.WaitGroup
	for _, after := range []uint64{0, 100, total - 1} {
		for _, log := range []*audit.Log{l, nil} {
			wg.Go(func() {
				next := after + 1
				err := (&audit.Trail{Path: path, Log: log}).Follow(t.Context(), after, func(e audit.Entry) error {
					if e.Seq != next {
						t.Errorf("after %d: got %d, want %d", after, e.Seq, next)
					}
					if next = e.Seq + 1; next > total {
						return errDone
					}
					return nil
				})
				if !errors.Is(err, errDone) {
					t.Errorf("after %d: got %v, want all entries", after, err)
				}
			})
		}
	}
	for i := range total {
		must(t, l.Write(t.Context(), audit.Record{RequestID: fmt.Sprint(i)}))
		if i%each == each/2 {
			must(t, os.Rename(path, fmt.Sprintf("%s.%d", path, i)))
			if i%(2*each) == each/2 {
				must(t, f.Reopen())
			}
		}
	}
	wg.Wait()
}

var errDone = errors.New("done")

func TestFollowEndsWithItsContextAndHoldsUpNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- (&audit.Trail{Path: path, Log: l}).Follow(ctx, 0, func(audit.Entry) error {
			select {
			case seen <- struct{}{}: // the first one
			case <-ctx.Done():
			}
			return nil
		})
	}()
	must(t, l.Write(t.Context(), audit.Record{}))
	<-seen
	for range 100 { // the reader stands still in its second visit
		must(t, l.Write(t.Context(), audit.Record{}))
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

// TestFollowGoesOnBehindAFileThatIsMissing has a file in the middle taken away.
func TestFollowGoesOnBehindAFileThatIsMissing(t *testing.T) {
	path := folder(t, map[string]string{"audit.jsonl": chained("t", 31, 40), "audit.jsonl.2": chained("t", 11, 20)})
	var got []uint64
	err := (&audit.Trail{Path: path}).Follow(t.Context(), 5, func(e audit.Entry) error {
		if got = append(got, e.Seq); e.Seq == 40 {
			return errDone
		}
		return nil
	})
	slices.Reverse(got)
	if !errors.Is(err, errDone) || !slices.Equal(got, append(down(40, 31), down(20, 11)...)) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestATrailGoesOnInANewFileAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f, err := audit.OpenFile(path)
	must(t, err)
	put(t, f, chained("t", 1, 3))
	must(t, f.Close())
	must(t, os.Rename(path, path+".1"))
	want := openFile(t, path+".1").Tail()
	if got := openFile(t, path).Tail(); got != want || got.Seq != 3 || got.Trail != "t" || got.Head.IsZero() {
		t.Errorf("got %+v, want how the rotated file ends", got)
	}
}
