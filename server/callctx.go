package server

import (
	"context"
	"sync"
	"time"
)

// callContext is the context of a unary call: it holds the call, and a deadline for a call that came without one. The clock for that is
// only wound up when somebody waits; a token from memory is given before.
type callContext struct {
	context.Context //nolint:containedctx // it is one
	call            *call
	end             time.Time // zero if the client set a deadline

	mu     sync.Mutex
	timed  context.Context //nolint:containedctx // what the clock ends; nil as long as nobody waits
	cancel context.CancelFunc
}

// start begins the context of a call, which ends with stop.
func (c *callContext) start(ctx context.Context, of *call, most time.Duration) {
	c.Context, c.call = ctx, of
	if _, ok := ctx.Deadline(); !ok {
		c.end = of.began.Add(most)
	}
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
	if c.end.IsZero() {
		return c.Context
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.cancel = context.WithDeadline(c.Context, c.end)
	}
	return c.timed
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) {
	if c.end.IsZero() {
		return c.Context.Deadline()
	}
	return c.end, true
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.clock().Done() }

// Err implements context.Context.
func (c *callContext) Err() error {
	if c.end.IsZero() || time.Now().Before(c.end) && !c.wound() {
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
