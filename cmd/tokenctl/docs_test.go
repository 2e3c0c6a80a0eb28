package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTheCommandsOfTheDocumentationAreThere reads docs/tokenctl.md: each command in it has to be one, with flags and arguments that there
// are. The scripts in testdata run what it tells.
func TestTheCommandsOfTheDocumentationAreThere(t *testing.T) {
	page, err := os.ReadFile("../../docs/tokenctl.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), "\\\n", " ")
	n := 0
	for line := range strings.Lines(text) {
		line = regexp.MustCompile(`(^|\s)# .*| \|.*| <.*|\s+#.*`).ReplaceAllString(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "")
		line = regexp.MustCompile(`'[^']*'`).ReplaceAllString(line, "x")
		if strings.HasPrefix(line, "tokenctl ") && !strings.Contains(line, " > ") && !strings.HasPrefix(line, "tokenctl completion") { // cobra adds that one late
			checkCommand(t, line)
			n++
		}
	}
	if n < 40 {
		t.Errorf("got %d commands, want all of the page", n)
	}
}
