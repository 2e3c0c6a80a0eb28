package audit

import (
	"time"
)

// Checkpoints say when a log signs where its trail stands, and where that goes. A checkpoint is a record of the trail itself; the same
// line goes to a second place, which whoever rewrites the trail can't reach.
type Checkpoints struct {
	Signer   *Signer           // nil = no checkpoints
	Records  int               // one at least each so many records; 0 means 1,000
	Interval time.Duration     // and this long after a record that none speaks for yet; 0 means 60 s. While nothing is written there is none
	Store    func() uint64     // the store's counter, for the checkpoint; nil = none
	Out      func(line []byte) // is given each checkpoint after the trail has it, with its line feed, to keep; it must not block: Witness.Take
}

// unsigned is what no checkpoint speaks for yet. It is of the goroutine of Run alone.
type unsigned struct {
	lines int
	since time.Time // when the first of them was written
	final bool      // nothing will follow
}

// pointDue reports whether a checkpoint has to follow, when there are more lines to be written.
func (l *Log) pointDue(more int, now time.Time) bool {
	c, n := &l.opts.Checkpoints, l.unsigned.lines
	if c.Signer == nil || n+more == 0 {
		return false
	}
	return l.unsigned.final || n+more >= c.Records || n > 0 && now.Sub(l.unsigned.since) >= c.Interval
}

// pointWait is when to look whether a checkpoint is due; 0 = not before more is written.
func (l *Log) pointWait() time.Duration {
	if l.opts.Checkpoints.Signer == nil || l.unsigned.lines == 0 {
		return 0
	}
	return max(time.Until(l.unsigned.since.Add(l.opts.Checkpoints.Interval)), l.opts.Retry)
}

// point encodes the checkpoint behind a line.
func (l *Log) point(behind link, now time.Time) []byte {
	c := &l.opts.Checkpoints
	store := uint64(0)
	if c.Store != nil {
		store = c.Store()
	}
	r := Record{Kind: KindCheckpoint, Action: ActionCheckpoint}
	return c.Signer.sign(behind.trail, behind.seq+1, behind.prev, now, store).appendFields(r.appendFields(nil, now))
}

// settlePoint notes what a batch means for the next checkpoint, and passes on the one that was in it.
func (l *Log) settlePoint(b batch, written bool, now time.Time) {
	if written && b.point != nil {
		l.unsigned.lines = 0
		if l.opts.Checkpoints.Out != nil {
			l.opts.Checkpoints.Out(append([]byte(nil), b.point...))
		}
		return
	}
	if l.unsigned.lines == 0 {
		l.unsigned.since = now
	}
	l.unsigned.lines += b.lines // also those that may not be there: a checkpoint too early does no harm
}
