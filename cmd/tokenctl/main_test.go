package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain makes the test binary answer to the name tokenctl, which comes first in PATH. All tests run it as a process of its own.
func TestMain(m *testing.M) { testscript.Main(leakless{m}, map[string]func(){"tokenctl": main}) }

// leakless fails a run that leaves goroutines.
type leakless struct{ m *testing.M }

// Run implements testscript.TestingM.
func (l leakless) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
