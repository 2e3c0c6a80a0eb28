package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Trail reads a trail back while it is written: the file at Path and the rotated ones beside it; see [Files]. It opens files anew and
// never touches those of the writer. Any number of goroutines may use it.
type Trail struct {
	Path    string     // of the file that is written
	Log     *Log       // its writer, which wakes Follow; nil = another process writes, and Follow looks each second
	Skipped func(Skip) // is told of what could not be read; nil = nobody is
}

// Skip is something in a trail that could not be read.
type Skip struct {
	Path   string
	Offset int64 // where it begins; 0 also for the whole file
	Err    error
}

// segments returns the files of the trail that is written now, oldest first. Files of another trail are left out.
func (t *Trail) segments() ([]segment, error) {
	all, err := segmentsOf(t.Path)
	if err != nil {
		return nil, fmt.Errorf("look for the files of the audit trail: %w", err)
	}
	trail := ""
	for _, s := range all {
		if s.path == t.Path || trail == "" {
			trail = s.trail
		}
	}
	kept := all[:0]
	for _, s := range all {
		if s.trail == trail || s.trail == "" { // version 1 had no trails
			kept = append(kept, s)
			continue
		}
		t.skip(s.path, 0, errors.New("it is of another trail"))
	}
	return kept, nil
}

// skip tells of what could not be read.
func (t *Trail) skip(path string, at int64, err error) {
	if t.Skipped != nil {
		t.Skipped(Skip{path, at, err})
	}
}

// entry reads a line. ok is false if it is no record.
func (t *Trail) entry(path string, line rawLine) (e Entry, ok bool) {
	err := errors.New("a line is too long")
	switch {
	case !line.ended:
		return Entry{}, false // it is being written
	case line.text != nil:
		e, err = ParseEntry(line.text)
	}
	if err != nil {
		t.skip(path, line.at, err)
	}
	return e, err == nil
}

// Follow visits each entry with a number above after, first those that are there, then each new one as it is written, until ctx ends or
// visit returns an error; it returns that error, or the cause of ctx's end. It follows a rotation. It does not hold up the writer: whoever
// visits slowly reads later.
func (t *Trail) Follow(ctx context.Context, after uint64, visit func(Entry) error) error {
	wake, stop := t.subscribe()
	defer stop()
	look := time.NewTicker(time.Second) // for what another process wrote, and for a rotation that nobody told of
	defer look.Stop()
	f := follower{trail: t, next: after + 1, visit: visit}
	defer f.close()
	for {
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wake:
		case <-look.C:
		}
	}
}

// subscribe is Log.Subscribe, if there is a log.
func (t *Trail) subscribe() (<-chan struct{}, func()) {
	if t.Log == nil {
		return nil, func() {}
	}
	return t.Log.Subscribe()
}

// follower is one Follow.
type follower struct {
	trail *Trail
	next  uint64 // lowest number that was not visited
	visit func(Entry) error

	file   *os.File // that it reads; nil before the first
	reader *lineReader
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file, f.reader = nil, nil
}

// catchUp reads all that there is by now.
func (f *follower) catchUp(ctx context.Context) error {
	for {
		current := f.reads(f.trail.Path) // looked at first: what is written to a file before it is moved away is in it by then
		if err := f.drain(ctx); err != nil || current {
			return err
		}
		if more, err := f.turn(); err != nil || !more {
			return err
		}
	}
}

// drain visits the rest of the file.
func (f *follower) drain(ctx context.Context) error {
	for f.reader != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line, err := f.reader.next()
		if errors.Is(err, io.EOF) || err == nil && !line.ended {
			return nil
		}
		if err != nil {
			return err
		}
		e, ok := f.trail.entry(f.file.Name(), line)
		if !ok || e.Seq < f.next {
			continue
		}
		f.next = e.Seq + 1
		if err := f.visit(e); err != nil {
			return err
		}
	}
	return nil
}

// turn goes over to the file that holds the next entry, or will hold it. It reports false if there is none but the one it reads.
func (f *follower) turn() (bool, error) {
	next, found, err := f.successor()
	if err == nil && found && next.first > f.next { // the one between may have got its new name while the folder was listed, and is in a list that begins now
		next, found, err = f.successor()
	}
	if err != nil || !found {
		return false, err
	}
	file, err := next.open()
	if errors.Is(err, fs.ErrNotExist) { // moved just now
		return true, nil
	}
	if err != nil {
		return false, err
	}
	start, err := seekSeq(file, f.next)
	if err != nil {
		return false, errors.Join(err, file.Close())
	}
	f.close()
	f.file, f.reader = file, newLineReader(file, start)
	return true, nil
}

// successor is the file to read next.
func (f *follower) successor() (segment, bool, error) {
	segments, err := f.trail.segments()
	if err != nil {
		return segment{}, false, err
	}
	at := 0
	for i, s := range segments {
		if s.first <= f.next || i > 0 && f.reads(segments[i-1].path) { // it read that one to its end, and what is missing is missing
			at = i
		}
	}
	if at == len(segments) || f.reads(segments[at].path) {
		return segment{}, false, nil
	}
	return segments[at], true, nil
}

// reads reports whether it reads the file at path already.
func (f *follower) reads(path string) bool {
	if f.file == nil {
		return false
	}
	is, err1 := os.Stat(path)
	was, err2 := f.file.Stat()
	return err1 == nil && err2 == nil && os.SameFile(is, was)
}
