package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// TestCredentialSeriesAreBounded sends events of more credentials than may have a series. From within the package, as a store with
// that many takes long to fill.
func TestCredentialSeriesAreBounded(t *testing.T) {
	m := newMetrics("test", time.Now, func() error { return nil }, func() error { return nil })
	event := func(kind broker.Kind, n int) broker.Event {
		return broker.Event{Kind: kind, Credential: fmt.Sprintf("example/%d", n), Own: true, State: tokenbroker.StateReady, Expiry: time.Now()}
	}
	for n := range maxCredentialSeries + 100 {
		m.observe(event(broker.EventState, n))
	}
	if got := testutil.CollectAndCount(m.expiry); got != maxCredentialSeries {
		t.Errorf("got %d series, want %d", got, maxCredentialSeries)
	}
	if got := testutil.ToFloat64(m.states.WithLabelValues("READY")); got != maxCredentialSeries+100 {
		t.Errorf("got %v credentials READY, want all %d", got, maxCredentialSeries+100)
	}
	m.observe(event(broker.EventForgotten, 0))
	if got := testutil.CollectAndCount(m.expiry); got != maxCredentialSeries-1 {
		t.Errorf("got %d series after one was forgotten, want %d", got, maxCredentialSeries-1)
	}
	m.observe(event(broker.EventState, maxCredentialSeries+50))
	if got := testutil.CollectAndCount(m.expiry); got != maxCredentialSeries {
		t.Errorf("got %d series after another came, want %d", got, maxCredentialSeries)
	}
}
