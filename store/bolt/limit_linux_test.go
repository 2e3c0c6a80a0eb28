package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

const limitVariable = "TOKENBROKER_TEST_LIMIT"

// TestAWriteThatTheSystemRefuses runs in a process of its own, for the limit holds for all of a process.
func TestAWriteThatTheSystemRefuses(t *testing.T) {
	if path := os.Getenv(limitVariable); path != "" {
		writeAtTheLimit(t, path)
		return
	}
	other := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	other.Env = append(os.Environ(), limitVariable+"="+filepath.Join(t.TempDir(), "store.db"))
	out, err := other.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the limit was met") {
		t.Errorf("other process: %v\n%s", err, out)
	}
}

func writeAtTheLimit(t *testing.T, path string) {
	signal.Ignore(syscall.SIGXFSZ)
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	start := put(t, e, "k", []byte("kept"))
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	limitTo(t, syscall.Rlimit{Cur: 64 << 10, Max: was.Max})
	big := store.Op{Key: store.Key{Bucket: "test", Name: "big"}, Value: make([]byte, 512<<10)}
	_, err = e.Txn(t.Context(), store.Txn{Do: []store.Op{big}})
	if !errors.Is(err, store.ErrUnknown) || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("write over the limit: got %v, want ErrUnknown and EFBIG", err)
	}
	s, err := e.Read(t.Context(), store.Key{Bucket: "test", Name: "k"}, big.Key)
	if err != nil || string(s.Entries[0].Value) != "kept" || s.Entries[1].Rev != 0 || s.Rev != start {
		t.Errorf("after it: got %v, %v, want k alone at revision %d", s, err, start)
	}
	limitTo(t, was)
	next := put(t, e, "k", []byte("new"))
	for ev, err := range e.Watch(t.Context(), "test", start) {
		if err != nil || ev.Rev != next || string(ev.Value) != "new" {
			t.Errorf("watch: got %+v, %v, want the write after the limit, at %d", ev, err, next)
		}
		break
	}
	fmt.Println("the limit was met")
}

func limitTo(t *testing.T, l syscall.Rlimit) {
	t.Helper()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}
