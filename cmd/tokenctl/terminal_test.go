package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// keyboard is a command on a terminal of its own.
type keyboard struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File // our end of the terminal
	read chan struct{}

	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

// sit starts tokenctl on a terminal.
func (w *world) sit(t *testing.T, args ...string) *keyboard {
	t.Helper()
	k := &keyboard{t: t, cmd: exec.Command("tokenctl", args...), read: make(chan struct{}), more: make(chan struct{}, 1)}
	k.cmd.Env = append(w.environ(), "TERM=xterm-256color", "COLORTERM=truecolor")
	tty, err := pty.Start(k.cmd)
	if err != nil {
		t.Fatal(err)
	}
	k.tty = tty
	go k.listen()
	return k
}

// sitAt starts tokenctl on a terminal that stays when it ends.
func (w *world) sitAt(t *testing.T, master, tty *os.File, args ...string) *keyboard {
	t.Helper()
	k := &keyboard{t: t, cmd: exec.Command("tokenctl", args...), tty: master, read: make(chan struct{}), more: make(chan struct{}, 1)}
	k.cmd.Env, k.cmd.Stdin, k.cmd.Stdout, k.cmd.Stderr = w.environ(), tty, tty, tty
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go k.listen()
	return k
}

// listen keeps what the terminal shows until it is gone.
func (k *keyboard) listen() {
	defer close(k.read)
	b := make([]byte, 4096)
	for {
		n, err := k.tty.Read(b)
		k.mu.Lock()
		k.text.Write(b[:n])
		k.mu.Unlock()
		select {
		case k.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (k *keyboard) shown() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text.String()
}

// await waits until the terminal shows a text.
func (k *keyboard) await(text string) {
	k.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !strings.Contains(k.shown(), text) {
		select {
		case <-k.more:
		case <-deadline.C:
			_ = k.cmd.Process.Kill()
			k.t.Fatalf("%q does not come; the terminal shows:\n%s", text, k.shown())
		}
	}
}

func (k *keyboard) press(keys string) {
	k.t.Helper()
	if _, err := k.tty.WriteString(keys); err != nil {
		k.t.Fatal(err)
	}
}

// end waits for the command and returns its exit status.
func (k *keyboard) end() int {
	k.t.Helper()
	giveUp := time.AfterFunc(patience, func() { _ = k.cmd.Process.Kill() })
	defer giveUp.Stop()
	err := k.cmd.Wait()
	<-k.read
	_ = k.tty.Close()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return ended.ExitCode()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return 0
}

func TestASecretIsTypedWithoutEcho(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	k := w.sit(t, "client", "create", "fast", "--provider", "fast", "--client-id", "job")
	k.await("secret (not shown): ")
	k.press("wrong\x15s3cret/+x\x7f %\r") // Ctrl-U, and one backspace: they work as anywhere
	if got := k.end(); got != 0 {
		t.Fatalf("got exit status %d:\n%s", got, k.shown())
	}
	if strings.Contains(k.shown(), "s3cret") || strings.Contains(k.shown(), "wrong") {
		t.Errorf("the terminal shows the secret:\n%s", k.shown())
	}
	w.credential(t)
	if got := w.Sandbox.Count(sandbox.Filter{Code: "invalid_client"}); got != 0 {
		t.Errorf("the provider refused the secret that was typed")
	}
}

// credential adds example/api to the client "fast" and waits for its token.
func (w *world) credential(t *testing.T) {
	t.Helper()
	for _, args := range []string{"credential create example/api --provider fast --client fast --grant client_credentials", "get example/api"} {
		cmd := exec.Command("tokenctl", strings.Fields(args)...)
		cmd.Env = w.environ()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
}

func TestALongSecretCanBeTyped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	k := w.sit(t, "client", "create", "fast", "--provider", "fast", "--client-id", "job")
	k.await("not shown): ")
	for range 12 { // a cooked terminal would cut it after 4095 bytes
		k.press(strings.Repeat("x", 1000))
	}
	k.press("\r")
	if got := k.end(); got != 0 {
		t.Errorf("got exit status %d:\n%s", got, k.shown())
	}
}

func TestAPromptCanBeLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	for name, leave := range map[string]func(*keyboard){
		"Ctrl-C":   func(k *keyboard) { k.press("abc\x03") },
		"Ctrl-D":   func(k *keyboard) { k.press("\x04") },
		"a signal": func(k *keyboard) { _ = k.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run("by "+name, func(t *testing.T) {
			master, tty, err := pty.Open() // our own, to look at its state afterwards
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			before, err := term.GetState(int(tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			k := w.sitAt(t, master, tty, "client", "secret", "add", "fast")
			k.await("not shown): ")
			leave(k)
			k.await("interrupted")
			_ = k.cmd.Wait()
			if got := k.cmd.ProcessState.ExitCode(); got != exitInterrupted {
				t.Errorf("got exit status %d, want %d", got, exitInterrupted)
			}
			after, err := term.GetState(int(tty.Fd()))
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as it was before: %v", err)
			}
			_ = tty.Close()
			<-k.read
			_ = master.Close()
		})
	}
}

func TestATokenIsNotPrintedOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	for _, args := range [][]string{{"get", "example/api"}, {"get", "example/api", "-o", "header"}, {"get", "example/api", "-o", "json"},
		{"header", "example/api"}, {"get", "example/api", "-o", "exec-credential"},
		{"subscribe", "example/api", "-o", "json", "--show-token"}} {
		k := w.sit(t, args...)
		if got := k.end(); got != exitUsage {
			t.Errorf("%v: got exit status %d, want %d", args, got, exitUsage)
		}
		if text := k.shown(); strings.Contains(text, "sandbox_") || !strings.Contains(text, "--force") {
			t.Errorf("%v: got %q, want no token and how to get one", args, text)
		}
	}
	for _, args := range [][]string{{"get", "example/api", "--force"}, {"subscribe", "example/api", "-o", "json", "--show-token", "--force", "--count", "1"}} {
		k := w.sit(t, args...)
		if got := k.end(); got != 0 || !strings.Contains(k.shown(), "sandbox_") {
			t.Errorf("%v: got exit status %d and %q, want the token", args, got, k.shown())
		}
	}
	k := w.sit(t, "get", "example/api", "-o", "table")
	if got := k.end(); got != 0 || strings.Contains(k.shown(), "sandbox_") {
		t.Errorf("got exit status %d and %q, want what the token is", got, k.shown())
	}
}

func TestNothingIsColoured(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	for _, args := range [][]string{{"credential", "list"}, {"credential", "describe", "example/api"}, {"--help"}, {"get", "nope"}} {
		k := w.sit(t, args...)
		k.end()
		if strings.Contains(k.shown(), "\x1b") {
			t.Errorf("%v: got %q, want no escapes", args, k.shown())
		}
	}
}

func TestCtrlCEndsASubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	k := w.sit(t, "subscribe", "example/api")
	k.await("READY")
	k.press("\x03")
	if got := k.end(); got != exitInterrupted {
		t.Errorf("got exit status %d, want %d:\n%s", got, exitInterrupted, k.shown())
	}
}

func TestDeleteAsksOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	for _, row := range []struct {
		keys string
		exit int
	}{{"\n", exitOther}, {"n\n", exitOther}, {"\x03", exitInterrupted}, {"y\n", exitOK}} {
		k := w.sit(t, "credential", "delete", "example/api")
		k.await("Delete credential example/api, its refresh token and its tokens? [y/N] ")
		k.press(row.keys)
		if got := k.end(); got != row.exit {
			t.Errorf("%q: got exit status %d, want %d:\n%s", row.keys, got, row.exit, k.shown())
		}
	}
}
