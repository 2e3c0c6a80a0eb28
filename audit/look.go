package audit

import (
	"fmt"
	"time"
)

// look has a sink that can be looked at say whether it could be written to now. A write under way is a look of its own.
func (l *Log) look() {
	s, ok := l.sink.(interface{ Look() error })
	if !ok {
		return
	}
	l.enter() // it may hang as a write may
	err := s.Look()
	l.inSink.Store(false)
	l.noteDeleted()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began, l.unfit = (time.Time{}), nil; err != nil {
		l.unfit = unavailable(fmt.Errorf("look: %w", err))
	}
}

// noteDeleted asks the sink whether records were deleted under it, for the next batch to tell of.
func (l *Log) noteDeleted() {
	if s, ok := l.sink.(interface{ Deleted() bool }); ok && s.Deleted() {
		l.gone = true
		l.signal()
		if l.opts.Deleted != nil {
			l.opts.Deleted()
		}
	}
}
