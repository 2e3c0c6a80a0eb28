package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
)

// page is a standard output that says when something came.
type page struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

// Write implements io.Writer.
func (p *page) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.text.Write(data)
}

// shown is what was written.
func (p *page) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await waits until a text was written n times.
func (p *page) await(t *testing.T, text string, n int) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for strings.Count(p.shown(), text) < n {
		select {
		case <-p.more:
		case <-deadline.C:
			t.Fatalf("%q did not come %d times:\n%s", text, n, p.shown())
		}
	}
}

// TestACommandRunsInThisProcess follows a credential over a restart of the broker, while other commands run, all in this process: so the race
// detector and the search for goroutines see them.
func TestACommandRunsInThisProcess(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for name, value := range w.env() {
		t.Setenv(name, value)
	}
	w.AddRefreshToken("example/drive", "rotating", "files.read")
	command := func(ctx context.Context, out, errs *page, args ...string) int {
		c := &cli{in: strings.NewReader("hush-another"), out: out, errs: errs}
		return c.run(ctx, args)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs, ended := &page{more: make(chan struct{}, 1)}, &page{more: make(chan struct{}, 1)}, make(chan int, 1)
	go func() { ended <- command(ctx, out, errs, "subscribe", "example/drive") }()
	out.await(t, "READY", 1)

	other := &page{more: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	for _, line := range []string{"credential refresh example/drive", "credential list -o yaml", "client secret add rotating --secret-stdin", "get example/drive -o header"} {
		wg.Go(func() {
			if got := command(t.Context(), other, other, strings.Fields(line)...); got != 0 {
				t.Errorf("%s: got exit status %d", line, got)
			}
		})
	}
	wg.Wait()
	out.await(t, "READY", 2)
	w.Restart()
	errs.await(t, "connected again", 1)
	if got := command(t.Context(), other, other, "credential", "disable", "example/drive"); got != 0 {
		t.Errorf("got exit status %d:\n%s", got, other.shown())
	}
	out.await(t, "DISABLED", 1)
	cancel()
	if got := <-ended; got != exitInterrupted {
		t.Errorf("got exit status %d, want %d", got, exitInterrupted)
	}
	if text := out.shown() + errs.shown(); strings.Contains(text, "sandbox_") || strings.Contains(text, brokertest.Secret) || strings.Contains(text, "hush") {
		t.Errorf("a token or a secret got out:\n%s", text)
	}
}

// awaitFile waits for a file that another process makes.
func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text := readIfThere(path); text != "" {
			return text
		}
	}
	t.Fatalf("%s does not come", path)
	return ""
}

func readIfThere(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}
