// Package terminal is what a full-screen command needs of a terminal: raw mode, the alternate screen, keys, the size.
//
// A [Screen] takes the terminal over and gives it back as it was, whatever happens: [Screen.Leave] may be called from anywhere, any
// number of times. A frame is written in one piece, over the one before, so that nothing flickers.
package terminal

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// Terminal is a terminal, or what stands for one in a test.
type Terminal struct {
	In      io.ReadCloser                    // keys; Close ends a Read
	Out     io.Writer                        // what is shown
	Size    func() (width, height int)       // asked before each frame
	Raw     func() (restore func(), _ error) // switches to single keys without echo
	Resized <-chan os.Signal                 // tells that Size has changed; nil is fine
	Stop    func()                           // ends what Of started; nil is fine
}

// Of is the terminal that a command was started on; nil if it was not, or if that terminal can't move its cursor.
func Of(in io.Reader, out io.Writer) *Terminal {
	i, ok := in.(*os.File)
	o, isFile := out.(*os.File)
	if !ok || !isFile || !term.IsTerminal(int(i.Fd())) || !term.IsTerminal(int(o.Fd())) || dumb(os.Getenv("TERM")) {
		return nil
	}
	resized, stop := watchSize()
	return &Terminal{
		In: newKeyboard(i), Out: o, Resized: resized, Stop: stop,
		Size: func() (int, int) {
			w, h, err := term.GetSize(int(o.Fd()))
			if err != nil || w <= 0 || h <= 0 {
				return 80, 24
			}
			return w, h
		},
		Raw: func() (func(), error) {
			before, err := term.MakeRaw(int(i.Fd()))
			if err != nil {
				return nil, err
			}
			return func() { _ = term.Restore(int(i.Fd()), before) }, nil
		},
	}
}

func dumb(name string) bool { return name == "" || name == "dumb" }

const (
	enter = "\x1b[?1049h\x1b[?25l\x1b[?7l" // alternate screen, no cursor, no wrapping at the edge
	leave = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home  = "\x1b[H"
	eol   = "\x1b[K"
	below = "\x1b[J"
	begin = "\x1b[?2026h" // a terminal that knows it shows what comes only at the end
	end   = "\x1b[?2026l"
)

// Screen is a terminal taken over.
type Screen struct {
	t       *Terminal
	restore func()

	mu   sync.Mutex
	on   bool // the alternate screen is shown
	over bool // the terminal was given back for good
	last []byte
}

// Take takes a terminal over. Leave gives it back.
func Take(t *Terminal) (*Screen, error) {
	restore, err := t.Raw()
	if err != nil {
		return nil, err
	}
	return &Screen{t: t, restore: restore}, nil
}

// Leave gives the terminal back for good.
func (s *Screen) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.hideLocked()
	s.over = true
	s.restore()
}

// Hide shows the usual screen, with text added to it, until the next Draw.
func (s *Screen) Hide(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.hideLocked()
	_, _ = io.WriteString(s.t.Out, strings.ReplaceAll(text, "\n", "\r\n"))
}

func (s *Screen) hideLocked() {
	if s.on {
		_, _ = io.WriteString(s.t.Out, leave)
	}
	s.on, s.last = false, nil
}

// Draw shows lines, the first at the top. Lines that do not fit are the caller's fault. A frame that is shown already costs nothing.
func (s *Screen) Draw(lines []string) {
	var b bytes.Buffer
	b.WriteString(begin + home)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(eol + l) // the other way round it would take away what stands in the last column
	}
	b.WriteString(below + end)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || bytes.Equal(b.Bytes(), s.last) {
		return
	}
	s.last = bytes.Clone(b.Bytes())
	if !s.on {
		s.on = true
		_, _ = io.WriteString(s.t.Out, enter)
	}
	_, _ = s.t.Out.Write(b.Bytes())
}
