package client

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Slots returns how many variants the client holds something of.
func (c *Client) Slots() int {
	n := 0
	c.each(func(*slot) { n++ })
	return n
}

// Left is how long a token is valid yet that ends so much later by the wall clock, and by the monotonic one.
func Left(wall, monotonic time.Duration) time.Duration {
	now := time.Now()
	return (&held{token: tokenbroker.Token{Expiry: now.Add(wall).Round(0)}, ends: now.Add(monotonic)}).left(now)
}

// Sleep is a sleep of the machine, as far as a credential's token sees it: the wall clock goes on, the monotonic one and timers do not.
func (c *Client) Sleep(credential string, d time.Duration) {
	s, _ := c.slot(credential, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.best.token
	t.Expiry = t.Expiry.Add(-d)
	s.best = &held{token: t, oauth2: s.best.oauth2, ends: s.best.ends, life: s.best.life, due: s.best.due}
	s.now.Store(s.best)
}

// Target is what an address is read as.
func Target(addr string) (name string, list, hosts []string, local bool, err error) {
	t, err := parseTarget(addr)
	return t.name, t.list, t.hosts, t.local, err
}
