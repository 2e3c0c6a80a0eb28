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

const (
	maxSpare = 1 << 20 // bytes of a buffer that is worth keeping
	gather   = 4       // times that others get to run before a group is written
)

// Run writes until ctx ends. From then on Write refuses; what was already waiting is written, and Run returns the error of that
// last write, or nil. A Log runs once.
//
// Run is the only goroutine that touches the sink, and can't take a write back: when the sink hangs, Run returns only after it
// came back, while callers are answered all the same. Whoever must end earlier closes the sink or leaves Run behind.
func (l *Log) Run(ctx context.Context) error {
	if err := l.start(); err != nil {
		return err
	}
	retry, point, look := time.NewTimer(l.opts.Retry), time.NewTimer(l.opts.Retry), time.NewTicker(l.opts.Look)
	retry.Stop() // until the trail is behind
	point.Stop() // until there is something to sign
	defer retry.Stop()
	defer point.Stop()
	defer look.Stop()
	for armed := false; ; {
		select {
		case <-ctx.Done():
			l.close()
			l.unsigned.final = true
			return l.flush()
		case <-l.wake:
			for range gather { // whoever runs already gets into the group: one write for many costs each of them a fraction
				runtime.Gosched()
			}
		case <-retry.C:
		case <-point.C:
			armed = false
		case <-look.C:
			l.look()
			continue
		}
		_ = l.flush() // each caller of the group has the error, and Healthy too
		if l.behind() {
			retry.Reset(l.opts.Retry)
		}
		if wait := l.pointWait(); wait > 0 && !armed {
			point.Reset(wait)
			armed = true
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
	b, told := l.lines(g, lost), l.gone
	l.gone = false
	err := l.put(b.text)
	l.gone = l.gone || told && err != nil
	l.settlePoint(b, err == nil, time.Now())
	l.settle(g, lost, err).give(err)
	return err
}

// take takes the group that was filling. It is nil if there is nothing to write, not even a gap or a checkpoint.
func (l *Log) take() (*group, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.pending
	if g == nil && (l.lost > 0 || l.gone || l.pointDue(0, time.Now())) {
		g = new(group)
	}
	l.pending, l.writing = nil, g
	return g, l.lost
}

// settle notes how the write went, and returns whom to tell: nil if all were told already.
func (l *Log) settle(g *group, lost uint64, err error) *verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || len(g.ends) > 0 {
		l.doubted = err != nil || time.Since(l.began) > prompt
	}
	l.writing, l.began, l.failure = nil, time.Time{}, err
	if err != nil {
		l.lost += uint64(len(g.ends))
	} else {
		l.lost -= lost
		l.wakeLocked()
	}
	w := g.waiting
	if n := cap(g.fields); len(l.spare) < 2 && 0 < n && n <= maxSpare {
		l.spare = append(l.spare, g)
	}
	return w
}

// batch is what goes out with one write.
type batch struct {
	text  []byte
	lines int
	point []byte // the checkpoint, if there is one in it
}

// lines makes the lines of a group, in front of them those about a torn line and a gap, and behind them a checkpoint if one is due.
func (l *Log) lines(g *group, lost uint64) batch {
	b, at, n := l.out[:0], l.last, 0
	line := func(fields []byte) {
		at.seq++
		b, at.prev = frame(b, at, fields)
		b = append(b, '\n')
		n++
	}
	if l.half {
		b = append(b, '\n')
	}
	if l.torn {
		line(system(ActionTorn, l.cut, 0))
	}
	if l.gone {
		line(system(ActionDeleted, "", 0))
	}
	if lost > 0 {
		line(system(ActionGap, "", lost))
	}
	from := 0
	for _, end := range g.ends {
		line(g.fields[from:end])
		from = end
	}
	now := time.Now()
	if !l.pointDue(n, now) {
		return batch{text: b, lines: n}
	}
	begin := len(b)
	line(l.point(at, now))
	return batch{b, n, b[begin:]}
}

// system encodes a record of the log's own.
func system(action, reason string, count uint64) []byte {
	r := Record{Kind: KindSystem, Action: action, Reason: reason, Count: count}
	return r.appendFields(nil, time.Now())
}

// enter notes that the sink is going to be asked for something. Whoever asks says when it is back, by inSink.
func (l *Log) enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began = time.Now()
	l.inSink.Store(true)
}

// put writes lines to the sink and notes what of them it took.
func (l *Log) put(lines []byte) error {
	l.enter()
	defer l.inSink.Store(false)
	n, err := l.sink.Write(lines)
	l.noteDeleted()
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

// took counts the lines that are in the sink now, and chains the next one to the last of them. An unfinished one at the end has used up
// its number too.
func (l *Log) took(written []byte) {
	if len(written) == 0 {
		return
	}
	whole := bytes.Count(written, []byte{'\n'})
	if l.half {
		whole-- // the line feed that ended the old one
	}
	if end := bytes.LastIndexByte(written, '\n'); whole > 0 {
		_, l.last.prev, _ = parseLink(written[bytes.LastIndexByte(written[:end], '\n')+1 : end])
	}
	l.half = written[len(written)-1] != '\n'
	l.torn = l.half || l.torn && whole == 0
	l.last.seq += uint64(whole)
	if l.half {
		l.last.seq++
		l.cut = unfinished(written[bytes.LastIndexByte(written, '\n')+1:])
	}
}
