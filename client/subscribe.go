package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Update is what a subscriber is told.
type Update struct {
	Order    tokenbroker.Order
	State    tokenbroker.State
	Recovery tokenbroker.Recovery
	Token    *tokenbroker.Token // nil if there is none now; all who are told share it: do not change it
	Err      error              // why there is none for this identity, e.g. tokenbroker.ErrNotFound; nil while the broker tells of the credential

	Scopes            []string // as the broker reads what was asked for: the credential's own where nothing was
	Subject, Audience string
	RefreshTime       time.Time // when the broker means to have a newer token; zero if it is not going to
}

var errClosed = errors.New("client: closed")

// Subscribe yields the state of a credential, and then every change of it, until ctx ends or the consumer stops. It goes on over
// reconnects, and does not tell the same state twice; a consumer that is slow gets the newest. However many subscribe, the broker has one
// stream to feed. An error is yielded, and ends it, only if waiting can't help: the request is malformed, or the client was closed. When
// the credential does not exist, or is not for this identity, the error (which is also in Update.Err) wraps tokenbroker.ErrNotFound,
// ErrScopeNotAllowed or ErrTooMany and the subscription goes on: it may come alive.
func (c *Client) Subscribe(ctx context.Context, credential string, opts ...Option) iter.Seq2[Update, error] {
	a := asked(opts)
	return func(yield func(Update, error) bool) {
		w := newWatcher()
		s, ok := c.watch(credential, a, w)
		if !ok {
			yield(Update{Err: errClosed}, errClosed)
			return
		}
		defer c.unwatch(s, w)
		for seen := uint64(0); ctx.Err() == nil; {
			u, told, over := s.newest()
			if told > seen {
				if seen = told; !yield(u, u.Err) || over {
					return
				}
				continue
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
			case <-c.closed:
				yield(Update{Err: errClosed}, errClosed)
				return
			}
		}
	}
}

// watch has somebody told of a slot, and the slot kept in use.
func (c *Client) watch(credential string, a ask, w *watcher) (*slot, bool) {
	for {
		s := c.slotOf(credential, a)
		s.watch(w)
		c.enroll(s, true)
		if s.inUse.Load() || s.dead() {
			return s, true
		}
		s.unwatch(w) // it was dropped meanwhile for want of use, or the client is closed
		if c.isClosed() {
			return nil, false
		}
	}
}

func (c *Client) unwatch(s *slot, w *watcher) {
	if s.unwatch(w) {
		c.dismiss(s)
	}
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
