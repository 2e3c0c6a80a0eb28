package dev_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/provider"
)

// tree is all that is under a folder, with modes and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var data []byte
		if info.Mode().IsRegular() {
			data, err = os.ReadFile(path)
		}
		all[path] = info.Mode().String() + "\n" + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refused runs dev, which is to refuse with all the words and to leave everything under the folders as it is.
func refused(t *testing.T, c dev.Config, words []string, under ...string) {
	t.Helper()
	var before []map[string]string
	for _, dir := range under {
		before = append(before, tree(t, dir))
	}
	c.Out = writerFunc(func([]byte) (int, error) { return 0, errors.New("dev is not refused, and runs") })
	err := dev.Run(t.Context(), c)
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("--dir %s: got %v, want %q in it", c.Dir, err, w)
		}
	}
	for i, dir := range under {
		if after := tree(t, dir); !maps.Equal(before[i], after) {
			t.Errorf("--dir %s: got files %q under %s, want them as they were: %q", c.Dir, slices.Sorted(maps.Keys(after)), dir, slices.Sorted(maps.Keys(before[i])))
		}
	}
}

// used is a folder that a run of dev left.
func used(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() + "/its"
	r := start(t, dev.Config{Dir: dir}, false)
	r.await(t, "\nready\n")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// room is an empty folder of one's own.
func room(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return dir
}

func TestAFolderOfSomebodyElseIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := room(t)
	for _, name := range []string{"audit.jsonl", "b", "c", "d", "e", "f"} {
		put(t, dir+"/"+name)
	}
	refused(t, dev.Config{Dir: dir}, []string{"there are files that dev did not make", "(audit.jsonl, b, c, d, e, …)"}, dir)
}

func TestAFolderInvitesNobodyToServeFromIt(t *testing.T) {
	t.Parallel()
	dir := used(t)
	for _, name := range []string{"tokenbroker.yaml", "tokenbroker.db", "audit.jsonl", "kek.key", "policy.yaml"} {
		gone(t, dir+"/"+name)
	}
}

func TestAFolderThatABrokerIsServedFromIsNotTouched(t *testing.T) {
	t.Parallel()
	dir, s := used(t), newSite(t, ownPolicy)
	for _, name := range []string{"tokenbroker.db", "tokenbroker.yaml", "audit.jsonl", "kek.key", "policy.yaml", "broker.yaml"} {
		put(t, dir+"/"+name)
		for _, own := range []*daemon.Config{nil, &s.cfg} {
			refused(t, dev.Config{Dir: dir, Own: own}, []string{dir, "there are files that dev did not make", "(" + name + ")"}, dir)
		}
		if err := os.Remove(dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMarkerThatIsNoFileMakesNoFolderOnesOwn(t *testing.T) {
	t.Parallel()
	dir := room(t)
	if err := os.Symlink("/dev/null", dir+"/.tokenbrokerd-dev"); err != nil {
		t.Fatal(err)
	}
	refused(t, dev.Config{Dir: dir}, []string{"there are files that dev did not make"}, dir)
}

func TestAFolderWithAFileOfTheConfigIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := used(t)
	for what, name := range map[string]func(*dev.Config) *string{
		"the config file":    func(c *dev.Config) *string { return &c.OwnFile },
		"policy_file":        func(c *dev.Config) *string { return &c.Own.PolicyFile },
		"kek_file":           func(c *dev.Config) *string { return &c.Own.KEKFile },
		"store.file":         func(c *dev.Config) *string { return &c.Own.StorePath },
		"audit.file":         func(c *dev.Config) *string { return &c.Own.AuditFile },
		"tls.cert_file":      func(c *dev.Config) *string { return &c.Own.TLS.Cert },
		"tls.key_file":       func(c *dev.Config) *string { return &c.Own.TLS.Key },
		"tls.client_ca_file": func(c *dev.Config) *string { return &c.Own.TLS.CA },
	} {
		s := newSite(t, ownPolicy)
		c := dev.Config{Dir: dir, Own: &s.cfg}
		*name(&c) = dir + "/dev-policy.yaml" // the one that can be read as a policy
		refused(t, c, []string{what + ", " + dir + "/dev-policy.yaml, lies there", "give it another folder"}, dir)
	}
	s := newSite(t, ownPolicy)
	s.cfg.Providers["acme.eu"] = provider.Profile{TokenEndpoint: "https://a.example/t", CAFile: dir + "/ca.pem"}
	refused(t, dev.Config{Dir: dir, Own: &s.cfg}, []string{"providers.acme.eu.ca_file, " + dir + "/ca.pem"}, dir)
}

func TestAFileOfTheConfigIsFoundWhateverLeadsToIt(t *testing.T) {
	t.Parallel()
	dir, out := room(t), room(t)
	for _, link := range [][2]string{{dir, out + "/link"}, {dir + "/db", out + "/to-file"}, {out + "/db", dir + "/from"}, {out, dir + "/folder"}} {
		if err := os.Symlink(link[0], link[1]); err != nil {
			t.Fatal(err)
		}
	}
	put(t, dir+"/db")
	put(t, out+"/db")
	for _, path := range []string{dir + "/db", dir + "/not-yet", dir + "/sub/not-yet", dir + "/x/../db", out + "/link/db", out + "/link/not-yet",
		out + "/to-file", dir + "/from", dir + "/folder/db", dir} {
		s := newSite(t, ownPolicy)
		s.cfg.StorePath = path
		for _, d := range []string{dir, out + "/link", dir + "/"} {
			refused(t, dev.Config{Dir: d, Own: &s.cfg}, []string{"store.file, ", "lies there"}, dir, out)
		}
	}
	s := newSite(t, ownPolicy)
	s.cfg.AuditFile = out + "/new/audit.jsonl"
	refused(t, dev.Config{Dir: out + "/new", Own: &s.cfg}, []string{"audit.file, ", "lies there"}, out)
	s.cfg.AuditFile = out + "/new-one/audit.jsonl" // beside it
	refused(t, dev.Config{Dir: out + "/new", Own: &s.cfg}, []string{"dev is not refused"})
}

func TestAFolderThatOthersCanWriteToIsNotTouched(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o720, 0o702, 0o777} {
		dir := room(t)
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		refused(t, dev.Config{Dir: dir}, []string{dir, "its group or others may write to it", "chmod go-w"}, dir)
	}
}

func TestAFolderOfAnotherUserIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := room(t)
	if os.Geteuid() != 0 {
		dir = "/" // which is root's
	} else if err := os.Chown(dir, 1, -1); err != nil {
		t.Fatal(err)
	}
	refused(t, dev.Config{Dir: dir}, []string{dir, "it belongs to user ", "give it a folder of your own"})
	if all, err := os.ReadDir(dir); dir != "/" && (err != nil || len(all) > 0) {
		t.Errorf("got %v, %v, want nothing there", all, err)
	}
}

func TestSymlinksAreReplacedAndNotFollowed(t *testing.T) {
	t.Parallel()
	dir, out := used(t), room(t)
	for _, name := range []string{"env", "worker.env", "dev.db", "dev-audit.jsonl", "identities", "sandbox"} {
		put(t, out+"/"+name)
		if err := os.RemoveAll(dir + "/" + name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(out+"/"+name, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	before, s := tree(t, out), newSite(t, ownPolicy)
	for _, own := range []*daemon.Config{nil, &s.cfg} {
		r := start(t, dev.Config{Dir: dir, Own: own}, false)
		r.await(t, "\nready\n")
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if info, err := os.Lstat(dir + "/env"); err != nil || info.Mode() != 0o600 {
			t.Errorf("env: got %v, %v, want a file of mode 0600", info, err)
		}
	}
	if after := tree(t, out); !maps.Equal(before, after) {
		t.Errorf("got %q, want what the links lead to as it was", after)
	}
}

func TestAFolderIsForOneRunAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, dev.Config{Dir: dir}, false)
	r.await(t, "\nready\n")
	before, _ := os.ReadFile(dir + "/env")
	err := dev.Run(t.Context(), dev.Config{Dir: dir, Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "another dev runs there") {
		t.Errorf("got %v, want to be told that another one runs there", err)
	}
	if after, err := os.ReadFile(dir + "/env"); err != nil || !bytes.Equal(after, before) {
		t.Errorf("env was %q, is %q, %v", before, after, err)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}
