package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/provider"
)

var update = flag.Bool("update", false, "write the documents")

func TestTheDocumentsAreWhatTheTablesSay(t *testing.T) {
	if *update {
		if err := write(".."); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, d := range documents {
		text, err := os.ReadFile(filepath.Join("..", d.name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d.name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		want, _ := os.ReadFile(filepath.Join(dir, d.name))
		got, _ := os.ReadFile(filepath.Join("..", d.name))
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("docs/%s is behind; make docs writes it (-want +got):\n%s", d.name, diff)
		}
	}
}

func TestADocumentWithoutMarksIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "errors.md")
	for _, text := range []string{"# Errors\n", "<!-- end reason -->\n<!-- begin reason: written by make docs -->\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := write(dir); err == nil || !strings.Contains(err.Error(), "errors.md: there are no marks") {
			t.Errorf("got %v, want an error", err)
		}
		if got, _ := os.ReadFile(name); string(got) != text {
			t.Errorf("wrote %q", got)
		}
	}
}

func TestEachProviderHasAPage(t *testing.T) {
	pages := providerPages()
	for _, name := range provider.Builtins() {
		p, _ := provider.Builtin(name)
		for _, want := range []string{"<a id=\"" + name + "\"></a>", "## " + p.Title + "\n", p.Sources[0]} {
			if !strings.Contains(pages, want) {
				t.Errorf("%s: the page lacks %q", name, want)
			}
		}
	}
}

func TestAPageSaysHowRefreshTokensLive(t *testing.T) {
	for name, want := range map[string]string{
		"atlassian": "rotate, forgiven 10m, a refresh ends the access token before it, idle 90d, from consent 365d", "google": "stay, idle 180d",
		"google-service-account": "none", "monday": "none come",
	} {
		p, _ := provider.Builtin(name)
		if got := lives(p); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
