package harden_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker/harden"
)

// TestAProcessKeepsItsMemoryToItself hardens a process of its own: what is done to one can't be taken back.
func TestAProcessKeepsItsMemoryToItself(t *testing.T) {
	if os.Getenv("TOKENBROKER_TEST_HARDEN") == "" {
		runAlone(t)
		return
	}
	if err := harden.Process(); err != nil {
		t.Fatal(err)
	}
	if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != 0 {
		t.Errorf("got dumpable %d, %v, want 0", got, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("got core limit %+v, %v, want 0", limit, err)
	}
}

func runAlone(t *testing.T) {
	t.Helper()
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	other.Env = append(os.Environ(), "TOKENBROKER_TEST_HARDEN=1")
	if out, err := other.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
}

func TestSettingsThatWriteTokensAreRefused(t *testing.T) {
	for name, value := range map[string]string{"GRPC_BINARY_LOG_FILTER": "*", "GODEBUG": "http2debug=2", "GOTRACEBACK": "crash"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if err := harden.Process(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error that names %s", err, name)
			}
		})
	}
}
