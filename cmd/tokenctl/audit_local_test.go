package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhoGotATokenIsAnsweredBehindAnAgent goes the way from a token that turned up to the process that was given it: the broker's trail names the
// generation and the agent, the agent's own trail the local user.
func TestWhoGotATokenIsAnsweredBehindAnAgent(t *testing.T) {
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	p := w.startAgent(t, "")
	token := p.curl("/v1/token/example/api?format=token")
	p.curl("/v1/token/example/none")
	generation := inside(p.curl("/v1/token/example/api"), `"generation":"`, `"`)
	p.end()

	find := exec.Command("tokenctl", "audit", "find", "--token-stdin")
	find.Env, find.Stdin = w.environ(), strings.NewReader(token)
	out, err := find.CombinedOutput()
	if err != nil || !strings.Contains(string(out), generation) {
		t.Errorf("audit find: got %v\n%s\nwant generation %s", err, out, generation)
	}
	for name, c := range map[string]struct {
		args       []string
		want, none string
	}{
		"the generation":     {[]string{"--credential", "example/api", "--generation", generation}, "unix:uid=", "example/none"},
		"denied or not":      {[]string{"--decision", "deny"}, "no records", "unix:uid="},
		"how it ended":       {[]string{"--code", "CREDENTIAL_NOT_FOUND", "--action", "token.*", "--kind", "call"}, "example/none", "example/api"},
		"of the agent":       {[]string{"--kind", "system", "--since", "1h"}, "agent.start", "example/api"},
		"who":                {[]string{"--identity", "unix:uid=*", "--rule", "own-uid", "--limit", "1"}, "own-uid", "agent.start"},
		"of another time":    {[]string{"--until", "2020-01-01"}, "no records", "unix:uid="},
		"of another user":    {[]string{"--identity", "unix:uid=4000000"}, "no records", "own-uid"},
		"another credential": {[]string{"--credential", "other/*"}, "no records", "own-uid"},
	} {
		got := w.tokenctl(t, append([]string{"audit", "list", "--file", p.trail}, c.args...)...)
		if !strings.Contains(got, c.want) || strings.Contains(got, c.none) {
			t.Errorf("%s: got\n%s\nwant %q and no %q", name, got, c.want, c.none)
		}
	}
	if got := w.tokenctl(t, "audit", "list", "--file", p.trail, "--action", "token.get", "-o", "json"); !strings.Contains(got, `"peer": "pid=`) || strings.Contains(got, token) {
		t.Errorf("as JSON: want the process, and no token; got %d bytes", len(got))
	}
}

func TestAFileThatIsNoTrailIsNotListed(t *testing.T) {
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise")
	if err := os.WriteFile(noise, []byte("what is no record\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), dir, noise} {
		out, err := exec.Command("tokenctl", "audit", "list", "--file", path).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--file can't be read") {
			t.Errorf("%s: got %v, %s", path, err, out)
		}
	}
	out, err := exec.Command("tokenctl", "audit", "list", "--file", noise, "--credential", "a***b").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--credential") {
		t.Errorf("a pattern that is none: got %v, %s", err, out)
	}
}

// inside is the first text between two others.
func inside(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}
