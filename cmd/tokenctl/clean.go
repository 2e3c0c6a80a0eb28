package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes a text safe for a terminal: what would move the cursor, change colours or turn the direction of the line is shown as an
// escape. It keeps a text on one line.
func clean(s string) string {
	if strings.IndexFunc(s, unsafe) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unsafe(r):
			b.WriteString(escape(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unsafe reports whether a rune does something to a terminal other than to be shown.
func unsafe(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// escape is a rune as JSON writes it.
func escape(r rune) string {
	if r > 0xffff {
		hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
		return fmt.Sprintf(`\u%04x\u%04x`, hi, lo)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// cleanJSON does the same to JSON text, where all such runes are inside of strings, and which means the same afterwards.
func cleanJSON(data []byte) []byte {
	var b strings.Builder
	for _, r := range string(data) {
		if r != '\n' && unsafe(r) {
			b.WriteString(escape(r))
			continue
		}
		b.WriteRune(r)
	}
	return []byte(b.String())
}
