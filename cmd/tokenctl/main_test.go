package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// TestMain builds the command once and puts it first in PATH. Scripts start it some hundred times, so it is built without the race
// detector, which takes longer to start than most commands take to run; TestACommandRunsInThisProcess is for the detector.
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
	if dir, err = os.MkdirTemp("", "tokenctl-test-"); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-race=false", "-o", dir+"/", ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tokenctl: %w\n%s", err, out)
	}
	return dir, os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}
