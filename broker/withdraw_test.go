package broker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// slowRecords has each record of a delivery take a second from now on, as on a busy disk.
func (w *world) slowRecords() {
	w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
		if ev.Kind == broker.EventDeliver {
			time.Sleep(time.Second)
		}
		return nil
	})
}

// refreshing waits for the next exchange: its token is stored, and the record of its delivery is being written.
func (w *world) refreshing() {
	w.t.Helper()
	for sent := w.up.count(); w.up.count() == sent; w.settle() {
		time.Sleep(500 * time.Millisecond)
	}
}

// wantGone wants to be told that the credential is gone, at once, and of no state after that.
func wantGone(t *testing.T, w *world, feed *reader) {
	t.Helper()
	if got := feed.take(); len(got) != 1 || !errors.Is(got[0].Removed, tokenbroker.ErrNotFound) {
		t.Errorf("got %+v, want one removal", got)
	}
	w.pass(5 * time.Second)
	for _, u := range feed.take() {
		if u.Snapshot != nil {
			t.Errorf("after the removal: got %v", u.Snapshot.Order)
		}
	}
}

func TestNothingComesAfterThePolicyTookACredentialAway(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		var forbidden atomic.Bool
		feed := w.subscribe(func(broker.Selection) error {
			if forbidden.Load() {
				return tokenbroker.ErrNotFound
			}
			return nil
		})
		feed.take()
		w.slowRecords()
		w.refreshing()
		forbidden.Store(true)
		feed.feed.Withdraw()
		wantGone(t, w, feed)
	})
}

func TestNothingComesAfterACredentialWasDeleted(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		w.slowRecords()
		w.refreshing()
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
		wantGone(t, w, feed)
	})
}

func TestWhatThePolicyForbidsDuringItsRecordIsNotOffered(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		var forbidden atomic.Bool
		w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
			forbidden.Store(ev.Kind == broker.EventDeliver)
			return nil
		})
		feed := w.subscribe(func(broker.Selection) error {
			if forbidden.Load() {
				return tokenbroker.ErrNotFound
			}
			return nil
		})
		wantGone(t, w, feed)
	})
}

// TestAWithdrawalWaitsForNoRecord: many feeds are judged one after the other when the policy changes, and one of them may be opening.
func TestAWithdrawalWaitsForNoRecord(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		var forbidden atomic.Bool
		feed := w.subscribe(func(broker.Selection) error {
			if forbidden.Load() {
				return tokenbroker.ErrNotFound
			}
			return nil
		})
		feed.take()
		w.slowRecords()
		added := make(chan error, 1)
		go func() {
			added <- feed.feed.Add(context.Background(), broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}})
		}()
		time.Sleep(time.Millisecond) // its record is being written
		forbidden.Store(true)
		began := time.Now()
		feed.feed.Withdraw()
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v, want no time", took)
		}
		wantGone(t, w, &reader{t: t, feed: feed.feed})
		fatal(t, <-added)
	})
}
