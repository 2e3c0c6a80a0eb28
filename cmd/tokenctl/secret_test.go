package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
)

func TestASecretIsReadAsItIs(t *testing.T) {
	most := strings.Repeat("x", tokenbroker.MaxSecretBytes)
	for _, row := range [][2]string{{"s3cret", "s3cret"}, {"s3cret\n", "s3cret"}, {"s3cret\r\n", "s3cret"}, {" blanks \n", " blanks "},
		{"two\n\n", "two\n"}, {most, most}, {most + "\n", most}, {most + "\r\n", most}} {
		in, want := row[0], row[1]
		c := &cli{in: strings.NewReader(in)}
		f := secretFlags{name: "secret", stdin: true}
		got, err := f.read(t.Context(), c)
		if err != nil || got.Reveal() != want {
			t.Errorf("%.20q of %d bytes: got %d bytes, %v", in, len(in), len(got.Reveal()), err)
		}
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		f = secretFlags{name: "secret", file: path}
		if got, err := f.read(t.Context(), c); err != nil || got.Reveal() != want {
			t.Errorf("%.20q of %d bytes, by file: got %d bytes, %v", in, len(in), len(got.Reveal()), err)
		}
	}
}

func TestASecretThatCanBeNoneIsRefused(t *testing.T) {
	for in, want := range map[string]string{"": "is empty", "\n": "is empty", "\r\n": "is empty", strings.Repeat("x", tokenbroker.MaxSecretBytes+1): "more than 16384 bytes"} {
		f := secretFlags{name: "refresh-token", stdin: true}
		_, err := f.read(t.Context(), &cli{in: strings.NewReader(in)})
		if failed, ok := errors.AsType[*failure](err); !ok || failed.exit != exitUsage || !strings.Contains(failed.what, want) {
			t.Errorf("%d bytes: got %v, want that it %s", len(in), err, want)
		}
	}
}

// endless never ends, and counts what was taken from it.
type endless struct{ taken int }

// Read implements io.Reader.
func (e *endless) Read(p []byte) (int, error) {
	e.taken += len(p)
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

func TestASecretWithoutEndIsNotReadToItsEnd(t *testing.T) {
	in := &endless{}
	f := secretFlags{name: "secret", stdin: true}
	if _, err := f.read(t.Context(), &cli{in: in}); err == nil || in.taken > 2*tokenbroker.MaxSecretBytes {
		t.Errorf("got %v after %d bytes", err, in.taken)
	}
	if data, err := hidden(&endless{}); err != nil || len(data) != tokenbroker.MaxSecretBytes+1 {
		t.Errorf("typed: got %d bytes, %v", len(data), err)
	}
}

func TestTypingHasItsUsualKeys(t *testing.T) {
	for keys, want := range map[string]string{"abc\r": "abc", "abc\n": "abc", "abd\x7fc\r": "abc", "abd\bc\r": "abc", "\x7f\x7fabc\r": "abc", "wrong\x15abc\r": "abc", "ä\x7fa\r": "a", "\r": ""} {
		if got, err := hidden(strings.NewReader(keys)); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", keys, got, err, want)
		}
	}
	for _, keys := range []string{"ab\x03", "\x04"} {
		if _, err := hidden(strings.NewReader(keys)); !errors.Is(err, errInterrupted) {
			t.Errorf("%q: got %v, want an interruption", keys, err)
		}
	}
	if _, err := hidden(strings.NewReader("ab")); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want that the terminal is gone", err)
	}
}

func TestALineIsReadToItsEndAndNoFurther(t *testing.T) {
	in := strings.NewReader("yes\nrest")
	if got, err := line(in, 100); err != nil || got != "yes" || in.Len() != len("rest") {
		t.Errorf("got %q, %v, and %d bytes left", got, err, in.Len())
	}
	if got, err := line(strings.NewReader("no newline"), 100); err != nil || got != "no newline" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := line(failing{}, 100); err == nil {
		t.Error("got no error of a reader that fails")
	}
}

// failing is a reader that fails.
type failing struct{}

// Read implements io.Reader.
func (failing) Read([]byte) (int, error) { return 0, errors.New("input/output error") }
