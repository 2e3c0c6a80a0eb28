package dev

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// named is a file of an operator's: the config, or one that it names. It need not be there.
type named struct{ what, path string }

// named are the files that dev must keep away from.
func (c Config) named() []named {
	if c.Own == nil {
		return nil
	}
	o := c.Own
	all := []named{{"the config file", c.OwnFile}, {"policy_file", o.PolicyFile}, {"kek_file", o.KEKFile}, {"store.file", o.StorePath},
		{"audit.file", o.AuditFile}, {"audit.checkpoint_file", o.Checkpoints.File}, {"audit.checkpoint_key_file", o.Checkpoints.KeyFile},
		{"tls.cert_file", o.TLS.Cert}, {"tls.key_file", o.TLS.Key}, {"tls.client_ca_file", o.TLS.CA}}
	for _, name := range slices.Sorted(maps.Keys(o.Providers)) {
		all = append(all, named{"providers." + name + ".ca_file", o.Providers[name].CAFile})
	}
	return all
}

// apart refuses a folder in which one of the files lies.
func apart(dir string, files []named) error {
	var errs []error
	for _, n := range files {
		if n.path == "" {
			continue
		}
		path, err := filepath.Abs(n.path)
		if err == nil && within(resolve(dir), path) {
			err = fmt.Errorf("--dir %s: %s, %s, lies there, where dev removes and writes files: give it another folder", dir, n.what, path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// within reports whether a path lies in a folder: as it is written, or where a symlink on the way leads.
func within(dir, path string) bool {
	for at := path; ; at = filepath.Dir(at) {
		if real := resolve(at); real == dir || strings.HasPrefix(real, dir+string(filepath.Separator)) || same(real, dir) {
			return true
		}
		if at == filepath.Dir(at) {
			return false
		}
	}
}

// resolve follows the symlinks of a path, as far as there is something.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(resolve(parent), filepath.Base(path))
	}
	return path
}

// same reports whether two names are of one file, as where case does not count.
func same(a, b string) bool {
	first, err := os.Stat(a)
	second, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(first, second)
}
