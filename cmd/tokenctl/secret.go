package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tokenbroker/tokenbroker"
)

// secretFlags are the ways in for one secret. None of them is a flag with the secret as its value: others can read a command line.
type secretFlags struct {
	name  string // of the flags: --name-stdin, --name-file
	stdin bool
	file  string
}

func (f *secretFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stdin, f.name+"-stdin", false, "read the "+f.words()+" from standard input")
	cmd.Flags().StringVar(&f.file, f.name+"-file", "", "read the "+f.words()+" from a `file`")
}

func (f *secretFlags) words() string { return strings.ReplaceAll(f.name, "-", " ") }

// given reports whether a flag says where the secret is.
func (f *secretFlags) given() bool { return f.stdin || f.file != "" }

// read takes the secret from where the flags say, else from a prompt.
func (f *secretFlags) read(ctx context.Context, c *cli) (tokenbroker.Secret, error) {
	var data []byte
	var err error
	switch {
	case f.stdin && f.file != "":
		return tokenbroker.Secret{}, usagef("give --%s-stdin or --%s-file, not both", f.name, f.name)
	case f.stdin:
		defer c.interruptible(ctx, func() {})()
		data, err = limited(c.in)
	case f.file != "":
		data, err = readFile(f.name+"-file", f.file)
	case terminal(c.in):
		data, err = c.prompt(ctx, f)
	default:
		return tokenbroker.Secret{}, usagef("the %s is missing: give --%s-stdin or --%s-file, or run it on a terminal", f.words(), f.name, f.name)
	}
	if err != nil {
		return tokenbroker.Secret{}, fmt.Errorf("read the %s: %w", f.words(), err)
	}
	data, _ = bytes.CutSuffix(data, []byte("\n"))
	data, _ = bytes.CutSuffix(data, []byte("\r"))
	switch {
	case len(data) == 0:
		return tokenbroker.Secret{}, usagef("the %s is empty", f.words())
	case len(data) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Secret{}, usagef("the %s has more than %d bytes: is it the right file?", f.words(), tokenbroker.MaxSecretBytes)
	case !utf8.Valid(data):
		return tokenbroker.Secret{}, usagef("the %s is no text in UTF-8: is it the right file?", f.words())
	}
	return tokenbroker.NewSecret(string(data)), nil
}

// limited reads as much as a secret and its newline may have, and one byte more.
func limited(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, tokenbroker.MaxSecretBytes+3))
}

// readFile reads the file that a flag names.
func readFile(flag, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unopened("--"+flag, err)
	}
	defer f.Close()
	return limited(f)
}

// unopened is why the file of a flag or an argument can't be read, without its name: it may be a secret that somebody took the flag to want.
func unopened(what string, err error) error {
	return &failure{exit: exitUsage, what: what + ": " + cause(err), err: err}
}

// cause is an error of the file system without the name of the file.
func cause(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// interruptible lets a signal end the process while it waits for somebody to type: a read of standard input can't be cancelled. restore
// puts the terminal in order. Call what it returns when the wait is over.
func (c *cli) interruptible(ctx context.Context, restore func()) (over func()) {
	stop := context.AfterFunc(ctx, func() {
		restore()
		_, _ = fmt.Fprintln(c.errs)
		if c.leave != nil {
			c.leave()
		}
		os.Exit(report(ctx, c.errs, ctx.Err()))
	})
	return func() { _ = stop() }
}

var errInterrupted = &failure{exit: exitInterrupted, what: "interrupted"}

// prompt asks for a secret on the terminal, without echo. The terminal is made raw, since a line of a cooked one is cut after 4095 bytes.
// What was pasted beyond a line is taken, too: the shell would run it, and keep it in its history.
func (c *cli) prompt(ctx context.Context, f *secretFlags) ([]byte, error) {
	tty := c.in.(*os.File)
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return nil, err
	}
	restore := func() { _ = term.Restore(int(tty.Fd()), state) }
	defer c.interruptible(ctx, restore)()
	defer restore()
	_, _ = fmt.Fprintf(c.errs, "%s (not shown): ", f.words())
	data, err := hidden(tty)
	more := drain(tty)
	_, _ = fmt.Fprint(c.errs, "\r\n")
	if err == nil && more && len(data) <= tokenbroker.MaxSecretBytes {
		return nil, usagef("the %s has more than one line: give it by --%s-file or --%s-stdin", f.words(), f.name, f.name)
	}
	return data, err
}

// hidden reads a line from a raw terminal.
func hidden(r io.Reader) ([]byte, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) <= tokenbroker.MaxSecretBytes {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("the terminal is gone: %w", err)
		}
		switch b[0] {
		case '\r', '\n':
			return line, nil
		case 3: // Ctrl-C
			return nil, errInterrupted
		case 4: // Ctrl-D
			return nil, errInterrupted
		case 8, 127: // backspace
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		case 21: // Ctrl-U
			line = nil
		default:
			line = append(line, b[0])
		}
	}
	return line, nil
}

// confirm asks before something that can't be undone. Off a terminal only --yes confirms.
func (c *cli) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !terminal(c.in) {
		return usagef("%s Confirm with --yes: there is no terminal to ask on", question)
	}
	_, _ = fmt.Fprintf(c.errs, "%s [y/N] ", clean(question))
	over := c.interruptible(ctx, func() {})
	answer, err := line(c.in, 100)
	over()
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	return &failure{exit: exitOther, what: "nothing was done"}
}

// line reads a line of so many bytes at most, and not a byte more.
func line(r io.Reader, most int) (string, error) {
	var text []byte
	b := make([]byte, 1)
	for len(text) < most {
		n, err := r.Read(b)
		if errors.Is(err, io.EOF) || n > 0 && b[0] == '\n' {
			break
		}
		if err != nil {
			return "", err
		}
		text = append(text, b[:n]...)
	}
	return string(text), nil
}
