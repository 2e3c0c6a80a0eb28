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
	l.mu.Lock()
	l.began = time.Now() // it may hang as a write may
	l.mu.Unlock()
	err := s.Look()
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
