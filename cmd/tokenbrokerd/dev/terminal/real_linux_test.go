package terminal_test

import (
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
)

func TestARealTerminalIsReadKeyByKeyAndRestored(t *testing.T) {
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer tty.Close()
	t.Setenv("TERM", "dumb")
	if terminal.Of(tty, tty) != nil {
		t.Error("a dumb terminal was taken")
	}
	t.Setenv("TERM", "xterm")
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	term := terminal.Of(tty, tty)
	if term == nil {
		t.Fatal("not taken for a terminal")
	}
	defer term.Stop()
	if w, h := term.Size(); w != 77 || h != 33 {
		t.Errorf("size: got %d×%d, want 77×33", w, h)
	}
	s, err := terminal.Take(term)
	if err != nil {
		t.Fatal(err)
	}
	keys, done := make(chan terminal.Key, 1), make(chan struct{})
	go func() {
		defer close(done)
		terminal.Keys(term.In, func(k terminal.Key) { keys <- k })
	}()
	if _, err := master.WriteString("x"); err != nil { // without a newline
		t.Fatal(err)
	}
	if k := <-keys; k != 'x' {
		t.Errorf("got key %q, want x", k)
	}
	_ = term.In.Close() // ends the wait for a key that never comes
	<-done
	s.Leave()
	after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the terminal was not restored (-before +after)\n%s", diff)
	}
}
