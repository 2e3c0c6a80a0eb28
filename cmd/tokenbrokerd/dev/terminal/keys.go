package terminal

import (
	"io"
)

// Key is one key press: the character, or one of the constants.
type Key rune

// Keys that are no characters.
const (
	Up Key = -1 - iota
	Down
	Interrupt // Ctrl-C, which raw mode passes on as a character
	Other     // any that has no name here
)

// Keys reads keys until In ends, and hands each on. A sequence that is not known comes as one Other.
func Keys(in io.Reader, do func(Key)) {
	var d decoder
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		for _, b := range buf[:n] {
			if k, ok := d.next(b); ok {
				do(k)
			}
		}
		if err != nil {
			return
		}
	}
}

// decoder takes keys out of bytes: "\x1b[A" and "\x1bOA" are one key each.
type decoder struct {
	escape int // bytes of a sequence that were seen
}

func (d *decoder) next(b byte) (Key, bool) {
	switch {
	case b == 0x1b:
		d.escape = 1
		return 0, false
	case d.escape == 1 && (b == '[' || b == 'O'):
		d.escape = 2
		return 0, false
	case d.escape == 2 && (b < 0x40 || b > 0x7e): // parameters of a sequence
		return 0, false
	case d.escape == 2:
		d.escape = 0
		return arrow(b), true
	}
	d.escape = 0
	switch {
	case b == 0x03 || b == 0x04:
		return Interrupt, true
	case b < 0x20 || b >= 0x7f:
		return Other, true
	}
	return Key(b), true
}

func arrow(b byte) Key {
	switch b {
	case 'A':
		return Up
	case 'B':
		return Down
	}
	return Other
}
