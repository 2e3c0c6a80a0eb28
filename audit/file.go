package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
)

const tailBytes = 1 << 20 // how far back OpenFile looks for the last whole line

// File is an audit log in a file. It is a sink for one [Log]: Write and Sync are called from one goroutine, that of Run.
//
// A write that the disk took only in part is cut off again, so that the file always ends with a whole line. Before each write
// File looks whether its path still names the file that it has open (device and inode); if that was deleted, renamed or
// replaced, it opens the path anew, so that records do not go where nobody looks.
//
// Symbolic links in the path are followed: whoever may place them may as well replace the file. Besides regular files only
// character devices will do; with these nothing is cut off and nothing is read.
type File struct {
	path string
	tail Tail
	cur  *handle
	next atomic.Pointer[handle] // opened by Reopen, for the next write to take over
}

// handle is an open file.
type handle struct {
	file    *os.File
	info    fs.FileInfo // when it was opened; says which file it is
	regular bool
	size    int64 // of what is whole; 0 for a device
	dirty   bool  // behind size there is part of a line that could not be cut off
}

// OpenFile opens the file at path for appending, and makes it with mode 0600 if it is not there. It refuses folders, pipes and
// sockets, and a file that its group or others may write to. An unfinished last line is ended; see [File.Tail].
func OpenFile(path string) (*File, error) {
	h, err := open(path)
	if err != nil {
		return nil, err
	}
	tail, err := h.end()
	if err != nil {
		return nil, errors.Join(err, h.file.Close())
	}
	return &File{path: path, tail: tail, cur: h}, nil
}

// Tail returns how the file ended when OpenFile found it; for Options.Tail.
func (f *File) Tail() Tail { return f.tail }

// Write appends whole lines. With an error nothing of them is in the file, or will be: what the disk took is cut off at once
// or, if that fails too, before the next write.
func (f *File) Write(lines []byte) (int, error) {
	if err := f.follow(); err != nil {
		return 0, err
	}
	h := f.cur
	if h.dirty {
		if err := h.cut(); err != nil {
			return 0, fmt.Errorf("cut off an unfinished line: %w", err)
		}
	}
	n, err := h.file.Write(lines)
	if err == nil {
		h.size += int64(n)
		return n, nil
	}
	if n > 0 && h.regular {
		h.dirty = true
		return 0, errors.Join(err, h.cut())
	}
	return n, err
}

// Sync makes durable what was written. Devices have nothing to make durable.
func (f *File) Sync() error {
	if !f.cur.regular {
		return nil
	}
	return f.cur.file.Sync()
}

// Reopen opens the path anew, as after a rotation by rename; the next write goes there. When it can't be opened, the file that
// is open stays. Any goroutine may call it, also while a write hangs.
func (f *File) Reopen() error {
	h, err := open(f.path) // its end is left to Write, which may be at work on the same file
	if err != nil {
		return err
	}
	if old := f.next.Swap(h); old != nil {
		return old.file.Close()
	}
	return nil
}

// Close closes the file, after Run returned. Closing while a write hangs may or may not end it.
func (f *File) Close() error {
	err := f.cur.file.Close()
	if h := f.next.Swap(nil); h != nil {
		err = errors.Join(err, h.file.Close())
	}
	return err
}

// follow goes over to the file that Reopen opened, or to the one that the path names by now.
func (f *File) follow() error {
	next := f.next.Swap(nil)
	info, err := os.Stat(f.path)
	if next != nil {
		if err == nil && os.SameFile(info, next.info) {
			return f.turn(next)
		}
		_ = next.file.Close() // moved away since Reopen: what came after it may already hold later lines
	}
	switch {
	case err == nil && os.SameFile(info, f.cur.info):
		if f.cur.regular && !f.cur.dirty {
			f.cur.size = info.Size() // what others put behind our lines is not ours to cut off
		}
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	h, err := open(f.path)
	if err != nil {
		return err
	}
	return f.turn(h)
}

// turn makes h the file in use. A half line in the old one is cut off if it still can be.
func (f *File) turn(h *handle) error {
	old := f.cur
	if os.SameFile(old.info, h.info) {
		h.size, h.dirty = old.size, old.dirty
	} else if _, err := h.end(); err != nil {
		return errors.Join(err, h.file.Close())
	} else if old.dirty {
		_ = old.cut() // OpenFile would end the line, so nothing is lost if not
	}
	f.cur = h
	_ = old.file.Close() // its records were synced, or nobody asked for that
	return nil
}

// cut cuts the file off behind its last whole line.
func (h *handle) cut() error {
	if err := h.file.Truncate(h.size); err != nil {
		return err
	}
	h.dirty = false
	return nil
}

// open opens a file and checks that it will do.
func open(path string) (*handle, error) {
	mode := os.O_RDWR
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		mode |= os.O_CREATE
	case err != nil:
		return nil, err
	case info.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice:
		mode = os.O_WRONLY
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("audit file %s is neither a regular file nor a character device (%s)", path, info.Mode().Type())
	}
	file, err := os.OpenFile(path, mode|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	h, err := prepare(file, mode&os.O_CREATE != 0)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return h, nil
}

// prepare checks an open file, and makes its name durable if it is new.
func prepare(file *os.File, created bool) (*handle, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	h := &handle{file: file, info: info, regular: info.Mode().IsRegular()}
	if !h.regular {
		return h, nil
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("audit file %s may be written by others (mode %04o); run: chmod 600 %s",
			file.Name(), info.Mode().Perm(), file.Name())
	}
	if created {
		if err := syncFolder(filepath.Dir(file.Name())); err != nil {
			return nil, err
		}
	}
	h.size = info.Size()
	return h, nil
}

// end reads how the file ends, and ends an unfinished line.
func (h *handle) end() (Tail, error) {
	if h.size == 0 {
		return Tail{}, nil
	}
	b := make([]byte, min(h.size, tailBytes))
	if _, err := h.file.ReadAt(b, h.size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return Tail{}, fmt.Errorf("read the end of the audit file: %w", err)
	}
	tail := Tail{Seq: lastSeq(b), Torn: b[len(b)-1] != '\n'}
	if !tail.Torn {
		return tail, nil
	}
	n, err := h.file.Write([]byte{'\n'})
	h.size += int64(n)
	if err != nil {
		return tail, fmt.Errorf("end an unfinished line: %w", err)
	}
	return tail, nil
}

// lastSeq returns the highest number among the last lines of b that have one, the unfinished one included: its number is used.
func lastSeq(b []byte) uint64 {
	for len(b) > 0 {
		start := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte{'\n'}), '\n') + 1
		rest, ok := bytes.CutPrefix(b[start:], []byte(`{"v":1,"seq":`))
		digits, _, whole := bytes.Cut(rest, []byte{','})
		if seq, err := strconv.ParseUint(string(digits), 10, 64); ok && whole && err == nil {
			return seq
		}
		b = b[:start]
	}
	return 0
}

// syncFolder makes a new name in a folder durable.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
