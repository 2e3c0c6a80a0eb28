package client

import (
	"context"
	"time"
)

// Change is an Update with the name of its credential.
type Change struct {
	Credential string
	Update
}

// OnChange calls f with the state of a credential, and then with each change of it, until stop is called or the client is closed. Calls come
// one after the other, from a goroutine of their own; while f is busy changes are passed over for the newest. f must not call Close.
func (c *Client) OnChange(credential string, f func(Change), opts ...Option) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c.wg.Go(func() {
		defer cancel()
		for u, err := range c.Subscribe(ctx, credential, opts...) {
			if u.Err = err; ctx.Err() == nil {
				f(Change{Credential: credential, Update: u})
			}
		}
	})
	return cancel
}

// Stale reports whether the token that is held of a credential is past the time when the broker meant to have a newer one, and none could
// be had since then. It is good until its end all the same.
func (c *Client) Stale(credential string, opts ...Option) (since time.Time, stale bool) {
	s, _ := c.slot(credential, opts)
	h, now := s.newest.Load(), time.Now()
	if h == nil || h.due.IsZero() || now.Before(h.due) || !h.good(now, 0) {
		return time.Time{}, false
	}
	return h.due, true
}
