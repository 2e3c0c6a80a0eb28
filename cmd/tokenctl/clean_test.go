package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanShowsWhatWouldActOnATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"example/reports":    "example/reports",
		"Größe 漢字 🙂":         "Größe 漢字 🙂",
		"\x1b[31mred":        `\u001b[31mred`,
		"a\nb\tc\r":          `a\u000ab\u0009c\u000d`,
		"\u009b2J":           `\u009b2J`,
		"a\u202eb\u200bc":    `a\u202eb\u200bc`,
		"line\u2028line":     `line\u2028line`,
		"\x7f":               `\u007f`,
		"bad \xff\xc0 bytes": `bad \xff\xc0 bytes`,
		"\uFFFD":             "\uFFFD",
		"\U000e0041":         `\udb40\udc41`,
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b]0;x\x07", "\xf0\x90", "\u202e", "\U000e0001", `\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := clean(s); strings.IndexFunc(got, unsafe) >= 0 || !utf8.ValidString(got) {
			t.Errorf("%q: got %q", s, got)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		safe := cleanJSON(raw)
		var back, want string
		if err := json.Unmarshal(safe, &back); err != nil {
			t.Fatalf("%q: got %s: %v", s, safe, err)
		}
		if err := json.Unmarshal(raw, &want); err != nil || back != want {
			t.Errorf("%q: got %q back, want %q", s, back, want)
		}
		if strings.IndexFunc(string(safe), unsafe) >= 0 {
			t.Errorf("%q: got %q", s, safe)
		}
	})
}
