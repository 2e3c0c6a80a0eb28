package client

import (
	"context"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Change is an Update with the name of its credential.
type Change struct {
	Credential string
	Update
}

// OnChange calls f with the state of a credential, and then with each change of it, until stop is called or the client is closed. Calls come
// one after the other, from a goroutine of their own; while f is busy changes are passed over for the newest. No call begins after stop
// has returned. f must not call Close, which waits for it.
func (c *Client) OnChange(credential string, f func(Change), opts ...Option) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	running := c.spawn(func() {
		for u, err := range c.Subscribe(ctx, credential, opts...) {
			u.Err = err
			f(Change{Credential: credential, Update: u})
		}
	})
	if !running {
		cancel()
	}
	return cancel
}

// tellAll calls f with each change of every slot.
func (c *Client) tellAll(ctx context.Context, f func(Change)) {
	for {
		for s := c.all.next(); s != nil && ctx.Err() == nil; s = c.all.next() {
			if u, fresh := s.forAll(); fresh {
				f(Change{Credential: s.selector.GetCredential(), Update: u})
			}
		}
		select {
		case <-c.all.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Stale reports whether the token that is held of a credential is past the time when the broker meant to have a newer one, and none could
// be had since then. It is good until its end all the same.
func (c *Client) Stale(credential string, opts ...Option) (since time.Time, stale bool) {
	a := asked(opts)
	s := c.find(keyOf(credential, tokenbroker.NewVariant(a.scopes, a.subject, a.audience)), nil)
	if s == nil || !s.inUse.Load() {
		return time.Time{}, false
	}
	h := s.good(0)
	if h == nil || h.due.IsZero() || time.Now().Before(h.late()) {
		return time.Time{}, false
	}
	return h.due, true
}

// Forget has the client keep a token fresh no more, and drop it, unless somebody watches it. Who asks for it again gets it as the first time.
func (c *Client) Forget(credential string, opts ...Option) {
	a := asked(opts)
	s := c.find(keyOf(credential, tokenbroker.NewVariant(a.scopes, a.subject, a.audience)), nil)
	if s == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	watched := len(s.watchers) > 0
	if !watched {
		s.best, s.askAt = nil, time.Time{}
		s.now.Store(nil)
	}
	s.mu.Unlock()
	if !watched {
		c.dropLocked(s)
	}
}
