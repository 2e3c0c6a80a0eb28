package mtls_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// TestAWriteThatFailsLeavesNoFile limits the size of files, so that the disk takes the first bytes of a key and no more. What would
// stay is half a key under the name of a whole one, which nothing may overwrite. The limit holds for all that a process writes, so it
// gets one of its own.
func TestAWriteThatFailsLeavesNoFile(t *testing.T) {
	if os.Getenv("TOKENBROKER_TEST_LIMIT") == "" {
		other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		other.Env = append(os.Environ(), "TOKENBROKER_TEST_LIMIT=1")
		if out, err := other.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("in a process of its own: %v\n%s", err, out)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "tls.key")
	key := bytes.Repeat([]byte("k"), 4096)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1024, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := mtls.WriteNew(path, key, 0o600)
	if rerr := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v, want EFBIG", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("afterwards: got %v, want no file", err)
	}
	if err := mtls.WriteNew(path, key, 0o600); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if got, err := os.ReadFile(path); !bytes.Equal(got, key) || err != nil {
		t.Errorf("got %d bytes, %v, want all %d", len(got), err, len(key))
	}
}
