package client

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Option asks for something else than the credential's own scopes, subject and audience.
type Option func(*ask)

// ask is what a caller wants.
type ask struct {
	scopes            []string
	subject, audience string
	minValidity       time.Duration
	errorCode         string
}

// Scopes asks for scopes.
func Scopes(scopes ...string) Option { return func(a *ask) { a.scopes = scopes } }

// Subject says whom the token is to act for.
func Subject(s string) Option { return func(a *ask) { a.subject = s } }

// Audience says whom the token is for.
func Audience(s string) Option { return func(a *ask) { a.audience = s } }

// MinValidity asks for a token that is valid for at least d yet; up to 24 h. See GetTokenRequest.min_validity for what it may cost.
func MinValidity(d time.Duration) Option { return func(a *ask) { a.minValidity = d } }

// ErrorCode tells ReportRejected the error code of the WWW-Authenticate header that came with the refusal (RFC 6750 §3.1), e.g.
// "invalid_token". Other methods pass over it.
func ErrorCode(code string) Option { return func(a *ask) { a.errorCode = code } }

// slot is what a client holds of one variant of a credential. Its address stays, so that who asks often looks for it once.
type slot struct {
	key      string
	selector *tokenbrokerv1.Selector // never changed
	newest   atomic.Pointer[held]    // nil until there is a token
	mu       sync.Mutex              // of those who replace newest
}

// held is a token with the time from which a newer one may be had. It is never changed.
type held struct {
	token  tokenbroker.Token
	askAt  time.Time // ask the broker from then on
	due    time.Time // when the broker means to have a newer one; zero = it did not say
	failed int       // times in a row that it did not answer
}

func (h *held) good(now time.Time, least time.Duration) bool {
	return h.token.Expiry.Sub(now) > max(skew, least)
}

// keep takes a token, unless a newer one is there.
func (s *slot) keep(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.newest.Load(); old == nil || h.token.Generation >= old.token.Generation {
		s.newest.Store(h)
	}
}

// failed puts off the next question, or forgets the token if the broker does not give it to this identity any more.
func (s *slot) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.newest.Load()
	switch {
	case old == nil:
	case unanswered(err):
		s.newest.Store(&held{token: old.token, due: old.due, failed: old.failed + 1, askAt: time.Now().Add(jitter(old.failed + 1))})
	case refused(err):
		s.newest.Store(nil)
	}
}

// slot finds or makes the slot of what a caller wants, and says for how long the token has to be valid.
func (c *Client) slot(credential string, opts []Option) (s *slot, least time.Duration) {
	if len(opts) == 0 {
		return c.slotOf(credential, ask{}), 0
	}
	var a ask
	for _, o := range opts {
		o(&a)
	}
	return c.slotOf(credential, a), a.minValidity
}

func (c *Client) slotOf(credential string, a ask) *slot {
	key := credential // that of the credential's own variant, the most frequent
	if len(a.scopes) > 0 || a.subject != "" || a.audience != "" {
		key += "\x00" + tokenbroker.NewVariant(a.scopes, a.subject, a.audience).Key()
	}
	c.mu.RLock()
	s := c.slots[key]
	c.mu.RUnlock()
	if s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.slots[key]; s != nil {
		return s
	}
	c.sweep()
	s = &slot{key: key, selector: &tokenbrokerv1.Selector{Credential: credential, Scopes: slices.Clone(a.scopes),
		Subject: a.subject, Audience: a.audience}}
	c.slots[key] = s
	return s
}

// sweep drops the slots without a good token when there are many: a worker may ask for another subject each time. c.mu is held.
func (c *Client) sweep() {
	if len(c.slots) < c.sweepAt {
		return
	}
	now := time.Now()
	for key, s := range c.slots {
		if h := s.newest.Load(); h == nil || !h.good(now, 0) {
			delete(c.slots, key)
		}
	}
	c.sweepAt = max(manySlots, 2*len(c.slots))
}
