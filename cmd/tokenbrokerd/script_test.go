package main_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenbroker/tokenbroker/brokertest"
)

// TestScript runs testdata/script: the command as a person at a terminal meets it.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"GRPC", "OPS"} {
				env.Setenv(name, brokertest.Addr(env.T().(testing.TB)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"eventually": retry},
	})
}

// retry is the script command "eventually COMMAND": it runs COMMAND until it succeeds.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually COMMAND")
	}
	var out []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = ts.Getenv("WORK")
		var err error
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	ts.Fatalf("%v still fails: %s", args, out)
}
