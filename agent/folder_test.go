package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
)

// place makes folders of these modes one in another, and returns the innermost.
func (w *world) place(name string, modes ...os.FileMode) string {
	w.t.Helper()
	at := filepath.Join(w.dir, name)
	for _, mode := range modes {
		if err := errors.Join(os.Mkdir(at, 0o700), os.Chmod(at, mode)); err != nil {
			w.t.Fatal(err)
		}
		at = filepath.Join(at, "d")
	}
	return filepath.Dir(at)
}

func (w *world) link(to, name string) string {
	w.t.Helper()
	at := filepath.Join(w.dir, name)
	if err := os.Symlink(to, at); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func TestAWayThatOthersCouldLeadElsewhereIsRefused(t *testing.T) {
	w := start(t)
	w.stop()
	group, far := w.place("group", 0o770, 0o700), w.place("far", 0o777, 0o700, 0o700)
	inOpen := w.place("links", 0o733)
	good := w.place("good", 0o700)
	places := map[string]string{
		group: filepath.Dir(group),
		far:   filepath.Dir(filepath.Dir(far)),
		filepath.Join(w.place("made", 0o777), "not-there-yet"): filepath.Join(w.dir, "made"),
		w.link(far, "to-far"):                           filepath.Dir(filepath.Dir(far)),
		w.link(good, filepath.Join("links", "to-good")): inOpen, // whoever may write there could have it point elsewhere
		w.link("links/to-good", "twice"):                inOpen,
	}
	for folder, names := range places {
		for kind, change := range map[string]func(*agent.Config){
			"a socket":      func(c *agent.Config) { c.Socket = filepath.Join(folder, "a.sock") },
			"a bearer file": func(c *agent.Config) { c.HTTP, c.BearerFile = "127.0.0.1:0", filepath.Join(folder, "bearer") },
		} {
			if _, err := os.Stat(folder); err != nil && kind == "a bearer file" {
				continue // it makes no folder
			}
			got := w.refused(change)
			if !strings.Contains(got, names+", on the way to the agent's folder, may be written to by others") || !strings.Contains(got, "chmod go-w") {
				t.Errorf("%s in %s: got %q, want %s to be named", kind, folder, got, names)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "made", "not-there-yet")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no folder made where none is to be", err)
	}
}

func TestAWayThatBelongsToAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		return // who is not root can make no such folder
	}
	w := start(t)
	w.stop()
	inner := w.place("theirs", 0o755, 0o700)
	w.place("sticky", 0o777|os.ModeSticky)
	theirs := w.link(w.place("good", 0o700), filepath.Join("sticky", "to-good"))
	if err := errors.Join(os.Lchown(filepath.Dir(inner), 12345, -1), os.Lchown(theirs, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{inner, theirs} {
		got := w.refused(func(c *agent.Config) { c.Socket = filepath.Join(folder, "a.sock") })
		if !strings.Contains(got, "on the way to the agent's folder, belongs to another user (12345)") {
			t.Errorf("%s: got %q", folder, got)
		}
	}
}

func TestAWayThatOnlyTheAgentsUserAndRootRuleIsGood(t *testing.T) {
	w := start(t)
	w.stop()
	for _, folder := range []string{
		w.place("plain", 0o755, 0o711, 0o700),
		w.place("tmp", 0o777|os.ModeSticky, 0o700), // as /tmp is
		w.link("plain/../plain/d", "round-about"),
		filepath.Join(w.place("new", 0o777|os.ModeSticky), "made"),
	} {
		w.socket = filepath.Join(folder, "a.sock")
		w.run()
		if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
			t.Errorf("%s: got %d, want 200", folder, r.code())
		}
		w.stop()
	}
}

func TestAWayThatGoesInCirclesIsRefused(t *testing.T) {
	w := start(t)
	w.stop()
	circle := w.link("circle", "circle")
	if got := w.refused(func(c *agent.Config) { c.Socket = filepath.Join(circle, "d", "a.sock") }); !strings.Contains(got, "symbolic links on the way") {
		t.Errorf("got %q", got)
	}
}
