package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
)

// kept is a trail in a file, with its key and its second place.
type kept struct {
	path   string
	signer *audit.Signer
	key    ed25519.PublicKey
	points bytes.Buffer
}

func keep(t *testing.T) *kept {
	t.Helper()
	signer, key := newSigner(t)
	return &kept{path: filepath.Join(t.TempDir(), "audit.jsonl"), signer: signer, key: key}
}

// start starts a log with a checkpoint behind each ten lines, and returns how to end it.
func (k *kept) start(t *testing.T) (l *audit.Log, f *audit.File, stop func()) {
	t.Helper()
	f, err := audit.OpenFile(k.path)
	must(t, err)
	l = audit.New(f, audit.Options{Tail: f.Tail(), Look: time.Hour, Checkpoints: audit.Checkpoints{
		Signer: k.signer, Records: 10, Out: func(line []byte) { k.points.Write(line) },
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return l, f, func() {
		cancel()
		must(t, <-done)
		must(t, f.Close())
	}
}

func calls(t *testing.T, l *audit.Log, n int) {
	t.Helper()
	for range n {
		must(t, l.Write(t.Context(), audit.Record{Kind: audit.KindCall, Credential: "payroll", Decision: audit.Allow}))
	}
}

// run writes n records, as one start of a broker does.
func (k *kept) run(t *testing.T, n int) {
	t.Helper()
	l, _, stop := k.start(t)
	calls(t, l, n)
	stop()
}

// verify checks the file against key and second place, and opts besides.
func (k *kept) verify(t *testing.T, opts audit.VerifyOptions) audit.Report {
	t.Helper()
	opts.Keys, opts.Checkpoints = []ed25519.PublicKey{k.key}, []audit.Source{text("points", k.points.String())}
	return verify(t, opts, read(t, k.path))
}

func TestAFileThatIsCutOffInPlaceIsToldOf(t *testing.T) {
	for name, to := range map[string]int64{"to nothing": 0, "within a line": 100} {
		for how, reopen := range map[string]bool{"": false, ", and opened anew": true} {
			t.Run(name+how, func(t *testing.T) {
				k := keep(t)
				l, f, stop := k.start(t)
				calls(t, l, 5)
				must(t, os.Truncate(k.path, to))
				if reopen {
					must(t, f.Reopen())
				}
				calls(t, l, 2) // the first finds it while it writes, the second tells of it
				stop()
				_, left, _ := strings.Cut(read(t, k.path)[max(to, 1)-1:], "\n") // what is left of a line is ended
				if to == 0 {
					left = read(t, k.path)
				}
				got := parse(t, left)
				if len(got) < 3 || got[0].Seq != 6 || got[1].Action != audit.ActionDeleted || got[1].Seq != 7 {
					t.Errorf("got %+v, want that the second line tells of the five that are gone", got)
				}
				if r := verify(t, audit.VerifyOptions{}, left); r.Deleted != 1 {
					t.Errorf("got %+v, want that it is counted", r)
				}
			})
		}
	}
}

func TestRecordsThatWereWipedAreMissedBySecondPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		wipe func(t *testing.T, k *kept)
		seq  uint64 // the first that is missing, or the checkpoint that speaks of it
		file string
	}{
		"the file, while no broker ran": {func(t *testing.T, k *kept) { must(t, os.Remove(k.path)); k.run(t, 20) }, 11, "points"},
		"the file, and nothing since":   {func(t *testing.T, k *kept) { must(t, os.WriteFile(k.path, nil, 0o600)) }, 11, "points"},
		"the first lines":               {func(t *testing.T, k *kept) { k.behead(t, 33) }, 1, "trail"},
		"lines before any checkpoint":   {func(t *testing.T, k *kept) { k.behead(t, 3) }, 1, "trail"},
		"the file, while a broker wrote it": {func(t *testing.T, k *kept) {
			l, _, stop := k.start(t)
			calls(t, l, 5)
			must(t, os.Truncate(k.path, 0))
			calls(t, l, 20)
			stop()
		}, 1, "trail"},
	} {
		t.Run(name, func(t *testing.T) {
			k := keep(t)
			k.run(t, 50)
			if r := k.verify(t, audit.VerifyOptions{}); !r.OK() {
				t.Fatalf("got %+v before anything was wiped", r.Problems)
			}
			tt.wipe(t, k)
			r := k.verify(t, audit.VerifyOptions{})
			if len(r.Problems) != 1 || r.Problems[0].Seq != tt.seq || r.Problems[0].File != tt.file || r.Problems[0].Line != 1 {
				t.Fatalf("got %+v, want one problem in %s, line 1, with number %d", r.Problems, tt.file, tt.seq)
			}
			if f := r.Problems[0].Fault; f != audit.FaultMissing && (f != audit.FaultTruncated || r.Lines > 0) {
				t.Errorf("got %s, want that records are missing", f)
			}
		})
	}
}

// behead takes the first lines out of the file.
func (k *kept) behead(t *testing.T, n int) {
	t.Helper()
	lines := strings.SplitAfter(read(t, k.path), "\n")
	must(t, os.WriteFile(k.path, []byte(strings.Join(lines[n:], "")), 0o600))
}

func TestFilesThatWereMovedAwayAreNamed(t *testing.T) {
	k := keep(t)
	k.run(t, 50)
	k.behead(t, 33)
	for from, ok := range map[uint64]bool{0: false, 1: false, 33: false, 34: true, 50: true} {
		r := k.verify(t, audit.VerifyOptions{From: from})
		if r.OK() != ok || ok && (r.First != 34 || r.Older != 3 || r.Foreign != 0) {
			t.Errorf("from %d: got %+v, want OK %t", from, r, ok)
		}
		if alone := verify(t, audit.VerifyOptions{From: from}, read(t, k.path)); alone.OK() != (ok || from == 0) {
			t.Errorf("from %d without a second place: got %+v", from, alone)
		}
	}
}

func TestOtherTrailsInTheSecondPlaceHaveToBeAllowed(t *testing.T) {
	k := keep(t)
	for range 2 {
		k.run(t, 25)
		must(t, os.Remove(k.path))
	}
	k.run(t, 25)
	r := k.verify(t, audit.VerifyOptions{})
	if len(r.Problems) != 2 || r.Problems[0].Line != 1 || r.Problems[1].Line != 4 || r.Foreign != 6 {
		t.Errorf("got %+v, want one problem for each of two trails", r)
	}
	if r := k.verify(t, audit.VerifyOptions{OtherTrails: true}); !r.OK() || r.Foreign != 6 || r.Witnessed != 3 {
		t.Errorf("got %+v, want that the other trails are passed over", r)
	}
}

// crash leaves a part of a next record at the end of the file, as a crash does, and returns that record.
func (k *kept) crash(t *testing.T, part func(line string) string) (half audit.Entry, left string) {
	t.Helper()
	lines := parse(t, read(t, k.path))
	all := strings.SplitAfter(read(t, k.path), "\n")
	last, err := audit.ParseEntry([]byte(all[len(lines)-1]))
	must(t, err)
	half = audit.Entry{Seq: last.Seq + 1, Trail: last.Trail, Prev: last.Hash, Record: audit.Record{Time: noon, Kind: audit.KindCall, Action: "token.get"}}
	left = part(string(half.AppendLine(nil)))
	must(t, os.WriteFile(k.path, []byte(read(t, k.path)+left), 0o600))
	return half, left
}

func TestNothingTakesThePlaceOfAnUnfinishedLine(t *testing.T) {
	for name, part := range map[string]func(string) string{
		"half of it":         func(l string) string { return l[:len(l)/2] },
		"less than a number": func(l string) string { return l[:20] },
		"all but line feed":  func(l string) string { return l },
	} {
		t.Run(name, func(t *testing.T) {
			k := keep(t)
			k.run(t, 25)
			forged, left := k.crash(t, part)
			k.run(t, 25)
			if r := k.verify(t, audit.VerifyOptions{}); !r.OK() || r.Torn != 1 {
				t.Fatalf("got %+v, want that a crash is no fault", r)
			}
			forged.Identity, forged.Decision = "spiffe://example.org/innocent", audit.Allow
			before := read(t, k.path)
			for _, put := range []string{string(forged.AppendLine(nil)), "{" + left, left + " ", string(forged.AppendLine(nil)) + "\n" + left} {
				must(t, os.WriteFile(k.path, []byte(strings.Replace(before, left+"\n", put+"\n", 1)), 0o600))
				if r := k.verify(t, audit.VerifyOptions{}); r.OK() || r.Problems[0].Line < 29 || r.Problems[0].Line > 31 {
					t.Errorf("got %+v with %q in its place, want a fault there", r.Problems, put)
				}
			}
		})
	}
}

func TestALogTellsWhatItsSinkTookInPart(t *testing.T) {
	s := &sink{part: 30, err: os.ErrClosed}
	l := run(t, failing{s}, audit.Options{})
	if err := l.Write(t.Context(), audit.Record{}); err == nil {
		t.Fatal("got no error")
	}
	s.set(func() { s.err = nil })
	must(t, l.Write(t.Context(), audit.Record{}))
	cut, _, _ := strings.Cut(s.text(), "\n")
	if !strings.Contains(s.text(), half(cut)) {
		t.Errorf("got %q, want length and hash of what stands in the first line", s.text())
	}
}

func TestLinesWithoutAChainInFrontOfATrailHaveToBeAllowed(t *testing.T) {
	const old = `{"v":1,"seq":%d,"time":"2026-01-01T00:00:00Z","kind":"call","identity":"spiffe://example.org/innocent","decision":"allow"}` + "\n"
	k := keep(t)
	k.run(t, 25)
	chain := read(t, k.path)
	must(t, os.WriteFile(k.path, []byte(fmt.Sprintf(old, 7)+chain), 0o600)) // the trail begins with number 1
	wantFault(t, k.verify(t, audit.VerifyOptions{Unchained: 1}), audit.FaultMixed, 1, 7)
	wantFault(t, verify(t, audit.VerifyOptions{}, read(t, k.path)), audit.FaultMixed, 1, 7)

	k = keep(t)
	must(t, os.WriteFile(k.path, []byte(fmt.Sprintf(old, 1)+fmt.Sprintf(old, 2)), 0o600))
	k.run(t, 25)
	wantFault(t, k.verify(t, audit.VerifyOptions{}), audit.FaultUnsigned, 1, 1)
	if r := k.verify(t, audit.VerifyOptions{Unchained: 2}); !r.OK() || r.Unchained != 2 || r.First != 1 {
		t.Errorf("got %+v, want that two lines are allowed", r)
	}
	must(t, os.WriteFile(k.path, []byte(strings.Replace(read(t, k.path), `{"v":1,"seq":2`, fmt.Sprintf(old, 2)+`{"v":1,"seq":2`, 1)), 0o600))
	wantFault(t, k.verify(t, audit.VerifyOptions{Unchained: 2}), audit.FaultUnsigned, 1, 1)
}
