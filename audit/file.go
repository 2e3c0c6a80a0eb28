package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	tailBytes = 1 << 20  // how far back OpenFile looks for the last whole line
	leastRoom = 64 << 10 // bytes that have to be free on the disk, or it is full
)

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
	gone bool                   // a file that had records was deleted, or cut off in place
	held bool                   // it is locked, as far as that can be done
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
// sockets, and a file that its group or others may write to. An unfinished last line is ended; see [File.Tail]. An empty file goes on with
// the trail of the newest one that a rotation left beside it.
func OpenFile(path string) (*File, error) {
	h, err := open(path)
	if err != nil {
		return nil, err
	}
	tail, err := h.end()
	if err == nil && tail == (Tail{}) && h.regular {
		tail, err = inherit(path)
	}
	if err != nil {
		return nil, errors.Join(err, h.file.Close())
	}
	return &File{path: path, tail: tail, cur: h}, nil
}

// Lock keeps other processes that call it from the file, until Close and also over rotations: two logs on one file mix their lines for
// good. It is an error when another has the lock. Devices, and file systems that know no locks, have none. Call it before the first Write.
func (f *File) Lock() error {
	f.held = true
	if f.cur.regular && locked(f.cur.file) {
		return fmt.Errorf("audit file %s is in use by another broker or agent", f.path)
	}
	return nil
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

// Look looks whether a write could succeed now: it opens the path anew if it names another file or none by now, and it is an error when
// the disk is full. It is called from the goroutine of Write, while nothing is written.
func (f *File) Look() error {
	if err := f.follow(); err != nil {
		return err
	}
	if left, known := room(f.path); known && f.cur.regular && left < leastRoom {
		return fmt.Errorf("the disk of the audit file is full: %d bytes are left", left)
	}
	return nil
}

// Deleted reports, once for each time, that the file was deleted or cut off while it was written, with what was in it. It is called from the
// goroutine of Write.
func (f *File) Deleted() bool {
	was := f.gone
	f.gone = false
	return was
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
			if err := f.turn(next); err != nil {
				return err
			}
			return f.resized(info.Size())
		}
		_ = next.file.Close() // moved away since Reopen: what came after it may already hold later lines
	}
	switch {
	case err == nil && os.SameFile(info, f.cur.info):
		return f.resized(info.Size())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	h, err := open(f.path)
	if err != nil {
		return err
	}
	return f.turn(h)
}

// resized takes over the size that others gave to the file in use. What they put behind our lines is not ours to cut off; what they cut
// off is gone as if the file had been deleted.
func (f *File) resized(size int64) error {
	h := f.cur
	if !h.regular {
		return nil
	}
	if size >= h.size {
		if !h.dirty {
			h.size = size
		}
		return nil
	}
	had := h.size
	h.size = size
	if _, err := h.end(); err != nil {
		h.size = had // to be tried again
		return err
	}
	h.dirty, f.gone = false, true
	return nil
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
	f.gone = f.gone || old.size > 0 && unlinked(old.file)
	f.cur = h
	_ = old.file.Close() // its records were synced, or nobody asked for that
	if f.held && h.regular {
		_ = locked(h.file) // if another has it by now, to go on is better than to stop: no line breaks
	}
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
		return nil, checkDevice(path, info)
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

// checkDevice refuses what is no character device.
func checkDevice(path string, info fs.FileInfo) error {
	if info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
		return fmt.Errorf("audit file %s is neither a regular file nor a character device (%s)", path, info.Mode().Type())
	}
	return nil
}

// prepare checks an open file, and makes its name durable if it is new.
func prepare(file *os.File, created bool) (*handle, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	h := &handle{file: file, info: info, regular: info.Mode().IsRegular()}
	if !h.regular {
		return h, checkDevice(file.Name(), info)
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
	tail, err := readTail(h.file, h.size)
	if err != nil || !tail.Torn {
		return tail, err
	}
	n, err := h.file.Write([]byte{'\n'})
	h.size += int64(n)
	if err != nil {
		return tail, fmt.Errorf("end an unfinished line: %w", err)
	}
	return tail, nil
}

// inherit reads how the trail ended that a rotation left beside path.
func inherit(path string) (Tail, error) {
	segments, err := segmentsOf(path)
	if err != nil || len(segments) == 0 {
		return Tail{}, err
	}
	newest, when := "", time.Time{} // by time: numbers of two trails say nothing about each other
	for _, s := range segments {
		if info, err := os.Stat(s.path); err == nil && !info.ModTime().Before(when) {
			newest, when = s.path, info.ModTime()
		}
	}
	f, err := openSegment(newest)
	if err != nil {
		return Tail{}, fmt.Errorf("read the audit file that was rotated away: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Tail{}, err
	}
	return readTail(f, info.Size())
}

// readTail reads how a file of that size ends.
func readTail(f *os.File, size int64) (Tail, error) {
	b := make([]byte, min(size, tailBytes))
	if _, err := f.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return Tail{}, fmt.Errorf("read the end of the audit file: %w", err)
	}
	return tailOf(b), nil
}

// tailOf reads the last lines of b. The number of an unfinished line is used up, if it is there.
func tailOf(b []byte) Tail {
	end := bytes.LastIndexByte(b, '\n') + 1
	_, cut, _ := parseHead(b[end:])
	tail := Tail{Seq: cut, Torn: end < len(b)}
	if tail.Torn {
		tail.Half = unfinished(b[end:])
	}
	for b = b[:end]; len(b) > 0; {
		start := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
		line := b[start : len(b)-1]
		if l, hash, ok := parseLink(line); ok {
			tail.Trail, tail.Head, tail.Seq = l.trail, hash, max(l.seq, tail.Seq)
			return tail
		}
		trail, seq, _ := parseHead(line)
		if tail.Seq = max(tail.Seq, seq); seq > 0 && trail == "" { // of version 1: a chain begins behind it
			return tail
		}
		b = b[:start]
	}
	return tail
}

// syncFolder makes a new name in a folder durable.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
