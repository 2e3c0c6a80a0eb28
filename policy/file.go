package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// File is a policy file and the last good policy that it held.
type File struct {
	path    string
	current atomic.Pointer[Policy]

	mu   sync.Mutex // of Reload; held while reading, as a reload that read earlier must not finish later
	seen string     // what the last reload found: hash of the content, or text of the error
	err  error      // what was wrong with it
}

// Load reads a policy file. Unlike a reload, the first load needs a good policy.
func Load(path string) (*File, error) {
	f := &File{path: path}
	if _, err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Current returns the policy in force. It is never nil.
func (f *File) Current() *Policy { return f.current.Load() }

// Reload reads the file again. When it can't be read or parsed, the policy in force stays and the error says what is wrong.
// changed reports whether another policy is in force now.
func (f *File) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, _, err := f.reloadLocked()
	return old != f.Current(), err
}

// Err returns what was wrong with the file at the last reload, nil if the policy in force is what it said.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Watch reloads the file each interval until ctx ends, and returns ctx's error. Both functions may be nil, and are called on
// the caller's goroutine, one at a time: onChange after another policy came in force, onError with each new problem once.
//
// Watch compares the content and not the time of change: a file may be swapped for one with the same time and size, and a
// policy is small. Replace a policy by rename: a file that is read half written is refused or, at worst, holds fewer rules for
// one interval.
func (f *File) Watch(ctx context.Context, interval time.Duration, onChange func(old, new *Policy), onError func(error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		f.poll(onChange, onError)
	}
}

// poll is one look of Watch.
func (f *File) poll(onChange func(old, new *Policy), onError func(error)) {
	f.mu.Lock()
	old, news, err := f.reloadLocked()
	now := f.Current()
	f.mu.Unlock()
	switch {
	case err != nil && news && onError != nil:
		onError(err)
	case old != now && onChange != nil:
		onChange(old, now)
	}
}

// reloadLocked reads the file. It returns the policy that was in force before, and whether it found anything else than the
// last time.
func (f *File) reloadLocked() (old *Policy, news bool, err error) {
	old = f.Current()
	data, err := read(f.path)
	sum := sha256.Sum256(data)
	found := string(sum[:])
	if err != nil {
		found = err.Error()
	}
	if found == f.seen {
		return old, false, f.err
	}
	var p *Policy
	if err == nil {
		p, err = Parse(data)
	}
	if err != nil {
		err = fmt.Errorf("policy file %s: %w", f.path, err)
	}
	f.seen, f.err = found, err
	if err == nil && p.Revision() != old.Revision() {
		f.current.Store(p)
	}
	return old, true, err
}

// read returns the content of a file, and one byte more than a policy may have if it is too large.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, io.LimitReader(file, MaxFileBytes+1))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return b.Bytes(), err
}
