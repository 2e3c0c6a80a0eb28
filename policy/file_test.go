package policy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load writes a good policy and loads it.
func load(t *testing.T) (path string, f *policy.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, full(""))
	f, err := policy.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, f
}

func TestLoadNeedsAGoodPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if f, err := policy.Load(path); f != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v, %v, want fs.ErrNotExist", f, err)
	}
	write(t, path, "")
	if f, err := policy.Load(path); f != nil || err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("empty file: got %v, %v, want an error that names the file", f, err)
	}
}

func TestReloadKeepsTheLastGoodPolicy(t *testing.T) {
	path, f := load(t)
	good := f.Current()
	for name, spoil := range map[string]func(){
		"empty":         func() { write(t, path, "") },
		"deleted":       func() { must(t, os.Remove(path)) },
		"unknown field": func() { write(t, path, full("    admin: true\n")) },
		"no rules":      func() { write(t, path, "version: 1\nrules: []\n") },
		"too large":     func() { write(t, path, full(strings.Repeat("#", policy.MaxFileBytes))) },
		"a folder":      func() { must(t, os.RemoveAll(path)); must(t, os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			for range 2 { // it stays an error
				if changed, err := f.Reload(); changed || err == nil {
					t.Errorf("got changed %v and error %v, want an error", changed, err)
				}
			}
			if f.Current() != good || f.Err() == nil {
				t.Errorf("got revision %s and Err %v, want the last good and an error", f.Current().Revision(), f.Err())
			}
			must(t, os.RemoveAll(path))
			write(t, path, full(""))
			if changed, err := f.Reload(); changed || err != nil || f.Current() != good || f.Err() != nil {
				t.Errorf("got changed %v, error %v and Err %v after the file was mended", changed, err, f.Err())
			}
		})
	}
}

func TestReloadTakesAnotherPolicy(t *testing.T) {
	path, f := load(t)
	old := f.Current()
	write(t, path, full("# more\n"))
	if changed, err := f.Reload(); !changed || err != nil || f.Current() == old {
		t.Errorf("got changed %v and error %v, want another policy", changed, err)
	}
}

func TestWatchSeesWhatTimeAndSizeDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f := load(t)
		stamp := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		must(t, os.Chtimes(path, stamp, stamp))
		var changes, problems []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- f.Watch(ctx, time.Second,
				func(old, new *policy.Policy) { changes = append(changes, old.Revision()+">"+new.Revision()) },
				func(err error) { problems = append(problems, err.Error()) })
		}()
		step := func(text string) {
			write(t, path, text)
			must(t, os.Chtimes(path, stamp, stamp))
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		first := f.Current().Revision()
		step(strings.Replace(full(""), "scopes: [\"s\"]", "scopes: [\"r\"]", 1))
		second := f.Current().Revision()
		step("")
		step("version: 2\n")
		step(full(""))
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		want := first + ">" + second + " " + second + ">" + first
		if got := strings.Join(changes, " "); got != want || first == second {
			t.Errorf("got changes %q, want %q", got, want)
		}
		if len(problems) != 2 {
			t.Errorf("got %d problems, want each of two once: %q", len(problems), problems)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFolderSwappedByASymbolicLinkIsSeen(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"one": full(""), "two": full("# two\n")} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "policy.yaml"), text)
	}
	must(t, os.Symlink("one", filepath.Join(dir, "now")))
	f, err := policy.Load(filepath.Join(dir, "now", "policy.yaml"))
	must(t, err)
	must(t, os.Symlink("two", filepath.Join(dir, "next")))
	must(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "now")))
	if changed, err := f.Reload(); !changed || err != nil {
		t.Errorf("got changed %v and error %v, want the other policy", changed, err)
	}
}

func TestWatchWithoutFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f := load(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		write(t, path, "")
		if err := f.Watch(ctx, time.Second, nil, nil); !errors.Is(err, context.DeadlineExceeded) || f.Err() == nil {
			t.Errorf("got %v and Err %v, want the deadline and a problem", err, f.Err())
		}
	})
}

func TestReloadsAndReadersDoNotRace(t *testing.T) {
	path, f := load(t)
	r := policy.Request{Identity: "spiffe://example.org/job/a", Action: policy.TokenGet, Credential: "a", Scopes: []string{"s"}}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 20 {
				tmp := fmt.Sprintf("%s.%d", path, i)
				if err := os.WriteFile(tmp, []byte(full(fmt.Sprintf("# %d\n", k))), 0o600); err != nil {
					t.Error(err)
				}
				if err := os.Rename(tmp, path); err != nil {
					t.Error(err)
				}
				if _, err := f.Reload(); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				if !f.Current().Decide(r).Allowed {
					t.Error("denied while the policy was reloaded")
				}
			}
		})
	}
	wg.Wait()
}
