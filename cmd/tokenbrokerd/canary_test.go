package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// canary knows the secrets of a run: those that the server keeps as it meets them, and those in URLs that a browser was sent to.
type canary struct {
	file   string              // of the server
	urls   map[string][]string // kind → values
	traces map[string][]byte   // what the system tells everybody of our processes
}

func newCanary(t *testing.T) *canary {
	return &canary{file: filepath.Join(t.TempDir(), "secrets"), urls: map[string][]string{}, traces: map[string][]byte{}}
}

// see takes the secrets out of a URL: a link, a state or a code.
func (c *canary) see(raw string) {
	u, err := url.Parse(raw)
	if err != nil {
		return
	}
	if link, ok := strings.CutPrefix(u.Path, "/consent/l/"); ok {
		_, secret, _ := strings.Cut(link, ".")
		c.add("link", secret)
	}
	_, secret, _ := strings.Cut(u.Query().Get("state"), ".")
	c.add("state", secret)
	c.add("code", u.Query().Get("code"))
}

func (c *canary) add(kind, value string) {
	if len(value) >= 16 { // less is none of ours but a test's own
		c.urls[kind] = append(c.urls[kind], value)
	}
}

// process keeps the arguments and the environment of a process, as long as it is there. Where there is no /proc, nobody can read them so.
func (c *canary) process(t *testing.T, p *process) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		file := fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)
		if data, err := os.ReadFile(file); err == nil {
			c.traces[fmt.Sprintf("%s of %s", file, p.cmd.Args[0])] = data
		}
	}
}

// secrets are all of them by kind.
func (c *canary) secrets(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for kind, list := range c.urls {
		all[kind] = append(all[kind], list...)
	}
	data, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		kind, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[kind] = append(all[kind], value)
	}
	return all
}

// wantNone looks for secrets in a text, also as they are written in URLs. but are kinds that may be there.
func wantNone(t *testing.T, where string, text []byte, secrets map[string][]string, but ...string) {
	t.Helper()
	for kind, list := range secrets {
		if len(but) > 0 && strings.Contains(strings.Join(but, " ")+" ", kind+" ") {
			continue
		}
		for _, s := range list {
			if bytes.Contains(text, []byte(s)) || bytes.Contains(text, []byte(url.QueryEscape(s))) {
				t.Errorf("%s holds a %s: %.6s…", where, kind, s)
			}
		}
	}
}

// wantNoLeak ends the broker and looks for every secret of the run in all that was written and shown.
func (w *browserWorld) wantNoLeak(t *testing.T) {
	t.Helper()
	for _, b := range w.browsers {
		got := b.Look()
		for _, r := range got.Asked {
			w.canary.see(r.URL)
		}
	}
	secrets := w.canary.secrets(t)
	for _, c := range w.clients {
		if c.Secret != "" {
			secrets["client_secret"] = append(secrets["client_secret"], c.Secret)
		}
	}
	for _, kind := range []string{"state", "code", "code_verifier", "id_token", "access_token", "refresh_token", "client_secret", "basic"} {
		if len(secrets[kind]) == 0 {
			t.Errorf("the run met no %s, so this says nothing of it", kind)
		}
	}
	for i, b := range w.browsers {
		wantNone(t, fmt.Sprintf("the history of browser %d", i), []byte(strings.Join(b.Look().History, "\n")), secrets, "link")
	}
	for _, p := range w.commands {
		wantNone(t, fmt.Sprintf("what %v wrote", p.cmd.Args), []byte(p.out.String()), secrets, "state", "link") // the URL is for the person
	}
	wantNone(t, "/metrics", w.metrics(t), secrets)
	w.canary.process(t, w.site.proc)
	for where, data := range w.canary.traces {
		wantNone(t, where, data, secrets)
	}
	w.site.stop()
	for _, p := range w.brokers {
		want(t, p.out.String(), `"msg":"stopped"`) // it is the log, all of it
		wantNone(t, "the broker's log", []byte(p.out.String()), secrets)
	}
	w.wantSealed(t, secrets)
}

// wantSealed looks into every file of the broker: the record, and the database with all that was ever in it.
func (w *browserWorld) wantSealed(t *testing.T, secrets map[string][]string) {
	t.Helper()
	files, err := os.ReadDir(w.site.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		wantNone(t, f.Name(), []byte(w.site.read(f.Name())), secrets)
	}
	want(t, w.site.read("audit.jsonl"), "consent.begin") // it is the record, and there is something in it
}

func (w *browserWorld) metrics(t *testing.T) []byte {
	t.Helper()
	resp, err := http.Get("http://" + w.site.ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || len(data) == 0 {
		t.Fatalf("/metrics: %d bytes, %v", len(data), err)
	}
	return data
}
