package attack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/audit"
)

// silenced wants that no token comes while the audit log takes no records, by no way, and that nobody waits for long. why is what the broker
// says of it: a slow disk may have refused before. It returns the longest time that a refusal took.
func (w *world) silenced(t testing.TB, held stream, why string) (worst time.Duration) {
	t.Helper()
	conn := w.conn(w.as("worker/asking"))
	eventually(t, "no token without a record", func() bool {
		began := time.Now()
		_, err := get(brief(t), conn, "example/one")
		worst = max(worst, time.Since(began))
		_, says := w.ask("/readyz")
		return status.Code(err) == codes.Unavailable && reason(err) == "AUDIT_UNAVAILABLE" && strings.Contains(says, why)
	})
	for range count(5, 200) {
		began := time.Now()
		tok, err := get(brief(t), conn, "example/one")
		worst = max(worst, time.Since(began))
		if tok != nil || reason(err) != "AUDIT_UNAVAILABLE" {
			t.Fatalf("got %v, %v without an audit log, want AUDIT_UNAVAILABLE", tok.GetGeneration(), err)
		}
	}
	if s, err := subscribe(brief(t), conn, "example/one"); err == nil {
		if _, err = s.Recv(); err == nil {
			t.Error("a new stream got a token without a record")
		}
	}
	if worst > each {
		t.Errorf("a refusal took %v", worst)
	}
	if code, _ := w.ask("/readyz"); code != 503 {
		t.Errorf("got %d of /readyz, want 503", code)
	}
	if held != nil {
		w.quiet(t, held)
	}
	return worst
}

// quiet wants that a stream gets no token while nothing can be recorded: a change that needs a record can't even be made.
func (w *world) quiet(t testing.TB, held stream) {
	t.Helper()
	before, recorded := w.exchanges(), w.recorded(t)
	got := make(chan error, 1)
	go func() {
		for {
			m, err := held.Recv() // what came before is still to be read
			if err != nil || m.GetUpdate().GetToken().GetGeneration() > recorded {
				got <- err
				return
			}
		}
	}()
	w.t.Cleanup(func() { <-got }) // the stream ends with the test, or has the next token
	select {
	case err := <-got:
		got <- err
		if err == nil {
			t.Error("a stream got a token without a record")
		}
	case <-time.After(time.Duration(count(7, 14)) * time.Second): // longer than tokens live
	}
	if n := w.exchanges() - before; n != 0 {
		t.Errorf("got %d token requests without a record", n)
	}
}

// recorded is the newest generation of a token that a file tells of.
func (w *world) recorded(t testing.TB) (newest uint64) {
	t.Helper()
	for _, name := range []string{"audit.jsonl", "audit.kept"} {
		if info, err := os.Lstat(w.path(name)); err != nil || !info.Mode().IsRegular() {
			continue
		}
		for line := range strings.Lines(w.read(name)) {
			var r struct {
				Generation uint64 `json:"generation"`
			}
			if json.Unmarshal([]byte(line), &r) == nil { // the last one may be cut off
				newest = max(newest, r.Generation)
			}
		}
	}
	return newest
}

// speaks waits until the broker serves again, by itself.
func (w *world) speaks(t testing.TB) {
	t.Helper()
	eventually(t, "ready again", func() bool { code, _ := w.ask("/readyz"); return code == 200 })
	conn := w.conn(w.as("worker/asking"))
	eventually(t, "tokens again", func() bool { _, err := get(brief(t), conn, "example/one"); return err == nil })
}

// brieflyLiving is a world whose tokens have to be refreshed all the time, and a stream that is held.
// Their life is longer than a request that is on its way can be held up when the log is silenced: else what it brings is over when it comes.
func brieflyLiving(t *testing.T) (*world, stream) {
	w := newWorld(t, plan{life: 5 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	held, err := subscribe(ctx, w.conn(w.as("worker/held")), "example/one")
	must(t, err)
	_, err = snapshot(held)
	must(t, err)
	return w, held
}

// TestP24TheAuditLogIsFull lets the file grow by some bytes more and then no further, as a quota or a full disk does, in the middle of a
// record.
func TestP24TheAuditLogIsFull(t *testing.T) {
	t.Parallel()
	w, held := brieflyLiving(t)
	pid := w.proc.cmd.Process.Pid
	info, err := os.Stat(w.path("audit.jsonl"))
	must(t, err)
	limit := unix.Rlimit{Cur: uint64(info.Size()) + 1111, Max: unix.RLIM_INFINITY}
	must(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
	worst := w.silenced(t, held, "file too large")
	limit.Cur = unix.RLIM_INFINITY
	must(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
	w.speaks(t)
	w.wantGap(t)
	t.Logf("the longest refusal took %v", worst.Round(time.Millisecond))
}

// wantGap wants that the log tells how many records it lacks, and that its chain holds otherwise. It ends the broker.
func (w *world) wantGap(t testing.TB) {
	t.Helper()
	w.stop()
	report, err := audit.Verify(t.Context(), []audit.Source{audit.FileSource(w.path("audit.jsonl"))}, audit.VerifyOptions{})
	must(t, err)
	if len(report.Problems) > 0 || report.Gaps == 0 || report.Refused == 0 {
		t.Errorf("got problems %v, %d gaps with %d records, want no problems and a gap", report.Problems, report.Gaps, report.Refused)
	}
	t.Logf("%d records; %d gaps tell of %d calls that got nothing", report.Lines, report.Gaps, report.Refused)
}

// TestP24TheAuditLogIsADeviceThatIsFull puts a device in its place that takes nothing.
func TestP24TheAuditLogIsADeviceThatIsFull(t *testing.T) {
	t.Parallel()
	w, held := brieflyLiving(t)
	w.link("/dev/full")
	worst := w.silenced(t, held, "no space left on device")
	must(t, os.Rename(w.path("audit.kept"), w.path("audit.jsonl")))
	w.speaks(t)
	w.wantGap(t)
	t.Logf("the longest refusal took %v", worst.Round(time.Millisecond))
}

// link puts a link in the place of the audit log, which stays as audit.kept. There is no moment without a file: the broker would make one.
func (w *world) link(to string) {
	w.t.Helper()
	must(w.t, os.Link(w.path("audit.jsonl"), w.path("audit.kept")))
	must(w.t, os.Symlink(to, w.path("link")))
	must(w.t, os.Rename(w.path("link"), w.path("audit.jsonl")))
}

// holds reports whether the broker has a file open.
func (w *world) holds(t testing.TB, path string) bool {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.proc.cmd.Process.Pid))
	must(t, err)
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, err := os.Readlink(fd)
		return err == nil && to == path
	})
}

// TestP24TheAuditLogIsDeleted takes the file away under the broker. Records go where the path leads, and when it leads nowhere nothing is
// given out.
func TestP24TheAuditLogIsDeleted(t *testing.T) {
	t.Parallel()
	w, _ := brieflyLiving(t)
	for range count(3, 200) {
		must(t, os.Remove(w.path("audit.jsonl")))
		conn := w.conn(w.as("worker/deleted"))
		eventually(t, "a token", func() bool { _, err := get(brief(t), conn, "example/one"); return err == nil })
		if got := w.records("worker/deleted"); len(got) == 0 {
			t.Fatal("a token was given out, and its record is in no file that has a name")
		}
	}
	eventually(t, "a folder is in its place", func() bool { // the broker may be faster, and make a file
		must(t, os.Remove(w.path("audit.jsonl")))
		return os.Mkdir(w.path("audit.jsonl"), 0o700) == nil
	})
	worst := w.silenced(t, nil, "neither a regular file nor a character device")
	must(t, os.Remove(w.path("audit.jsonl")))
	w.speaks(t)
	w.wantGap(t)
	t.Logf("the longest refusal took %v", worst.Round(time.Millisecond))
}

// TestP24TheAuditLogIsAHole puts a terminal in its place that nobody looks at, and that is full: it gives neither room nor an error.
func TestP24TheAuditLogIsAHole(t *testing.T) {
	t.Parallel()
	w, held := brieflyLiving(t)
	master, terminal, err := pty.Open()
	must(t, err)
	defer func() { _ = master.Close() }()
	fill(t, terminal)
	w.link(terminal.Name())
	eventually(t, "the broker goes over to the terminal", func() bool { return w.holds(t, terminal.Name()) })
	worst := w.silenced(t, held, "stuck")
	t.Logf("the longest refusal took %v", worst.Round(time.Millisecond))
	w.slowly(t, master, terminal)
}

// fill writes to a terminal until it takes nothing for a while. The system moves what is written on in its own time, and a terminal that
// seemed full then has room again.
func fill(t testing.TB, terminal *os.File) {
	t.Helper()
	for text := bytes.Repeat([]byte("."), 1<<12); ; {
		must(t, terminal.SetWriteDeadline(time.Now().Add(2*time.Second)))
		switch n, err := terminal.Write(text); {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			t.Fatalf("fill a terminal: %v", err)
		}
	}
}

// slowly reads a terminal that was a hole until now, and puts the file back while it is read. The reading ends when nobody has the terminal
// open any more: the broker has left it, too.
func (w *world) slowly(t testing.TB, master, terminal *os.File) {
	t.Helper()
	read := make(chan error, 1)
	go func() {
		b := make([]byte, 256)
		for {
			if _, err := master.Read(b); err != nil {
				read <- err
				return
			}
			time.Sleep(time.Millisecond) // slow is what it is to be
		}
	}()
	w.speaks(t) // the terminal takes it all now
	must(t, os.Rename(w.path("audit.kept"), w.path("audit.jsonl")))
	w.speaks(t)
	eventually(t, "records in the file", func() bool {
		_, err := get(brief(t), w.operator, "example/one")
		return err == nil && len(w.records("operator/admin")) > 0
	})
	must(t, terminal.Close())
	select {
	case <-read:
	case <-time.After(patience):
		t.Error("the broker still holds the terminal")
	}
}
