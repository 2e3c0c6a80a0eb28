package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// Files of a folder. A broker that is served has none of these names unless somebody chose them for it.
const (
	marker     = ".tokenbrokerd-dev" // by which dev knows a folder for its own
	prefix     = "dev-"
	storeFile  = "dev.db"
	auditFile  = prefix + "audit.jsonl"
	kekFile    = prefix + starter.KEK
	policyFile = prefix + "policy.yaml"
)

const listed = 5 // names of files that an error gives

// folder is where the files of a run lie.
type folder struct {
	starter.Folder
	temporary bool
	held      *os.File // the marker, locked: nobody else runs here
}

// openFolder makes a folder, or takes one that an earlier run left. It takes no other, and none in which a file of an operator's lies:
// what is in the way of a run is removed. Nothing is written before that is certain.
func openFolder(dir string, theirs []named) (folder, error) {
	f := folder{Folder: starter.Folder{Dir: dir, TrustDomain: "tokenbroker.local", Prefix: prefix}, temporary: dir == ""}
	var err error
	if f.temporary {
		if f.Dir, err = os.MkdirTemp("", "tokenbroker-dev-"); err != nil {
			return f, err
		}
	}
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return f, err
	}
	if err := f.take(theirs); err != nil {
		f.leave()
		return f, err
	}
	return f, nil
}

// take refuses a folder that dev has to keep away from, and marks any other as its own.
func (f *folder) take(theirs []named) error {
	if err := apart(f.Dir, theirs); err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	if err := f.private(); err != nil {
		return err
	}
	if err := f.allOurs(); err != nil {
		return err
	}
	if !f.marked() {
		if err := mtls.WriteNew(f.Path(marker), []byte("Files of \"tokenbrokerd dev\", for nothing but trying things out.\n"), 0o600); err != nil {
			return err
		}
	}
	return f.hold()
}

// hold keeps others out of the folder until it is left.
func (f *folder) hold() (err error) {
	if f.held, err = os.OpenFile(f.Path(marker), os.O_RDWR|syscall.O_NOFOLLOW, 0); err != nil {
		return err
	}
	if err := syscall.Flock(int(f.held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("--dir %s: another dev runs there: end it, or give this one a folder of its own", f.Dir)
	}
	return nil
}

// private refuses a folder that somebody else can put files into: keys are written there, and files that are found there are believed.
func (f folder) private() error {
	info, err := os.Stat(f.Dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("--dir %s: it belongs to user %d, and dev runs as user %d: give it a folder of your own", f.Dir, st.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("--dir %s: its group or others may write to it (mode %04o): give it a new folder, or chmod go-w this one", f.Dir, info.Mode().Perm())
	}
	return nil
}

// allOurs refuses a folder with anything that dev did not make: a broker may be served from it.
func (f folder) allOurs() error {
	there, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	if f.marked() {
		for _, name := range append(pkiNames(), marker, storeFile, auditFile) {
			ours[name] = true
		}
	}
	var others []string
	for _, e := range there {
		if !ours[e.Name()] {
			others = append(others, e.Name())
		}
	}
	if len(others) > 0 {
		if len(others) > listed {
			others = append(others[:listed], "…")
		}
		return fmt.Errorf("--dir %s: there are files that dev did not make: give it a new or an empty folder (%s)", f.Dir, strings.Join(others, ", "))
	}
	return nil
}

func (f folder) marked() bool {
	info, err := os.Lstat(f.Path(marker))
	return err == nil && info.Mode().IsRegular()
}

// leave lets others have the folder. A temporary one is taken away.
func (f folder) leave() {
	_ = f.held.Close() // of nothing, if it was not held
	if f.temporary {
		_ = os.RemoveAll(f.Dir)
	}
}

// clear removes what an earlier run left under these names.
func (f folder) clear(names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, os.RemoveAll(f.Path(name)))
	}
	return errors.Join(errs...)
}

func (f folder) has(name string) bool {
	_, err := os.Stat(f.Path(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// writeSecret writes a file for its owner alone. What was there may have been open to others.
func (f folder) writeSecret(name, text string) error {
	if err := f.clear(name); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path(name)), 0o700); err != nil {
		return err
	}
	return mtls.WriteNew(f.Path(name), []byte(text), 0o600)
}

// loopback refuses an address that others can reach: what listens there hands out tokens to try things with.
func loopback(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--listen %s: give host:port", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen %s: dev is for this machine alone: give a loopback address, e.g. 127.0.0.1:0", addr)
	}
	return nil
}
