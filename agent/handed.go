package agent

import (
	"sync"

	"github.com/tokenbroker/tokenbroker"
)

// handed knows which user was handed what: only who had a token may say that it was refused, as at the broker.
type handed struct {
	mu     sync.Mutex
	newest map[holder]tokenbroker.Generation
}

// holder is a user of one variant of a credential.
type holder struct {
	uid     uint32
	variant string
}

// maxHolders bounds what is known. When there are more, all is forgotten: whoever reports then is told to ask for the token first.
const maxHolders = 1 << 16

func newHanded() *handed { return &handed{newest: map[holder]tokenbroker.Generation{}} }

func holderOf(q *question) holder {
	return holder{q.peer.UID, q.credential + "\x00" + tokenbroker.NewVariant(q.scopes, q.subject, q.audience).Key()}
}

// note notes that a user is handed a token.
func (h *handed) note(q *question, g tokenbroker.Generation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.newest) >= maxHolders {
		clear(h.newest)
	}
	key := holderOf(q)
	h.newest[key] = max(h.newest[key], g)
}

// check refuses the report of a user who was never handed the token, or a later one.
func (h *handed) check(q *question, g tokenbroker.Generation) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newest[holderOf(q)] < g {
		return &tokenbroker.Problem{Err: tokenbroker.ErrNotHanded, Detail: "ask the agent for the token first"}
	}
	return nil
}
