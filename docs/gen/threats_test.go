package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testNames are those of all tests of the repository.
func testNames(t *testing.T) []string {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	var names []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil || len(names) < 500 {
		t.Fatalf("found %d tests: %v", len(names), err)
	}
	return names
}

// TestEveryTestThatTheThreatModelNamesIsThere: a number such as TestS05 stands for all tests that begin so.
func TestEveryTestThatTheThreatModelNamesIsThere(t *testing.T) {
	text, err := os.ReadFile("../threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	all := "\n" + strings.Join(testNames(t), "\n") + "\n"
	named := regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(string(text), -1)
	numbered := regexp.MustCompile(`^Test[SP]\d\d$`)
	for _, name := range named {
		if numbered.MatchString(name) && strings.Contains(all, "\n"+name) || strings.Contains(all, "\n"+name+"\n") {
			continue
		}
		t.Errorf("docs/threat-model.md names %s, and there is no such test", name)
	}
	if len(named) < 60 {
		t.Errorf("found only %d names of tests", len(named))
	}
}
