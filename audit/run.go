package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

const maxSpare = 1 << 20 // bytes of a buffer that is worth keeping

// Run writes until ctx ends. From then on Write refuses; what was already waiting is written, and Run returns the error of that
// last write, or nil. A Log runs once.
//
// Run is the only goroutine that touches the sink, and can't take a write back: when the sink hangs, Run returns only after it
// came back, while callers are answered all the same. Whoever must end earlier closes the sink or leaves Run behind.
func (l *Log) Run(ctx context.Context) error {
	if err := l.start(); err != nil {
		return err
	}
	retry := time.NewTimer(l.opts.Retry)
	retry.Stop() // until the trail is behind
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			l.close()
			return l.flush()
		case <-l.wake:
			runtime.Gosched() // whoever runs already gets into the group: one write for many costs each of them a fraction
		case <-retry.C:
		}
		_ = l.flush() // each caller of the group has the error, and Healthy too
		if l.behind() {
			retry.Reset(l.opts.Retry)
		}
	}
}

func (l *Log) start() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running || l.closed {
		return errors.New("audit: a log runs once")
	}
	l.running = true
	return nil
}

func (l *Log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.running = true, false
}

// behind reports whether the trail lacks a record of a gap.
func (l *Log) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost > 0
}

// flush writes all that waits with one write, and answers those who wait for it.
func (l *Log) flush() error {
	g, lost := l.take()
	if g == nil {
		return nil
	}
	err := l.put(l.lines(g, lost))
	l.settle(g, lost, err).give(err)
	return err
}

// take takes the group that was filling. It is nil if there is nothing to write, not even a gap.
func (l *Log) take() (*group, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.pending
	if g == nil && l.lost > 0 {
		g = new(group)
	}
	l.pending, l.writing = nil, g
	return g, l.lost
}

// settle notes how the write went, and returns whom to tell: nil if all were told already.
func (l *Log) settle(g *group, lost uint64, err error) *verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing, l.began, l.failure = nil, time.Time{}, err
	if err != nil {
		l.lost += uint64(len(g.ends))
	} else {
		l.lost -= lost
	}
	w := g.waiting
	if l.spare == nil && cap(g.fields) <= maxSpare {
		l.spare = g
	}
	return w
}

// lines makes the lines of a group, in front of them those about a torn line and a gap.
func (l *Log) lines(g *group, lost uint64) []byte {
	b, seq := l.out[:0], l.seq
	line := func(fields []byte) {
		seq++
		b = append(frame(b, seq, fields), '\n')
	}
	if l.half {
		b = append(b, '\n')
	}
	if l.torn {
		line(system(ActionTorn, 0))
	}
	if lost > 0 {
		line(system(ActionGap, lost))
	}
	from := 0
	for _, end := range g.ends {
		line(g.fields[from:end])
		from = end
	}
	return b
}

// system encodes a record of the log's own.
func system(action string, count uint64) []byte {
	r := Record{Kind: KindSystem, Action: action, Count: count}
	return r.appendFields(nil, time.Now())
}

// put writes lines to the sink and notes what of them it took.
func (l *Log) put(lines []byte) error {
	l.mu.Lock()
	l.began = time.Now()
	l.mu.Unlock()
	n, err := l.sink.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	l.took(lines[:min(max(n, 0), len(lines))])
	if s, ok := l.sink.(interface{ Sync() error }); ok && err == nil && l.opts.Sync {
		err = s.Sync()
	}
	if l.out = lines; cap(lines) > maxSpare {
		l.out = nil
	}
	if err != nil {
		return unavailable(fmt.Errorf("write: %w", err))
	}
	return nil
}

// took counts the lines that are in the sink now. An unfinished one at the end has used up its number too.
func (l *Log) took(written []byte) {
	if len(written) == 0 {
		return
	}
	whole := bytes.Count(written, []byte{'\n'})
	if l.half {
		whole-- // the line feed that ended the old one
	}
	l.half = written[len(written)-1] != '\n'
	l.torn = l.half || l.torn && whole == 0
	l.seq += uint64(whole)
	if l.half {
		l.seq++
	}
}
