package recipes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// maxLines is how long a page for a person in a hurry may be.
const maxLines = 60

// page is a recipe: the commands that it says to run, and the files that it shows.
type page struct {
	name     string
	path     string // of its file
	text     string
	commands []string
	files    map[string]string // path → text

	mu   sync.Mutex
	done map[string]bool // commands, and paths of files
}

// pages reads all of them.
func pages(t *testing.T) (all []*page) {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	if err != nil || len(paths) < 12 {
		t.Fatalf("got %v, %v, want the pages", paths, err)
	}
	for _, path := range append(paths, "../verify.md") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(strings.TrimSuffix(filepath.Base(path), ".md"), string(data))
		p.path = path
		if n := strings.Count(p.text, "\n"); n > maxLines && path != "../verify.md" {
			t.Errorf("%s has %d lines, want %d at most", path, n, maxLines)
		}
		if !strings.Contains(p.text, "What was run") {
			t.Errorf("%s does not say what was run", path)
		}
		all = append(all, p)
	}
	return all
}

func TestTheLinksOfThePagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, p := range pages(t) {
		for _, found := range link.FindAllStringSubmatch(p.text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(p.path), found[1])); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
}

// fence is a block of a page, with what it is.
var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// parse takes a page apart. A block of "sh" holds commands, of "text" what they answer; any other is a file whose path is in its first line.
func parse(name, text string) *page {
	p := &page{name: name, text: text, files: map[string]string{}, done: map[string]bool{}}
	for _, found := range fence.FindAllStringSubmatch(text, -1) {
		switch info, body := found[1], found[2]; info {
		case "text":
		case "sh":
			p.commands = append(p.commands, commands(body)...)
		default:
			_, named, _ := strings.Cut(strings.TrimPrefix(body, "#!/bin/bash\n"), " ")
			p.files[strings.Fields(named)[0]] = body
		}
	}
	return p
}

// commands are the lines of a block, without remarks. A backslash at the end of a line goes on.
func commands(body string) (all []string) {
	remark := regexp.MustCompile(`(^|\s{2,})# .*$`)
	for line := range strings.Lines(strings.ReplaceAll(body, "\\\n", " ")) {
		if line = strings.TrimSpace(remark.ReplaceAllString(strings.TrimSpace(line), "")); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// command is the one that begins with a text.
func (p *page) command(begin string) (string, error) {
	var found []string
	for _, c := range p.commands {
		if strings.HasPrefix(c, begin) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d commands of the page begin with %q, want one: %q", len(found), begin, p.commands)
	}
	p.ran(found[0])
	return found[0], nil
}

// file is the text of a file that the page shows.
func (p *page) file(path string) (string, error) {
	text, found := p.files[path]
	if !found {
		return "", fmt.Errorf("the page shows no file %s", path)
	}
	p.ran(path)
	return text, nil
}

func (p *page) ran(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[what] = true
}

// complete fails the test for what was not run.
func (p *page) complete(t *testing.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.commands {
		if !p.done[c] {
			t.Errorf("%s: no script runs %q", p.name, c)
		}
	}
	for path := range p.files {
		if !p.done[path] {
			t.Errorf("%s: no script uses the file %s", p.name, path)
		}
	}
}

func TestAPageIsTakenApart(t *testing.T) {
	p := parse("x", "# X\n```sh\n# a remark\ntokenctl get \\\n   a/b   # why\n\nls | wc\n```\n```text\nno command\n```\n```ini\n# /etc/x.service\n[Unit]\n```\n"+
		"```go\n// main.go\npackage main\n```\n")
	if len(p.commands) != 2 || p.commands[0] != "tokenctl get     a/b" || p.commands[1] != "ls | wc" {
		t.Errorf("got the commands %q", p.commands)
	}
	if len(p.files) != 2 || !strings.Contains(p.files["/etc/x.service"], "[Unit]") || p.files["main.go"] == "" {
		t.Errorf("got the files %q", p.files)
	}
	if _, err := p.command("rm"); err == nil {
		t.Error("got no error for a command that is not there")
	}
	if _, err := p.file("none"); err == nil {
		t.Error("got no error for a file that is not there")
	}
}
