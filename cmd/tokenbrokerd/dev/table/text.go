package table

import (
	"strings"
	"unicode"

	"github.com/tokenbroker/tokenbroker"
)

// style is how a piece of text looks: the parameters of an SGR sequence, "" for plain.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	green  style = "32"
	yellow style = "33"
	red    style = "31"
	cyan   style = "36"
	blue   style = "34"
	invert style = "7"
)

// styleOf gives each state its colour. The state always stands there as a word, too.
func styleOf(s tokenbroker.State) style {
	switch s {
	case tokenbroker.StateReady:
		return green
	case tokenbroker.StateDegraded, tokenbroker.StateUncertain:
		return yellow
	case tokenbroker.StateReauthorize, tokenbroker.StateMisconfigured, tokenbroker.StateQuarantined:
		return red
	case tokenbroker.StatePending:
		return cyan
	case tokenbroker.StateDisabled:
		return dim
	}
	return plain
}

// piece is text of one style. A line is made of pieces.
type piece struct {
	text  string
	style style
}

type line []piece

// faint makes a line of one piece that does not ask for attention.
func faint(s string) line { return line{{s, dim}} }

// render cuts a line to a width and gives it its colours. A line that is cut ends in "…". Every rune that the table uses takes one
// column; what a terminal would obey, or show in two, becomes "?".
func (l line) render(width int, colour bool) string {
	var b strings.Builder
	long := l.width() > width
	room := width
	if long {
		room--
	}
	for _, p := range l {
		s := fit(p.text, room)
		room -= len([]rune(s))
		if colour && p.style != plain && s != "" {
			s = "\x1b[" + string(p.style) + "m" + s + "\x1b[0m"
		}
		b.WriteString(s)
	}
	if long && width > 0 {
		b.WriteString("…")
	}
	return b.String()
}

func (l line) width() (n int) {
	for _, p := range l {
		n += len([]rune(p.text))
	}
	return n
}

// fit is the start of a text that takes at most width columns.
func fit(s string, width int) string {
	runes := []rune(s)
	runes = runes[:max(0, min(width, len(runes)))]
	for i, r := range runes {
		if wide := r >= 0x1100 && r < 0x2000 || r >= 0x2e80; wide || !unicode.IsPrint(r) {
			runes[i] = '?'
		}
	}
	return string(runes)
}

// pad gives a text exactly a width.
func pad(s string, width int) string {
	n := len([]rune(s))
	if n > width {
		return line{{s, plain}}.render(width, false)
	}
	return s + strings.Repeat(" ", width-n)
}

// right is pad with the text at the right end.
func right(s string, width int) string {
	if n := len([]rune(s)); n < width {
		return strings.Repeat(" ", width-n) + s
	}
	return pad(s, width)
}
