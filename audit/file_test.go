package audit_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

func openFile(t *testing.T, path string) *audit.File {
	t.Helper()
	f, err := audit.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestOpenFileMakesAPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if got := f.Tail(); got != (audit.Tail{}) {
		t.Errorf("got tail %+v, want none", got)
	}
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe, open := filepath.Join(dir, "pipe"), filepath.Join(dir, "open")
	must(t, unix.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(open, nil, 0o600))
	must(t, os.Chmod(open, 0o620))
	for path, want := range map[string]string{
		dir:                           "neither a regular file",
		pipe:                          "neither a regular file",
		open:                          "chmod 600",
		filepath.Join(dir, "no", "a"): "no such file",
	} {
		if f, err := audit.OpenFile(path); f != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenFile(%s) = %v, %v, want an error that says %q", path, f, err, want)
		}
	}
}

func TestTail(t *testing.T) {
	head := func(seq uint64) audit.Hash {
		e, err := audit.ParseEntry([]byte(line(seq)))
		must(t, err)
		return e.Hash
	}
	old := `{"v":1,"seq":7,"time":"2026-01-02T11:00:00Z"}` + "\n"
	for _, tt := range []struct {
		name, content string
		want          audit.Tail
	}{
		{"whole lines", line(1) + line(2), audit.Tail{Trail: "t", Seq: 2, Head: head(2)}},
		{"an unfinished line with its number", line(1) + line(2)[:40], audit.Tail{Trail: "t", Seq: 2, Head: head(1), Torn: true, Half: half(line(2)[:40])}},
		{"an unfinished line without a number", line(1) + `{"v":2,"tra`, audit.Tail{Trail: "t", Seq: 1, Head: head(1), Torn: true, Half: half(`{"v":2,"tra`)}},
		{"a number cut in two", line(11) + `{"v":2,"trail":"t","seq":1`, audit.Tail{Trail: "t", Seq: 11, Head: head(11), Torn: true, Half: half(`{"v":2,"trail":"t","seq":1`)}},
		{"a line that does not end as one", line(1) + line(2)[:40] + "\n", audit.Tail{Trail: "t", Seq: 2, Head: head(1)}},
		{"lines from before there was a chain", old, audit.Tail{Seq: 7}},
		{"nothing of ours", "hello\n\n", audit.Tail{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			must(t, os.WriteFile(path, []byte(tt.content), 0o600))
			if got := openFile(t, path).Tail(); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got := read(t, path); !strings.HasSuffix(got, "\n") || !strings.HasPrefix(got, tt.content) {
				t.Errorf("got %q, want %q with its last line ended", got, tt.content)
			}
		})
	}
}

// half is what is told of an unfinished line.
func half(line string) string {
	return fmt.Sprintf("%d bytes, SHA-256 %x", len(line), sha256.Sum256([]byte(line)))
}

func TestPartialWriteIsCutOff(t *testing.T) {
	if !alone(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, []byte(line(1)), 0o600))
	f := openFile(t, path)
	limited(t, uint64(len(line(1))+10), func() {
		if n, err := f.Write([]byte(line(2))); n != 0 || !errors.Is(err, syscall.EFBIG) {
			t.Errorf("got %d, %v, want 0 and EFBIG", n, err)
		}
	})
	if got := read(t, path); got != line(1) {
		t.Errorf("got %q, want the first line alone", got)
	}
	if n, err := f.Write([]byte(line(3))); n != len(line(3)) || err != nil {
		t.Errorf("got %d, %v after there was room again", n, err)
	}
	if got := read(t, path); got != line(1)+line(3) {
		t.Errorf("got %q, want two whole lines", got)
	}
}

func TestFileFollowsItsPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for name, move := range map[string]func(){
		"deleted":               func() { must(t, os.Remove(path)) },
		"renamed":               func() { must(t, os.Rename(path, path+".1")) },
		"replaced":              func() { must(t, os.WriteFile(path+".2", nil, 0o600)); must(t, os.Rename(path+".2", path)) },
		"replaced, with a tail": func() { must(t, os.WriteFile(path+".2", []byte("{"), 0o600)); must(t, os.Rename(path+".2", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(path)
			f := openFile(t, path)
			put(t, f, line(1))
			move()
			put(t, f, line(2))
			if got := strings.TrimPrefix(read(t, path), "{\n"); got != line(2) {
				t.Errorf("got %q, want the second line alone", got)
			}
		})
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	put(t, f, line(1))
	must(t, os.Rename(path, path+".1"))
	must(t, f.Reopen())
	must(t, f.Reopen())
	put(t, f, line(2))
	must(t, f.Reopen()) // nothing was moved: the same file goes on
	put(t, f, line(3))
	if got := read(t, path+".1"); got != line(1) {
		t.Errorf("old file: got %q, want %q", got, line(1))
	}
	if got := read(t, path); got != line(2)+line(3) {
		t.Errorf("new file: got %q, want %q", got, line(2)+line(3))
	}
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if err := f.Reopen(); err == nil {
		t.Error("reopened a folder")
	}
	if n, err := f.Write([]byte(line(4))); n != 0 || err == nil {
		t.Errorf("got %d, %v, want an error, as the path is a folder", n, err)
	}
}

func TestWhatOthersAppendIsNotCutOff(t *testing.T) {
	if !alone(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	put(t, f, line(1))
	must(t, os.WriteFile(path, []byte(line(1)+line(7)), 0o600))
	limited(t, uint64(2*len(line(1))+5), func() {
		if _, err := f.Write([]byte(line(2))); err == nil {
			t.Error("got no error")
		}
	})
	if got := read(t, path); got != line(1)+line(7) {
		t.Errorf("got %q, want what the other wrote", got)
	}
}

func TestFullDevice(t *testing.T) {
	link := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.Symlink("/dev/full", link))
	f := openFile(t, link)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	if err := l.Write(t.Context(), audit.Record{}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ErrAuditUnavailable and ENOSPC", err)
	}
	if err := l.Healthy(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
		t.Errorf("got %v, want ErrAuditUnavailable", err)
	}
	must(t, os.Remove(link))
	must(t, f.Reopen())
	must(t, l.Write(t.Context(), audit.Record{RequestID: "after"}))
	must(t, l.Healthy())
	if got := parse(t, read(t, link)); len(got) != 2 || got[0].Action != audit.ActionGap || got[0].Count != 1 || got[1].RequestID != "after" {
		t.Errorf("got %+v, want a gap of one and the record", got)
	}
}

// alone reports whether this is a process for the test alone, and otherwise starts one: what limits a process limits all that it writes,
// and go test writes too.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv("TOKENBROKER_TEST_LIMIT") != "" {
		return true
	}
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	other.Env = append(os.Environ(), "TOKENBROKER_TEST_LIMIT=1")
	if out, err := other.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

// limited runs f while no file of this process may grow over size, and brings the limit back. Linux writes what still fits, as
// on a full disk.
func limited(t *testing.T, size uint64, f func()) {
	t.Helper()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old)) }()
	f()
}

func put(t *testing.T, f *audit.File, s string) {
	t.Helper()
	if n, err := f.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("write: got %d, %v", n, err)
	}
	must(t, f.Sync())
}

func line(seq uint64) string {
	return string(encode(audit.Record{Time: noon}, seq)) + "\n"
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFileIsLockedAlsoOverRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, path)
	must(t, f.Lock())
	taken := func(when string) {
		t.Helper()
		if err := openFile(t, path).Lock(); err == nil || !strings.Contains(err.Error(), "in use by another broker") {
			t.Errorf("%s: got %v, want that the lock is taken", when, err)
		}
	}
	taken("at first")
	must(t, f.Reopen())
	must(t, f.Look())
	taken("after the same file was opened anew")
	must(t, os.Rename(path, path+".1"))
	must(t, f.Look())
	taken("after a rotation")
	must(t, f.Close())
	must(t, openFile(t, path).Lock())
	device := openFile(t, "/dev/null")
	must(t, device.Lock())
	must(t, openFile(t, "/dev/null").Lock())
}
