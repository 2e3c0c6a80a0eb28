package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
)

// marker is the file by which dev knows a folder for its own.
const marker = ".tokenbrokerd-dev"

// folder is where the files of a run lie.
type folder struct {
	starter.Folder
	temporary bool
}

// openFolder makes a folder, or takes one that an earlier run left. It takes no other: it would write into an operator's files.
func openFolder(dir string) (folder, error) {
	f := folder{Folder: starter.Folder{Dir: dir, TrustDomain: "tokenbroker.local"}, temporary: dir == ""}
	var err error
	if f.temporary {
		if f.Dir, err = os.MkdirTemp("", "tokenbroker-dev-"); err != nil {
			return f, err
		}
	}
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return f, err
	}
	if err := f.claim(); err != nil {
		f.remove()
		return f, err
	}
	return f, nil
}

// claim puts the marker there.
func (f folder) claim() error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(f.Path(marker)); err == nil {
		return nil
	}
	there, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("--dir %s: there are files that dev did not make: give it a new or an empty folder", f.Dir)
	}
	return os.WriteFile(f.Path(marker), []byte("Files of \"tokenbrokerd dev\", for nothing but trying things out.\n"), 0o600)
}

// remove takes a temporary folder away.
func (f folder) remove() {
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
	return os.WriteFile(f.Path(name), []byte(text), 0o600)
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
