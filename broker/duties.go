package broker

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	dutiesPage  = 500       // OAuth clients read at a time
	dutiesRetry = time.Hour // after a look that the store did not allow
)

// duties remembers of which secrets, keys and certificates operators were warned. One item of the schedule serves them all: when the
// first warning of any is due, all OAuth clients are looked at.
type duties struct {
	item item

	mu     sync.Mutex
	next   time.Time                 // when the item is on the schedule; zero = it is not
	warned map[string]map[string]int // client → id of a secret → how many of its warnings were told
}

// setDuties puts the next look on the schedule, unless an earlier one is. The zero time is none.
func (b *Broker) setDuties(at time.Time) {
	d := &b.duties
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.IsZero() || !d.next.IsZero() && !at.Before(d.next) {
		return
	}
	d.next = at
	b.schedule.set(&d.item, at)
}

// lookAtAllSecrets warns of all secrets that are due, and puts the next look on the schedule.
func (b *Broker) lookAtAllSecrets(ctx context.Context) {
	b.duties.mu.Lock()
	b.duties.next = time.Time{}
	b.duties.mu.Unlock()
	for after := ""; ; {
		page, err := b.cfg.Store.Clients(ctx, after, dutiesPage)
		if err != nil && !isTampered(err) {
			b.setDuties(time.Now().Add(dutiesRetry))
			return
		}
		if len(page) == 0 {
			return
		}
		for _, c := range page {
			after = c.Name
			b.lookAtSecrets(c)
		}
	}
}

// lookAtSecrets warns of a client's secrets that are due, once for each warning, and sees to it that the schedule looks again in time.
func (b *Broker) lookAtSecrets(c tokenbroker.OAuthClient) {
	now := time.Now()
	var next time.Time
	told := map[string]int{}
	for _, s := range c.Secrets {
		due, then := dutiesOf(s, now)
		next = first(next, then)
		if due > 0 {
			told[s.ID] = due
		}
		if due > b.duties.told(c.Name, s.ID) {
			b.observe(Event{Kind: EventSecret, Client: c.Name, Provider: c.Provider, Code: string(cmp.Or(s.Kind, tokenbroker.KindSecret)),
				SecretID: s.ID, Fingerprint: s.Fingerprint, Expiry: s.Due()})
		}
	}
	b.duties.tell(c.Name, told)
	b.setDuties(next)
}

// dutiesOf counts the warnings of a secret that are due, and says when the next one is. One that was to be replaced sooner than a warning
// comes before its end has no such warning.
func dutiesOf(s tokenbroker.ClientSecret, now time.Time) (due int, next time.Time) {
	end := s.Due()
	if end.IsZero() {
		return 0, next
	}
	for _, days := range warnDays {
		at := end.AddDate(0, 0, -days)
		switch {
		case at.Before(s.Added):
		case at.After(now):
			next = first(next, at)
		default:
			due++
		}
	}
	return due, next
}

func (d *duties) told(client, id string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.warned[client][id]
}

// tell notes what was told of a client's secrets. Those with nothing told take no room.
func (d *duties) tell(client string, told map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(told) == 0 {
		delete(d.warned, client)
		return
	}
	d.warned[client] = told
}

func (d *duties) forget(client string) { d.tell(client, nil) }
