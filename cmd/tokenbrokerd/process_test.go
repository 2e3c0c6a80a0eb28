package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come: long, because machines are noisy, and never waited out when all is well.
const patience = 2 * time.Minute

// process is a started command. It is killed when the test ends, if it still runs.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *lines // what it wrote, both streams
	done chan struct{}
	err  error // of Wait, once done is closed
}

func startProcess(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: newLines(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", cmd.Args, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
		p.out.wake()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%v wrote:\n%s", cmd.Args, p.out.tail())
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("send %v: %v", s, err)
	}
}

// kill ends the process at once, as a crash would, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// wait waits for the end and returns the exit status, -1 after a signal.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		p.t.Fatalf("%v still runs after %v", p.cmd.Args, within)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatalf("%v: %v", p.cmd.Args, p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// line waits for a line that holds text.
func (p *process) line(text string) string {
	p.t.Helper()
	line, ok := p.out.find(text, patience, p.done)
	if !ok {
		p.t.Fatalf("no line with %q came of %v; it wrote:\n%s", text, p.cmd.Args, p.out.tail())
	}
	return line
}

// field is a member of a log line.
func field(t testing.TB, line, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("log line %q: %v", line, err)
	}
	s, _ := m[name].(string)
	return s
}

// lines collects what a process writes.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced with each write
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(p)
}

func (l *lines) wake() { _, _ = l.Write(nil) }

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// tail is the end of the text, for a failed test.
func (l *lines) tail() string {
	s := l.String()
	return s[max(0, len(s)-8000):]
}

// find waits until a whole line holds text. It gives up when over is closed and the line is not there.
func (l *lines) find(text string, within time.Duration, over <-chan struct{}) (string, bool) {
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		ended := closed(over)
		l.mu.Lock()
		s, more := l.text.String(), l.more
		l.mu.Unlock()
		for line := range strings.Lines(s) {
			if strings.Contains(line, text) && strings.HasSuffix(line, "\n") {
				return line, true
			}
		}
		if ended {
			return "", false
		}
		select {
		case <-more:
		case <-late.C:
			return "", false
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// eventually tries a condition until it holds. It is for what no event announces.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("still not: %s", what)
		}
	}
}
