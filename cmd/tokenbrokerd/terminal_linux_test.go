package main_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// console is a pseudo-terminal with dev on it.
type console struct {
	master, tty *os.File
	cmd         *exec.Cmd
	ended       chan struct{} // closed when dev's output has ended
	more        chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

// openConsole runs dev as a person would, on 80 columns and 24 lines.
func openConsole(t *testing.T) *console {
	t.Helper()
	master, tty, err := pty.Open()
	must(t, err)
	must(t, pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 80}))
	c := &console{master: master, tty: tty, cmd: exec.Command("tokenbrokerd", "dev"), ended: make(chan struct{}), more: make(chan struct{}, 1)}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = tty, tty, tty
	c.cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=1", "TMPDIR="+t.TempDir())
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, c.cmd.Start())
	go c.read()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // when it has ended already, there is nothing to kill
		_ = tty.Close()
		_ = master.Close()
		<-c.ended
	})
	return c
}

func (c *console) read() {
	defer close(c.ended)
	buf := make([]byte, 4096)
	for {
		n, err := c.master.Read(buf)
		c.mu.Lock()
		c.text.Write(buf[:n])
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *console) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !strings.Contains(c.String(), text) {
		select {
		case <-c.more:
		case <-deadline.C:
			t.Fatalf("%q did not come; there was %q", text, c)
		}
	}
}

// TestDevGivesARealTerminalBack runs dev on a pseudo-terminal, and leaves it in each way that there is.
func TestDevGivesARealTerminalBack(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *console) error{
		"q":       func(c *console) error { _, err := io.WriteString(c.master, "q"); return err },
		"Ctrl-C":  func(c *console) error { _, err := io.WriteString(c.master, "\x03"); return err },
		"SIGTERM": func(c *console) error { return c.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGHUP":  func(c *console) error { return c.cmd.Process.Signal(syscall.SIGHUP) },
		"SIGQUIT": func(c *console) error { return c.cmd.Process.Signal(syscall.SIGQUIT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openConsole(t)
			before, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
			must(t, err)
			c.await(t, "ready")
			c.await(t, "\x1b[?1049h")
			c.await(t, "LAST EVENT")
			if strings.Contains(c.String(), "\x1b[3") {
				t.Error("there are colours, although NO_COLOR is set")
			}
			must(t, leave(c))
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("dev ended with %v", err)
			}
			c.await(t, "Seen in ")
			after, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
			must(t, err)
			before.Cflag, after.Cflag = 0, 0 // the speed, which a pseudo-terminal makes up
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the terminal was not restored (-before +after)\n%s", diff)
			}
			text := c.String()
			if left := strings.LastIndex(text, "\x1b[?7h\x1b[?25h\x1b[?1049l"); left < strings.LastIndex(text, "\x1b[?1049h") {
				t.Error("the alternate screen was not left")
			}
			if all, err := os.ReadDir(c.tmp()); err != nil || len(all) > 0 {
				t.Errorf("left behind: %v, %v", all, err)
			}
		})
	}
}

// tmp is where dev makes its folder.
func (c *console) tmp() string {
	return strings.TrimPrefix(c.cmd.Env[len(c.cmd.Env)-1], "TMPDIR=")
}

func TestDevWithoutATerminalPrintsLines(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("tokenbrokerd", "dev")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var all strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(all.String(), "waiters") {
		n, err := out.Read(buf)
		all.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
	}
	must(t, cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(out)
	must(t, err)
	must(t, cmd.Wait())
	text := all.String() + string(rest)
	for _, want := range []string{"DEV ONLY", "\nready\n", "1 exchange served"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("codes of a terminal in:\n%q", text)
	}
}
