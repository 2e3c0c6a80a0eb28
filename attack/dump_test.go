package attack_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker/attack/canary"
)

// TestS22DumpsHoldNoSecret ends the broker by the signals that make Go print its stacks, while tokens are on their way through it.
func TestS22DumpsHoldNoSecret(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGQUIT": syscall.SIGQUIT, "SIGABRT": syscall.SIGABRT} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, plan{})
			canaries := map[string]string{"client secret": secret, "key encryption key": strings.TrimSpace(w.read("kek.key"))}
			for _, name := range []string{"example/one", "example/pulse"} {
				tok, err := get(brief(t), w.operator, name)
				must(t, err)
				canaries["token of "+name] = tok.GetAccessToken()
			}
			busy := w.crowd("worker/busy", 2, 10, "example/one")
			w.victim() // asks for tokens until the end
			busy.reach(w.newest("example/one"))
			w.wantNoCore(t)
			var pages strings.Builder
			for _, path := range []string{"/metrics", "/readyz", "/livez"} {
				status, text := w.ask(path)
				if status != http.StatusOK {
					t.Fatalf("%s: %d, %s", path, status, text)
				}
				pages.WriteString(text)
			}
			must(t, w.proc.cmd.Process.Signal(signal))
			select {
			case <-w.proc.done:
			case <-time.After(patience):
				t.Fatal("it runs on")
			}
			dump := w.proc.text()
			if !strings.Contains(dump, "goroutine ") {
				t.Errorf("got no stacks, so this shows nothing: %.300q", dump)
			}
			for what, value := range canaries {
				if len(value) < 16 {
					t.Fatalf("the %s is too short to look for", what)
				}
				for place, text := range w.written(dump, pages.String()) {
					if form, _, found := canary.Find(text, value); found {
						t.Errorf("%s holds a %s, as %q", place, what, form)
					}
				}
			}
			t.Logf("looked for %d secrets in %d kB", len(canaries), len(dump)>>10)
			if state, ok := w.proc.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || state.CoreDump() {
				t.Errorf("got %v, want no core dump", w.proc.cmd.ProcessState)
			}
			for _, dir := range []string{".", w.dir, filepath.Dir(w.dir)} {
				found, err := filepath.Glob(filepath.Join(dir, "core*"))
				must(t, err)
				if len(found) > 0 {
					t.Errorf("got %v", found)
				}
			}
		})
	}
}

// written is all that the broker wrote, by place.
func (w *world) written(output, pages string) map[string]string {
	w.t.Helper()
	places := map[string]string{"its output": output, "a page of the ops listener": pages}
	for _, name := range []string{"audit.jsonl", "checkpoint.pub", "tokenbroker.db"} {
		places[name] = w.read(name)
	}
	if b, err := os.ReadFile(w.path("checkpoints.jsonl")); err == nil { // there may be none yet
		places["checkpoints.jsonl"] = string(b)
	}
	for place, text := range places {
		if text == "" {
			w.t.Errorf("%s is empty, the search proves nothing", place)
		}
	}
	return places
}

// wantNoCore wants that neither the broker nor who starts it can have its memory written to a file.
func (w *world) wantNoCore(t testing.TB) {
	t.Helper()
	var limit unix.Rlimit
	must(t, unix.Prlimit(w.proc.cmd.Process.Pid, unix.RLIMIT_CORE, nil, &limit))
	if limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("got a limit of %d, %d for core dumps, want none", limit.Cur, limit.Max)
	}
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.proc.cmd.Process.Pid, name))
		if errors.Is(err, fs.ErrPermission) {
			continue // all the better
		}
		must(t, err)
		if strings.Contains(string(b), secret) {
			t.Errorf("%s of the process holds a secret", name)
		}
	}
}
