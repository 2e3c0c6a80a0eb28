package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// TestMain builds both commands once and puts them first in PATH. All tests run these binaries.
func TestMain(m *testing.M) {
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build() (dir string, err error) {
	dir, err = os.MkdirTemp("", "tokenbrokerd-test-")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", dir + "/"}
	if underRace {
		args = append(args, "-race")
	}
	if err := run(append(args, ".", "../tokenctl")...); err != nil {
		return "", err
	}
	if _, err := exec.LookPath("grpcurl"); err != nil { // not installed by make: take the version that tools/ pins
		if err := run("build", "-C", "../../tools/grpcurl", "-o", dir+"/", "github.com/fullstorydev/grpcurl/cmd/grpcurl"); err != nil {
			return "", err
		}
	}
	return dir, os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func run(args ...string) error {
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return nil
}
