package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const maxProblems = 100 // that a report lists

// FileSource reads a file as far as it reaches when it is opened; one whose name ends with .gz is unpacked.
func FileSource(path string) Source {
	return Source{path, func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		r, err := limited(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{r, f}, nil
	}}
}

// limited reads a file as far as it reaches now.
func limited(f *os.File) (io.Reader, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return f, err
	}
	r := io.LimitReader(f, info.Size())
	if strings.HasSuffix(f.Name(), ".gz") {
		return gzip.NewReader(r)
	}
	return r, nil
}

// Sort brings the files of a trail into order: by the number of the first record, those of version 1 first. A file without a record
// comes last.
func Sort(ctx context.Context, sources []Source) error {
	first := map[string]segment{}
	for _, s := range sources {
		found := segment{trail: "~", first: 1<<64 - 1}
		err := eachLine(ctx, s, func(text []byte, _ bool) error {
			trail, seq, ok := parseHead(text)
			if !ok {
				return nil
			}
			found = segment{trail: trail, first: seq}
			return io.EOF
		})
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", s.Name, err)
		}
		first[s.Name] = found
	}
	slices.SortStableFunc(sources, func(a, b Source) int {
		x, y := first[a.Name], first[b.Name]
		return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(x.trail, y.trail))
	})
	return nil
}

// Verify reads a trail, whose files are given oldest first, and reports what is wrong with it. Memory does not grow with the trail. The
// error is of reading; what is wrong with the trail is in the report.
//
// A chain shows by itself lines that were edited, taken out or moved. That its end was cut off, or that it was written anew as a whole,
// only checkpoints show: those in the trail as far as they were left there, those in the second place in any case.
func Verify(ctx context.Context, trail []Source, opts VerifyOptions) (Report, error) {
	w, err := openPoints(opts) // first: whatever the second place has by now, the trail has too
	if err != nil {
		return Report{}, err
	}
	defer w.close()
	v := &verifier{keys: opts.Keys, points: w, from: opts.From, unchained: opts.Unchained}
	v.report.Keyed = len(opts.Keys) > 0
	w.tell = v.problem
	for i, source := range trail {
		v.file, v.line, v.lastFile = source.Name, 0, i == len(trail)-1
		if err := eachLine(ctx, source, v.take); err != nil {
			return v.report, fmt.Errorf("read %s: %w", source.Name, err)
		}
	}
	err = v.end()
	return v.report, err
}

// eachLine gives visit each line of a source, without its line feed. Of one that is too long the text is nil.
func eachLine(ctx context.Context, s Source, visit func(text []byte, ended bool) error) error {
	f, err := s.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	r := &scanner{r: bufio.NewReaderSize(f, 64<<10)}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		text, ended, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = visit(text, ended)
		}
		if err != nil {
			return err
		}
	}
}

// scanner reads lines of a stream.
type scanner struct {
	r   *bufio.Reader
	buf []byte // a line that does not fit into the reader's
}

// next returns a line without its line feed, good until the next; io.EOF behind the last one.
func (s *scanner) next() (text []byte, ended bool, err error) {
	part, err := s.r.ReadSlice('\n')
	if err == nil {
		return part[:len(part)-1], true, nil
	}
	s.buf = s.buf[:0]
	long := false
	for {
		if long = long || len(s.buf)+len(part) > maxLine; !long {
			s.buf = append(s.buf, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		part, err = s.r.ReadSlice('\n')
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, false, err
	case long:
		return nil, err == nil, nil
	case err != nil && len(s.buf) == 0:
		return nil, false, io.EOF
	}
	return bytes.TrimSuffix(s.buf, []byte{'\n'}), err == nil, nil
}
