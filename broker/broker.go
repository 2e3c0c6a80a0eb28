package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tokenbroker/tokenbroker"
)

const bootShift = 32 // a revision carries the store's boot count above these bits, so that it rises over restarts

// Broker is the engine. New makes one; Run works its schedule; all other methods are safe for concurrent use.
type Broker struct {
	cfg       Config
	schedule  *schedule
	flights   singleflight.Group // credential uid + variant key → one exchange
	loads     singleflight.Group // name (+ variant key) → one read of the store
	revisions atomic.Uint64
	feeds     atomic.Uint64
	ids       atomic.Uint64 // of entries
	editions  atomic.Uint64 // of credentials, so far
	changes   atomic.Uint64 // of what credentials there are and how they are configured
	written   atomic.Int64  // unix nanoseconds of the last durable write that went well

	// work is the context of flights: it outlives every caller and Run itself, until Close. It is the one context that is stored.
	work context.Context //nolint:containedctx // flights belong to no caller whose context they could be given
	stop context.CancelFunc

	drain  chan struct{} // closed when draining begins
	duties duties        // of secrets, keys and certificates that are to be replaced

	inUse sync.RWMutex // held for writing while an OAuth client is looked at and deleted, for reading while a credential takes one

	// sourcing is held for writing while a credential takes another one as its source, for reading while one is looked at and deleted.
	sourcing sync.RWMutex

	mu       sync.RWMutex
	entries  map[string]*entry             // name → credential that exists
	parked   map[string]map[*slot]struct{} // name → slots that wait for it to be created or allowed
	gates    map[gateKey]*gate
	sources  map[string]map[string]struct{} // name → those that get their subject token from it
	skews    map[string]time.Duration       // provider → how far our clock is ahead of its
	draining bool
	running  sync.WaitGroup // flights
}

// New makes a Broker over the credentials that the store has. It reads their summaries, no secrets. One that does not open
// quarantines its credential and no other. ctx governs that reading.
func New(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg:     cfg,
		entries: map[string]*entry{},
		parked:  map[string]map[*slot]struct{}{},
		gates:   map[gateKey]*gate{},
		sources: map[string]map[string]struct{}{},
		skews:   map[string]time.Duration{},
		drain:   make(chan struct{}),
	}
	b.schedule = newSchedule()
	b.duties.warned = map[string]map[string]int{}
	b.setDuties(time.Now())
	b.work, b.stop = context.WithCancel(context.Background())
	b.revisions.Store(cfg.Store.Boot() << bootShift)
	for s, err := range cfg.Store.Summaries(ctx) {
		if err != nil && (s.Name == "" || !isTampered(err)) {
			b.stop()
			return nil, fmt.Errorf("read the credentials: %w", err)
		}
		e := b.newEntry(s.Name)
		b.entries[s.Name] = e
		if err != nil { // of this one alone: it is quarantined, and the way out is to delete it
			_ = b.unreadable(s.Name, err)
			s.State = tokenbroker.StateQuarantined
			b.observe(atStart(s))
			continue
		}
		b.feed(s.Name, "", s.Source)
		b.observe(atStart(s))
		e.storedEnd = s.Expiry
		b.wakeAtStart(e, s)
	}
	return b, nil
}

// atStart tells how a credential stands before anybody has used it.
func atStart(s tokenbroker.Summary) Event {
	ev := Event{Kind: EventState, Credential: s.Name, Provider: s.Provider, Own: true, State: s.State}
	if s.Disabled {
		ev.State = tokenbroker.StateDisabled
	}
	return ev
}

func (c *Config) check() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("broker: Config.Store is missing"))
	}
	if c.Upstream == nil {
		errs = append(errs, errors.New("broker: Config.Upstream is missing"))
	}
	if c.Judge == nil {
		errs = append(errs, errors.New("broker: Config.Judge is missing"))
	}
	if c.Traits == nil {
		errs = append(errs, errors.New("broker: Config.Traits is missing"))
	}
	if c.ExchangeTimeout <= 0 {
		c.ExchangeTimeout = 30 * time.Second
	}
	if c.MaxVariants <= 0 {
		c.MaxVariants = 64
	}
	return errors.Join(errs...)
}

// wakeAtStart schedules what can't wait for a worker to ask: an exchange that was cut off, a refresh token that would die of disuse or
// whose end has to be warned of, a revocation that did not get through.
func (b *Broker) wakeAtStart(e *entry, s tokenbroker.Summary) {
	switch {
	case s.State == tokenbroker.StateUncertain && !s.Disabled:
		b.schedule.set(&e.item, time.Now())
	case !s.Exercise.IsZero():
		b.schedule.set(&e.item, s.Exercise)
	}
}

// Run works the schedule until ctx ends, then drains: no new exchange is begun, those in flight end and are committed. It
// returns when the last one has. Subscriptions and valid tokens are served all the while.
func (b *Broker) Run(ctx context.Context) error {
	b.schedule.run(ctx, b.due)
	b.Drain()
	return ctx.Err()
}

// Drain refuses new exchanges, also those that wait for their turn, and waits for those in flight.
func (b *Broker) Drain() {
	b.refuse()
	b.running.Wait()
}

func (b *Broker) refuse() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		return
	}
	b.draining = true
	close(b.drain)
	for _, g := range b.gates {
		g.close()
	}
}

// Close ends exchanges that are still in flight, without waiting for their answers. Call it when Drain took too long, and at
// the end in any case.
func (b *Broker) Close() {
	b.refuse()
	b.stop()
	b.running.Wait()
}

// enter counts a flight in, unless the broker is draining.
func (b *Broker) enter() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.draining {
		return false
	}
	b.running.Add(1)
	return true
}

func (b *Broker) revision() uint64 { return b.revisions.Add(1) }

func (b *Broker) audit(ctx context.Context, ev Event) error {
	if b.cfg.Audit != nil {
		if err := b.cfg.Audit(ctx, ev); err != nil {
			if !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
				err = fmt.Errorf("%w: %w", tokenbroker.ErrAuditUnavailable, err)
			}
			return fmt.Errorf("audit %s of %q: %w", ev.Kind, ev.Credential, err)
		}
	}
	b.observe(ev)
	return nil
}

// mac names an access token in audit records.
func (b *Broker) mac(token tokenbroker.Secret) string {
	if b.cfg.MAC == nil {
		return ""
	}
	return b.cfg.MAC(token)
}

func (b *Broker) observe(ev Event) {
	if b.cfg.Observe != nil {
		b.cfg.Observe(ev)
	}
}

// wrote notes a durable write that went well.
func (b *Broker) wrote() { b.written.Store(time.Now().UnixNano()) }

// provenWritable makes sure that the store can be written, so that no exchange is sent whose result could not be kept. A
// write within the last second will do.
func (b *Broker) provenWritable(ctx context.Context) error {
	since := time.Duration(time.Now().UnixNano() - b.written.Load())
	if since >= 0 && since < proofLife {
		return nil
	}
	if err := b.cfg.Store.Prove(ctx); err != nil {
		return err
	}
	b.wrote()
	return nil
}
