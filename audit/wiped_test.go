package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
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
			})
		}
	}
}
