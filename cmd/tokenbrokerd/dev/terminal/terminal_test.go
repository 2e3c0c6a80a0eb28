package terminal_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKeysAreReadOneByOne(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []terminal.Key
	}{
		{"q1", []terminal.Key{'q', '1'}},
		{"\x1b[A\x1b[B\x1bOA\x1bOB", []terminal.Key{terminal.Up, terminal.Down, terminal.Up, terminal.Down}},
		{"\x1b[1;5A", []terminal.Key{terminal.Up}},                              // with Ctrl
		{"\x1b[C\x1b[3~x", []terminal.Key{terminal.Other, terminal.Other, 'x'}}, // right, delete
		{"\x03\x04", []terminal.Key{terminal.Interrupt, terminal.Interrupt}},
		{"\x1bq", []terminal.Key{'q'}}, // Escape and then q, or Alt-q
		{"\r\x7fé", []terminal.Key{terminal.Other, terminal.Other, terminal.Other, terminal.Other}},
	} {
		for _, size := range []int{1, 64} { // a sequence may come in pieces
			var got []terminal.Key
			terminal.Keys(&pieces{rest: tc.in, size: size}, func(k terminal.Key) { got = append(got, k) })
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%q in pieces of %d (-want +got)\n%s", tc.in, size, diff)
			}
		}
	}
}

// pieces reads a text in pieces.
type pieces struct {
	rest string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// writes records each Write.
type writes struct{ all []string }

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, string(p))
	return len(p), nil
}

func TestAScreenIsDrawnInOneWriteAndGivenBack(t *testing.T) {
	out, restored := &writes{}, 0
	s, err := terminal.Take(&terminal.Terminal{Out: out, Raw: func() (func(), error) { return func() { restored++ }, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s.Draw([]string{"one", "two"})
	s.Draw([]string{"one", "two"}) // nothing new
	s.Draw([]string{"one", "three"})
	s.Hide("a text\nof lines\n")
	s.Draw([]string{"one", "three"}) // not there any more
	s.Leave()
	s.Leave()
	s.Draw([]string{"late"})
	s.Hide("late")
	want := []string{
		"\x1b[?1049h\x1b[?25l\x1b[?7l",
		"\x1b[?2026h\x1b[H\x1b[Kone\r\n\x1b[Ktwo\x1b[J\x1b[?2026l",
		"\x1b[?2026h\x1b[H\x1b[Kone\r\n\x1b[Kthree\x1b[J\x1b[?2026l",
		"\x1b[?7h\x1b[?25h\x1b[?1049l",
		"a text\r\nof lines\r\n",
		"\x1b[?1049h\x1b[?25l\x1b[?7l",
		"\x1b[?2026h\x1b[H\x1b[Kone\r\n\x1b[Kthree\x1b[J\x1b[?2026l",
		"\x1b[?7h\x1b[?25h\x1b[?1049l",
	}
	if diff := cmp.Diff(want, out.all); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if restored != 1 {
		t.Errorf("restored %d times, want once", restored)
	}
}

func TestATerminalThatRefusesIsNotTaken(t *testing.T) {
	refused := errors.New("refused")
	if _, err := terminal.Take(&terminal.Terminal{Raw: func() (func(), error) { return nil, refused }}); !errors.Is(err, refused) {
		t.Errorf("got %v, want %v", err, refused)
	}
}

func TestWhatIsNoTerminalIsNotTakenForOne(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, got := range map[string]*terminal.Terminal{
		"a buffer": terminal.Of(r, &bytes.Buffer{}), "a reader": terminal.Of(strings.NewReader(""), w), "pipes": terminal.Of(r, w)} {
		if got != nil {
			t.Errorf("%s: taken for a terminal", name)
		}
	}
}
