package attack_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. It is never waited out when all is well.
var patience = time.Duration(count(120, 600)) * time.Second

// process is a broker that runs. It is killed when the test ends.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// text is all that it wrote.
func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func run(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	must(t, cmd.Start())
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			s := p.text()
			t.Logf("the broker wrote:\n%s", s[max(0, len(s)-1500):])
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// line waits for a line of its log and returns the members.
func (p *process) line(t testing.TB, message string) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, "a line of the log: "+message, func() bool {
		for line := range strings.Lines(p.text()) {
			m := map[string]any{}
			if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == message {
				found = m
				return true
			}
		}
		if p.over() {
			t.Fatalf("the broker ended before it said %q", message)
		}
		return false
	})
	return found
}

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
