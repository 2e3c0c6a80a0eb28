package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// A call ends a little before its caller gives up, so that the caller hears why.
const (
	marginShare = 10 // one in so many parts of what is left when the call comes
	marginMost  = 200 * time.Millisecond
	leftLeast   = 5 * time.Millisecond // with less left when it comes, nobody is there any more to hear the answer
)

// callContext is the context of a unary call: it holds the call, and ends a little before the caller's deadline, or at one for a call that
// came without. The clock for that is only wound up when somebody waits; a token from memory is given before.
type callContext struct {
	context.Context //nolint:containedctx // it is one
	call            *call
	end             time.Time

	mu     sync.Mutex
	timed  context.Context //nolint:containedctx // what the clock ends; nil as long as nobody waits
	cancel context.CancelFunc
}

// endOf is when a call ends: a little before its caller gives up, or after a while if that is never. A call that came too late is
// refused.
func endOf(ctx context.Context, began time.Time, most time.Duration) (time.Time, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return began.Add(most), nil
	}
	left := deadline.Sub(began)
	if left < leftLeast {
		return deadline, &tokenbroker.Problem{Err: context.DeadlineExceeded, Detail: "less than " + leftLeast.String() + " were left of it when the call came"}
	}
	return deadline.Add(-min(marginMost, left/marginShare)), nil
}

// start begins the context of a call, which ends with stop.
func (c *callContext) start(ctx context.Context, of *call, end time.Time) {
	c.Context, c.call, c.end = ctx, of, end
}

// late says to a caller who is still there that its time is over, and what became of what it waited for.
func (c *callContext) late(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || c.Context.Err() != nil || time.Now().Before(c.end) {
		return err
	}
	return &tokenbroker.Problem{Err: context.DeadlineExceeded, Detail: "what was begun for this call goes on; ask again", RetryAfter: retrySoon}
}

func (c *callContext) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}

// clock is the context with its deadline.
func (c *callContext) clock() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.cancel = context.WithDeadline(c.Context, c.end)
	}
	return c.timed
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.end, true }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.clock().Done() }

// Err implements context.Context.
func (c *callContext) Err() error {
	if time.Now().Before(c.end) && !c.wound() {
		return c.Context.Err()
	}
	return c.clock().Err()
}

func (c *callContext) wound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timed != nil
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c.call
	}
	return c.Context.Value(key)
}
