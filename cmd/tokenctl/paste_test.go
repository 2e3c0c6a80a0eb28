package main

import (
	"bufio"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/tokenbroker/tokenbroker"
)

// leftOver pastes something at the prompt for a secret, and gives what a shell would read when the command has ended.
func (w *world) leftOver(t *testing.T, pasted string) (k *keyboard, exit int, rest string) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	k = w.sitAt(t, master, tty, "client", "create", "fast", "--provider", "fast", "--client-id", "job")
	k.await("not shown): ")
	k.press(pasted)
	_ = k.cmd.Wait()
	after, err := term.GetState(int(tty.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was before: %v", err)
	}
	k.press("next command\n")
	rest, err = bufio.NewReader(tty).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	<-k.read
	_ = master.Close()
	return k, k.cmd.ProcessState.ExitCode(), rest
}

func TestNoPartOfAPastedSecretIsLeftToTheShell(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		pasted, says string
		exit         int
	}{
		"two lines":                   {"hush-one\rhush-two\r", "tokenctl: the secret has more than one line: give it by --secret-file or --secret-stdin", exitUsage},
		"a second line without end":   {"hush-one\nhush-two", "has more than one line", exitUsage},
		"an empty line first":         {"\rhush-two\r", "has more than one line", exitUsage},
		"more than a secret may have": {strings.Repeat("h", tokenbroker.MaxSecretBytes+1) + "hush-two\r", "more than 16384 bytes", exitUsage},
		"what comes after Ctrl-C":     {"hush-one\x03hush-two\r", "interrupted", exitInterrupted},
		"one line with two ends":      {"s3cret/+ %\r\n", "CLIENT ID", exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir())
			k, exit, rest := w.leftOver(t, row.pasted)
			if exit != row.exit || !strings.Contains(k.shown(), row.says) {
				t.Errorf("got exit status %d, want %d, and %q in\n%s", exit, row.exit, row.says, k.shown())
			}
			if rest != "next command\n" {
				t.Errorf("the shell reads %q", rest)
			}
			if strings.Contains(k.shown(), "hush") {
				t.Errorf("the terminal shows the secret:\n%s", k.shown())
			}
		})
	}
}
