package broker

import (
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// skewShown is the least skew of clocks that is worth telling: a reply's Date has whole seconds, and takes a moment.
const skewShown = 5 * time.Second

// noteSkew remembers how far our clock is ahead of a provider's, as the last reply had it, and tells when that changed.
func (b *Broker) noteSkew(provider string, skew time.Duration, failure error) {
	var f *tokenbroker.Failure
	if skew == 0 && errors.As(failure, &f) {
		skew = f.Skew
	}
	if skew == 0 {
		return
	}
	b.mu.Lock()
	old, known := b.skews[provider]
	changed := !known || (skew-old).Abs() >= time.Second
	if changed {
		b.skews[provider] = skew
	}
	b.mu.Unlock()
	if changed {
		b.observe(Event{Kind: EventClockSkew, Provider: provider, Skew: skew})
	}
}

// skew is how far our clock is ahead of a provider's, where that is worth telling; else 0.
func (b *Broker) skew(provider string) time.Duration {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if s := b.skews[provider]; s.Abs() >= skewShown {
		return s
	}
	return 0
}
