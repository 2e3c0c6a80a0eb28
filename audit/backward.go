package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// backReader reads lines from the end of a file towards its beginning, a block at a time.
type backReader struct {
	r   io.ReaderAt
	buf []byte // what is read and not given out yet; it begins at offset at
	at  int64
}

// newBackReader reads the lines that end before end, which is the beginning of a line or the end of the file.
func newBackReader(r io.ReaderAt, end int64) *backReader { return &backReader{r: r, at: end} }

// next returns the line before, and io.EOF before the first one.
func (r *backReader) next() (rawLine, error) {
	long, ended := false, false
	for {
		ended = ended || bytes.HasSuffix(r.buf, []byte{'\n'})
		body := bytes.TrimSuffix(r.buf, []byte{'\n'})
		start := bytes.LastIndexByte(body, '\n') + 1
		if start > 0 || r.at == 0 && (len(r.buf) > 0 || long) {
			l := rawLine{body[start:], r.at + int64(start), ended}
			if r.buf = r.buf[:start]; long || len(l.text) > maxLine {
				l.text = nil
			}
			return l, nil
		}
		if r.at == 0 {
			return rawLine{}, io.EOF
		}
		if len(r.buf) > maxLine { // give up on it, but find where it begins
			long, r.buf = true, r.buf[:0]
		}
		if err := r.more(); err != nil {
			return rawLine{}, err
		}
	}
}

// more reads the block before what is in the buffer.
func (r *backReader) more() error {
	n := min(r.at, 64<<10)
	buf := make([]byte, n, int(n)+len(r.buf))
	if _, err := r.r.ReadAt(buf, r.at-n); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.buf, r.at = append(buf, r.buf...), r.at-n
	return nil
}

// Backward visits the entries with a number below before, newest first, until visit returns false or there are no more; before 0 starts
// at the newest. It reads the rotated files too. Memory does not grow with the trail. ctx ends it between two entries.
func (t *Trail) Backward(ctx context.Context, before uint64, visit func(Entry) (more bool)) error {
	const tries = 100 // a rotation renames files while they are read; the list is made anew then
	for n := 1; ; n++ {
		segments, err := t.segments()
		if err != nil {
			return err
		}
		err = t.backwardIn(ctx, segments, &before, visit)
		if n == tries || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// backwardIn visits the entries of some files, and lowers before to the last that it visited.
func (t *Trail) backwardIn(ctx context.Context, segments []segment, before *uint64, visit func(Entry) bool) error {
	for _, s := range slices.Backward(segments) {
		if *before > 0 && s.first >= *before {
			continue
		}
		if more, err := t.backward(ctx, s, before, visit); !more || err != nil {
			return err
		}
	}
	return nil
}

// backward visits the entries of one file.
func (t *Trail) backward(ctx context.Context, s segment, before *uint64, visit func(Entry) bool) (bool, error) {
	f, err := s.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	end, err := seekSeq(f, *before)
	if err != nil {
		return false, err
	}
	for r := newBackReader(f, end); ; {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		e, ok := t.entry(s.path, line)
		if !ok || *before > 0 && e.Seq >= *before {
			continue
		}
		if *before = e.Seq; !visit(e) {
			return false, nil
		}
	}
}

// seekSeq finds where the lines with a number of at least seq begin; of 0 it is the end of the file. Numbers rise within a file.
func seekSeq(f *os.File, seq uint64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	if seq == 0 {
		return info.Size(), nil
	}
	low, high := int64(0), info.Size() // a line that begins below low has a lower number, and one at high a higher one or none
	for high-low > 64<<10 {
		mid := low + (high-low)/2
		at, found, err := seqBehind(f, mid, high)
		if err != nil {
			return 0, err
		}
		if found > 0 && found < seq {
			low = at
		} else {
			high = mid // what begins at or behind it is too high, or nothing does
		}
	}
	return seekFrom(f, low, seq)
}

// seekFrom looks at one line after the other.
func seekFrom(f *os.File, low int64, seq uint64) (int64, error) {
	for r := newLineReader(f, low); ; {
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			return r.at, nil
		}
		if err != nil {
			return 0, err
		}
		if _, n, ok := parseHead(line.text); ok && n >= seq || !line.ended {
			return line.at, nil
		}
	}
}

// seqBehind returns the first number behind an offset, and where its line begins; 0 if there is none before high.
func seqBehind(f *os.File, from, high int64) (int64, uint64, error) {
	r := newLineReader(f, from)
	for n := 0; ; n++ {
		line, err := r.next()
		if errors.Is(err, io.EOF) || err == nil && line.at >= high {
			return 0, 0, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if _, seq, ok := parseHead(line.text); n > 0 && ok { // the first line may have begun before
			return line.at, seq, nil
		}
		if !line.ended {
			return 0, 0, nil
		}
	}
}
