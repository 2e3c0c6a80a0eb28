package server

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// streams is the register of open subscriptions.
type streams struct {
	most   int // per identity
	opened func(int)
	total  atomic.Int64

	mu   sync.Mutex
	feed map[*broker.Feed]*call
	of   map[string]int // identity → subscriptions
}

func newStreams(most int, opened func(int)) *streams {
	return &streams{most: most, opened: opened, feed: map[*broker.Feed]*call{}, of: map[string]int{}}
}

// reserve counts a subscription of an identity, if it may have one more.
func (r *streams) reserve(identity string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[identity] >= r.most {
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "subscriptions of this identity", RetryAfter: retrySoon}
	}
	r.of[identity]++
	r.changed(1)
	return nil
}

// release undoes reserve.
func (r *streams) release(identity string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[identity]--; r.of[identity] == 0 {
		delete(r.of, identity)
	}
	r.changed(-1)
}

func (r *streams) changed(by int64) {
	n := r.total.Add(by)
	if r.opened != nil {
		r.opened(int(n))
	}
}

func (r *streams) add(f *broker.Feed, c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed[f] = c
}

func (r *streams) remove(f *broker.Feed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.feed, f)
}

// reconsider has every subscription judged by the policy in force. One that can't be judged ends.
func (r *streams) reconsider(ctx context.Context) {
	r.mu.Lock()
	feeds := make([]*broker.Feed, 0, len(r.feed))
	for f := range r.feed {
		feeds = append(feeds, f)
	}
	r.mu.Unlock()
	for _, f := range feeds { // what goes, goes from all before anything comes, which takes records
		f.Withdraw()
	}
	for _, f := range feeds {
		_ = f.Reconsider(ctx) // a feed that can not be judged has failed and ends by itself
	}
}
