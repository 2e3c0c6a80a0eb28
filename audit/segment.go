package audit

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const maxLine = 1 << 20 // bytes of the longest line that is read; a longer one is no record

// rotated is what a rotation may add to a name: digits, as in .1, -20261128 or -2026-11-28T12:00:00Z.
var rotated = regexp.MustCompile(`^[.-][0-9][0-9TZ:._-]*$`)

// segment is one file of a trail.
type segment struct {
	path  string
	trail string // of its first record
	first uint64 // number of its first record
}

// Files returns the files of the trail that is written at path, oldest first: path itself and those beside it that a rotation by rename
// left, by the number of their first record. For audit.jsonl these are audit.jsonl.1, audit.jsonl-20261128 and audit-20261128.jsonl, or
// with any other digits; compressed ones are left out.
func Files(path string) ([]string, error) {
	segments, err := segmentsOf(path)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range segments {
		all = append(all, s.path)
	}
	return all, nil
}

// segmentsOf returns the files at and beside path that have a record, oldest first.
func segmentsOf(path string) ([]segment, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, e := range entries {
		if e.IsDir() || !belongs(filepath.Base(path), e.Name()) {
			continue
		}
		s, err := segmentAt(filepath.Join(filepath.Dir(path), e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && s.first == 0: // renamed just now, or nothing in it
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.trail, b.trail), cmp.Compare(a.path, b.path))
	})
	return all, nil
}

// belongs reports whether name is base, or what a rotation makes of it.
func belongs(base, name string) bool {
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	if rest, ok := strings.CutPrefix(name, base); ok {
		return rest == "" || rotated.MatchString(rest)
	}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(name, ext), stem)
	return ok && ext != "" && strings.HasSuffix(name, ext) && rotated.MatchString(rest)
}

// segmentAt reads the first record of a file.
func segmentAt(path string) (segment, error) {
	f, err := openSegment(path)
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	trail, first, err := firstOf(f)
	return segment{path, trail, first}, err
}

// firstOf reads trail and number of the first record; 0 if there is none.
func firstOf(f *os.File) (trail string, seq uint64, err error) {
	for r := newLineReader(f, 0); ; {
		line, err := r.next()
		if errors.Is(err, io.EOF) || err == nil && !line.ended {
			return "", 0, nil
		}
		if err != nil {
			return "", 0, err
		}
		if trail, seq, ok := parseHead(line.text); ok {
			return trail, seq, nil
		}
	}
}

// open opens the file of a segment for reading. It is fs.ErrNotExist if another file has its name by now.
func (s segment) open() (*os.File, error) {
	f, err := openSegment(s.path)
	if err != nil {
		return nil, err
	}
	trail, first, err := firstOf(f)
	if err == nil && (trail != s.trail || first != s.first) {
		err = &fs.PathError{Op: "open", Path: s.path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openSegment opens a file for reading. A pipe, which would hang, reads as a file that is not there.
func openSegment(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return os.Open(path)
}

// rawLine is a line as a file has it.
type rawLine struct {
	text  []byte // without its line feed; good until the next one is read; nil if it is too long
	at    int64  // where it begins
	ended bool   // it has a line feed
}

// lineReader reads lines forward.
type lineReader struct {
	r   io.ReaderAt
	buf []byte
	at  int64 // where buf begins in the file
}

func newLineReader(r io.ReaderAt, at int64) *lineReader { return &lineReader{r: r, at: at} }

// next returns the next line, and io.EOF behind the last one. An unfinished line is returned and stays to be read again.
func (r *lineReader) next() (rawLine, error) {
	long, from := false, r.at
	for scanned := 0; ; {
		if i := bytes.IndexByte(r.buf[scanned:], '\n'); i >= 0 {
			l := rawLine{r.buf[:scanned+i], from, true}
			r.at += int64(scanned + i + 1)
			r.buf = r.buf[scanned+i+1:]
			if long {
				l.text = nil
			}
			return l, nil
		}
		if scanned = len(r.buf); scanned > maxLine {
			long = true
			r.at += int64(scanned)
			r.buf, scanned = r.buf[:0], 0
		}
		if n, err := r.more(); n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return r.rest(long, from)
			}
			return rawLine{}, err
		}
	}
}

// rest is what is behind the last line feed.
func (r *lineReader) rest(long bool, from int64) (rawLine, error) {
	text := r.buf
	if long {
		text = nil
	}
	unread := r.at + int64(len(r.buf)) - from
	r.at, r.buf = from, nil
	if unread == 0 {
		return rawLine{}, io.EOF
	}
	return rawLine{text, from, false}, nil
}

// more reads a block behind what is in the buffer.
func (r *lineReader) more() (int, error) {
	const block = 64 << 10
	buf := make([]byte, len(r.buf), len(r.buf)+block)
	copy(buf, r.buf)
	n, err := r.r.ReadAt(buf[len(buf):cap(buf)], r.at+int64(len(buf)))
	r.buf = buf[:len(buf)+n]
	return n, err
}
