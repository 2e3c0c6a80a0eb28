package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// bin is the folder of the programs that the fleet is made of. They are built without the race detector, which would slow down whole fleets
// of short processes; the workers in Go are under it.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tokenbroker-fleet-")
	bin = dir
	if err == nil {
		out, buildErr := exec.Command("go", "build", "-o", dir, "../cmd/tokenbrokerd", "../cmd/tokenctl").CombinedOutput()
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

// plan is the size of a run.
type plan struct {
	workers int           // in Go
	turns   int           // times that the broker is restarted, drained and out of reach; at least two of a soak, for a minute
	calm    time.Duration // between two of these
	outage  time.Duration // that it is out of reach
	life    time.Duration // of tokens
	wait    time.Duration // that a request may wait for a newer token
	slack   time.Duration // that a good token has to have been there, and in reach, before a failure counts
}

const floor = time.Second // between exchanges that reports cause

func planned() plan {
	if long := os.Getenv("TOKENBROKER_SOAK"); long != "" {
		p := plan{workers: 50, turns: 2, calm: 6 * time.Second, outage: 10 * time.Second, life: 12 * time.Second, wait: 5 * time.Second, slack: 4 * time.Second}
		if d, err := time.ParseDuration(long); err == nil {
			p.turns = max(p.turns, int(d/(4*p.calm+p.outage)))
		}
		return p
	}
	// A busy machine must not fail it: what can wait waits long.
	return plan{workers: 12, turns: 1, calm: 1500 * time.Millisecond, outage: 2 * time.Second, life: 6 * time.Second, wait: 30 * time.Second, slack: 20 * time.Second}
}

// patience is how long is waited for what must come. It is never waited out when all is well.
const patience = 2 * time.Minute

// eventually tries a condition until it holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(late) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
