package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNobodyReadsHalfAToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := newSink(filepath.Join(dir, "token"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{strings.Repeat("a", 5000), strings.Repeat("b", 90000)}
	if _, err := s.write([]byte(texts[0])); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			if changed, err := s.write([]byte(texts[(i+1)%2])); err != nil || !changed {
				t.Errorf("got changed %t and %v", changed, err)
			}
		}
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		if got := readIfThere(s.path); got != texts[0] && got != texts[1] {
			t.Fatalf("got %d bytes, want one of the tokens", len(got))
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("got %d files, want the token alone", len(left))
	}
	if changed, err := s.write([]byte(texts[0])); err != nil || changed {
		t.Errorf("got changed %t and %v for the same text", changed, err)
	}
}

func TestAFileThatBecomesALinkIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := newSink(filepath.Join(dir, "token"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), s.path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write([]byte("hush")); err == nil {
		t.Error("got no error for a link")
	}
	if readIfThere(filepath.Join(dir, "elsewhere")) != "" {
		t.Error("the link was followed")
	}
}

func TestTheEndOfATokenIsToldOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	errs := &page{more: make(chan struct{}, 1)}
	j := &fileJob{session: &session{cli: &cli{errs: errs}}, told: map[string]string{}, latest: map[string]handout{
		"a": {expiry: now.Add(time.Minute), ExpireTime: "soon"}, "b": {expiry: now.Add(-time.Minute), ExpireTime: "before"}, "c": {}}}
	if got := j.tellEnds(j.latest, j.told, now); got != time.Minute {
		t.Errorf("got %v, want the end of a", got)
	}
	j.tellEnds(j.latest, j.told, now)
	if got := strings.Count(errs.shown(), "credential b: its token ended at before"); got != 1 || strings.Count(errs.shown(), "\n") != 1 {
		t.Errorf("got %q, want one line", errs.shown())
	}
}

// TestFileRunsInThisProcess is for the race detector and the search for goroutines.
func TestFileRunsInThisProcess(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for name, value := range w.env() {
		t.Setenv(name, value)
	}
	w.AddRefreshToken("example/a", "rotating", "files.read")
	w.AddRefreshToken("example/b", "rotating", "files.read")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs, ended := &page{more: make(chan struct{}, 1)}, make(chan int, 1)
	go func() {
		c := &cli{in: strings.NewReader(""), out: errs, errs: errs}
		ended <- c.run(ctx, []string{"file", "--format", "json", "--run", "echo told", w.dir + "/a=example/a", w.dir + "/b=example/b"})
	}()
	errs.await(t, "told", 1)
	before := readIfThere(w.dir + "/b")
	w.tokenctl(t, "credential", "refresh", "example/b")
	errs.await(t, "told", 2)
	if after := readIfThere(w.dir + "/b"); after == before || !strings.Contains(after, "access_token") {
		t.Error("the file is as it was")
	}
	cancel()
	if got := <-ended; got != 0 {
		t.Errorf("got exit status %d, want 0:\n%s", got, errs.shown())
	}
}

func TestWhatAFileHolds(t *testing.T) {
	t.Parallel()
	h := handout{AccessToken: "x", TokenType: "Bearer", ExpireTime: "t", Scope: "a b", Generation: 3, header: "Authorization: Bearer x"}
	for format, want := range map[string]string{"token": "x", "header": "Authorization: Bearer x\n",
		"json": fmt.Sprintf("{\n  %q: %q,\n  %q: %q,\n  %q: %q,\n  %q: %q,\n  %q: 3\n}\n", "access_token", "x", "token_type", "Bearer", "expire_time", "t", "scope", "a b", "generation")} {
		if got, err := h.text(format); err != nil || string(got) != want {
			t.Errorf("%s: got %q and %v, want %q", format, got, err, want)
		}
	}
}
