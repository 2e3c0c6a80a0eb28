package attack_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// program is the binary under attack. It is built without the race detector, whose memory would hide what is measured.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tokenbroker-attack-")
	program = filepath.Join(dir, "tokenbrokerd")
	if err == nil {
		out, buildErr := exec.Command("go", "build", "-o", program, "../cmd/tokenbrokerd").CombinedOutput()
		err = buildErr
		if len(out) > 0 {
			err = errors.Join(err, errors.New(string(out)))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// whole reports whether attacks have the counts of the threat model, and not those of a quick run.
func whole() bool { return os.Getenv("TOKENBROKER_SOAK") != "" }

// count is how often to do something: in a quick run, and in a whole one.
func count(quick, soak int) int {
	if whole() {
		return soak
	}
	return quick
}
