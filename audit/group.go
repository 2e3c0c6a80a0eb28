package audit

import (
	"context"
	"time"
)

// group is the records that go out with one write.
type group struct {
	fields  []byte    // encoded fields of all records, one behind the other
	ends    []int     // where the fields of each record end
	waiting *verdict  // of those who wait; nil if nobody does any more
	since   time.Time // when the first of them came
}

// roomLocked returns an empty group, if it can one whose room was used before.
func (l *Log) roomLocked() *group {
	n := len(l.spare)
	if n == 0 {
		return new(group)
	}
	g := l.spare[n-1]
	l.spare = l.spare[:n-1]
	*g = group{fields: g.fields[:0], ends: g.ends[:0]}
	return g
}

// verdict is what became of records, for all who wait for it.
type verdict struct {
	done chan struct{}
	err  error // set before done is closed
}

// give tells all who wait. A nil verdict has nobody to tell.
func (v *verdict) give(err error) {
	if v == nil {
		return
	}
	v.err = err
	close(v.done)
}

// wait waits for the verdict, or for as long as the caller may. It needs no clock: the watchdog of the log has one for all.
func (v *verdict) wait(ctx context.Context) error {
	leaves := ctx.Done()
	if leaves == nil {
		<-v.done
		return v.err
	}
	select {
	case <-v.done:
		return v.err
	case <-leaves:
	}
	select {
	case <-v.done: // both came at once
		return v.err
	default:
		return unavailable(context.Cause(ctx))
	}
}
