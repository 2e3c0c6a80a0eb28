package audit

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// unlinked reports whether an open file has no name any more: it was deleted, not renamed.
func unlinked(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().Type()&fs.ModeType == 0 && stat.Nlink == 0
}

// room returns how many bytes the file system of path has left for us.
func room(path string) (bytes uint64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil || s.Blocks == 0 {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}

// locked takes the lock of an open file, and reports whether another has it.
func locked(f *os.File) bool {
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
