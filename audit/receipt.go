package audit

import "time"

// prompt is how long the sink may be behind for Later to take a record.
const prompt = 50 * time.Millisecond

// Receipt says what became of a record that [Log.Later] took. Those of records that go out with one write are equal; the zero value is of none.
type Receipt struct{ of *verdict }

// Wait waits until the sink took the record, for as long as [Log.Write] would. With an error, which wraps tokenbroker.ErrAuditUnavailable, the
// record may or may not be in the trail, and what it is about must not happen.
func (r Receipt) Wait() error {
	if r.of == nil {
		return nil
	}
	<-r.of.done
	return r.of.err
}

// Later is Write for a caller who keeps back what the record is about until the receipt's Wait returned nil, and until then does something
// better than wait. It is false, and nothing was taken, if the sink is not known to be well and prompt: then Write says what is wrong, or waits.
func (l *Log) Later(r Record) (Receipt, bool) {
	buf := l.scratch.Get().(*[]byte)
	defer l.scratch.Put(buf)
	now := r.Time
	if now.IsZero() {
		now = time.Now()
	}
	*buf = r.appendFields((*buf)[:0], now)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.promptLocked(now) || l.refuseLocked(len(*buf), now) != nil {
		return Receipt{}, false
	}
	return Receipt{l.joinLocked(*buf, now)}, true
}

// promptLocked reports whether the sink took all that it was given, and nothing has been waiting for it for long.
func (l *Log) promptLocked(now time.Time) bool {
	switch {
	case !l.running, l.failure != nil, l.unfit != nil, l.lost > 0, l.doubted:
		return false
	case !l.began.IsZero() && now.Sub(l.began) > prompt:
		return false
	}
	return l.pending == nil || l.pending.waiting == nil || now.Sub(l.pending.since) <= prompt
}
