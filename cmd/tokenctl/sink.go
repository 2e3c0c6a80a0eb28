package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sink is a file that holds a token. Whoever reads it sees the one before or the one after, never a half one.
type sink struct {
	path string
	mode fs.FileMode
}

// newSink refuses a place where others could put a file of theirs, or read what a link of theirs leads to.
func newSink(path string, mode fs.FileMode) (*sink, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path)) // once: where it leads later is not followed
	if err != nil {
		return nil, unfit("the folder of %s: %s", path, cause(err))
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, unfit("the folder of %s: %s", path, cause(err))
	case info.Mode().Perm()&0o022 != 0:
		return nil, unfit("others may write into the folder of %s: chmod go-w, or take another one", path)
	case !mine(info):
		return nil, unfit("the folder of %s is neither yours nor root's", path)
	}
	s := &sink{path: filepath.Join(dir, filepath.Base(path)), mode: mode}
	return s, s.target()
}

func unfit(format string, args ...any) error {
	return &failure{exit: exitFix, what: fmt.Sprintf(format, args...), action: "name a file in a folder that you alone may write to"}
}

// target refuses what is there and is no plain file.
func (s *sink) target() error {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return unfit("%s: %s", s.path, cause(err))
	case info.Mode()&fs.ModeSymlink != 0:
		return unfit("%s is a symbolic link", s.path)
	case !info.Mode().IsRegular():
		return unfit("%s is no plain file", s.path)
	}
	return nil
}

// write puts a text into the file, and says whether that changed it.
func (s *sink) write(text []byte) (changed bool, err error) {
	if err := s.target(); err != nil {
		return false, err
	}
	if s.holds(text) {
		return false, nil
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), "."+filepath.Base(s.path)+".*") // 0600
	if err != nil {
		return false, fmt.Errorf("write %s: %w", s.path, err)
	}
	defer os.Remove(f.Name()) // gone by then, unless something failed
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(s.mode), f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("write %s: %w", s.path, err)
	}
	if err := os.Rename(f.Name(), s.path); err != nil {
		return false, fmt.Errorf("write %s: %w", s.path, err)
	}
	return true, syncFolder(filepath.Dir(s.path))
}

// holds reports whether the file is as it is to be already.
func (s *sink) holds(text []byte) bool {
	info, err := os.Lstat(s.path)
	if err != nil || info.Mode() != s.mode || info.Size() != int64(len(text)) {
		return false
	}
	data, err := os.ReadFile(s.path)
	return err == nil && bytes.Equal(data, text)
}
