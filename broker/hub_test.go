package broker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func TestFeedGivesTheStateFirst(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		s := w.get()
		feed := w.subscribe(nil, broker.Selection{Credential: "acme/jobs"}, broker.Selection{Credential: "acme/none"},
			broker.Selection{Credential: "acme/jobs", Scopes: []string{"c"}})
		got := feed.take()
		if len(got) != 3 || got[0].Snapshot != s || !errors.Is(got[1].Removed, tokenbroker.ErrNotFound) || !errors.Is(got[2].Removed, tokenbroker.ErrScopeNotAllowed) {
			t.Fatalf("got %+v, want the state of one and the refusal of the others, in order", got)
		}
		if feed.wakes() == 0 {
			t.Error("nobody was woken")
		}
		if _, _, _, err := w.report("job", s.Order.Generation, 403); err != nil {
			t.Errorf("got %v of a holder that took the token from a feed, want it known", err)
		}
	})
}

func TestRemovedSelectorComesAlive(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		feed := w.subscribe(nil)
		if u := feed.one(); !errors.Is(u.Removed, tokenbroker.ErrNotFound) {
			t.Fatalf("got %+v, want a removal", u)
		}
		for range 3 {
			w.createOnly("a")
			got := feed.take()
			if len(got) == 0 || got[len(got)-1].Snapshot == nil || got[len(got)-1].Snapshot.Token == nil {
				t.Fatalf("got %+v after the create, want a token", got)
			}
			fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
			if u := feed.one(); !errors.Is(u.Removed, tokenbroker.ErrNotFound) {
				t.Fatalf("got %+v after the delete, want a removal", u)
			}
		}
		wantRising(t, feed.got)
		feed.feed.Close()
		if got := w.b.Parked(); got != 0 {
			t.Errorf("got %d slots that wait after their feed was closed, want none", got)
		}
	})
}

func TestPolicyChangeTakesAwayAndGivesBack(t *testing.T) {
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
		forbidden.Store(true)
		fatal(t, feed.feed.Reconsider(t.Context()))
		fatal(t, feed.feed.Reconsider(t.Context()))
		if u := feed.one(); !errors.Is(u.Removed, tokenbroker.ErrNotFound) {
			t.Errorf("got %+v, want one removal", u)
		}
		w.pass(time.Hour)
		if got := feed.take(); len(got) != 0 {
			t.Errorf("got %+v while forbidden, want nothing", got)
		}
		forbidden.Store(false)
		fatal(t, feed.feed.Reconsider(t.Context()))
		w.settle()
		feed.take()
		wantRising(t, feed.got)
		if last := feed.got[len(feed.got)-1]; last.Snapshot == nil || last.Snapshot.Token == nil {
			t.Errorf("got %+v after it was allowed again, want a token", last)
		}
		// Taken and given back with nothing in between: a higher revision of the same state.
		forbidden.Store(true)
		fatal(t, feed.feed.Reconsider(t.Context()))
		forbidden.Store(false)
		fatal(t, feed.feed.Reconsider(t.Context()))
		feed.take()
		wantRising(t, feed.got)
	})
}

func TestClosedFeedIsNeverWoken(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.feed.Close()
		woken := feed.wakes()
		if err := feed.feed.Add(t.Context(), broker.Selection{Credential: "acme/jobs"}); err == nil {
			t.Error("a closed feed took a selector")
		}
		w.pass(5 * time.Hour)
		if got := feed.wakes(); got != woken {
			t.Errorf("got %d wakes after Close, want none", got-woken)
		}
		if got := w.status().Subscribers; got != 0 {
			t.Errorf("got %d subscribers, want none", got)
		}
		sent := w.up.count()
		w.pass(5 * time.Hour)
		w.wantSent(sent) // a closed feed is no use
	})
}

func TestStatesReachSubscribersOnce(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		w.up.use(failure(tokenbroker.ClassTransient, "http_503"))
		w.pass(55 * time.Minute)
		if w.up.count() < 3 {
			t.Fatal("got too few tries to tell")
		}
		if u := feed.one(); u.Snapshot.State != tokenbroker.StateDegraded {
			t.Errorf("got %s, want DEGRADED once, however many tries failed", u.Snapshot.State)
		}
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
		fatal(t, err)
		if u := feed.one(); u.Snapshot.State != tokenbroker.StateDisabled || u.Snapshot.Token != nil || u.Snapshot.Recovery != tokenbroker.RecoveryAskOperator {
			t.Errorf("got %+v, want DISABLED without a token", u.Snapshot)
		}
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrDisabled) {
			t.Errorf("got %v, want ErrDisabled", err)
		}
		w.up.use(nil)
		_, err = w.b.SetDisabled(t.Context(), "acme/jobs", false)
		fatal(t, err)
		w.pass(6 * time.Minute) // the breaker may be open yet
		if got := feed.take(); len(got) == 0 || got[len(got)-1].Snapshot.State != tokenbroker.StateReady {
			t.Errorf("got %+v, want READY", got)
		}
		wantRising(t, feed.got)
	})
}

// A state that somebody looked at first still reaches those who were there before.
func TestStateSeenElsewhereReachesSubscribers(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		w.halt() // nothing but the look itself notices
		w.halt = func() {}
		w.pass(2 * time.Hour)
		w.status()
		late := w.subscribe(nil)
		late.take()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.b.RunCounting(ctx, &w.ticks) }()
		w.settle()
		_, _ = w.b.SetDisabled(t.Context(), "acme/jobs", true)
		got := feed.take()
		if len(got) == 0 || got[len(got)-1].Snapshot.Token != nil {
			t.Errorf("got %+v, want to be told that the token ended", got)
		}
		cancel()
		<-done
	})
}

func TestEncodeRunsOncePerSnapshot(t *testing.T) {
	var encoded atomic.Int64
	p := plan{traits: rotating, config: func(c *broker.Config) {
		c.Encode = func(s *broker.Snapshot) any { return encoded.Add(1) }
	}}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a")
		s := w.get()
		n := encoded.Load()
		for range 10 {
			w.subscribe(nil).take()
			w.get()
		}
		if got := encoded.Load(); got != n || s.Encoded != n {
			t.Errorf("got %d encodings for readers, want none", got-n)
		}
	})
}

// Feeds come and go while everything about their credential changes. What a reader sees must rise, end in the newest state, and
// nothing may be left behind.
func TestFeedsUnderChange(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.up.use(gives(2*time.Second, false))
		w.createMachine("a")
		until := time.Now().Add(30 * time.Second)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for time.Now().Before(until) {
					r := w.subscribe(nil)
					for range i + 1 {
						r.take()
						_ = r.feed.Reconsider(t.Context()) // it may be gone
						time.Sleep(333 * time.Millisecond)
					}
					r.take()
					wantRising(t, r.got)
					r.feed.Close()
				}
			})
		}
		wg.Go(func() {
			for n := 0; time.Now().Before(until); n++ {
				switch n % 4 {
				case 0:
					_, _ = w.b.SetDisabled(t.Context(), "acme/jobs", true)
				case 1:
					_, _ = w.b.SetDisabled(t.Context(), "acme/jobs", false)
				case 2:
					_, _ = w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
						c.Audience = time.Now().String()
						return nil
					})
				case 3:
					_ = w.b.DeleteCredential(t.Context(), "acme/jobs", 0)
					n := w.credential("a")
					n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
					_, err := w.b.CreateCredential(t.Context(), n)
					fatal(t, err)
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
		wg.Wait()
		_, _ = w.b.SetDisabled(t.Context(), "acme/jobs", false)
		r := w.subscribe(nil)
		w.pass(time.Second)
		got := r.take()
		if last := got[len(got)-1]; last.Snapshot == nil || last.Snapshot.State != tokenbroker.StateReady {
			t.Errorf("got %+v in the end, want READY", last)
		}
		r.feed.Close()
		if got := w.status().Subscribers; got != 0 {
			t.Errorf("got %d subscribers in the end, want none", got)
		}
		if got := w.b.Parked(); got != 0 {
			t.Errorf("got %d parked slots in the end, want none", got)
		}
	})
}

// A reader so slow that the token ended in its slot, and nothing but its own reading notices.
func TestSlowReaderGetsNoExpiredToken(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		stop := w.halt
		w.halt = func() {}
		w.log.refuseWith(func(ctx context.Context, ev broker.Event) error {
			if ev.Kind == broker.EventDeliver {
				time.Sleep(3 * time.Hour) // the audit log hangs
			}
			return nil
		})
		w.pass(2 * time.Hour)
		if got := feed.take(); len(got) != 0 {
			t.Errorf("got %+v, want nothing: the token ended", got[0].Snapshot)
		}
		w.log.refuseWith(nil)
		w.pass(10 * time.Hour)
		feed.take()
		wantRising(t, feed.got)
		stop()
	})
}

// A configuration that changes between the question to Admit and the subscription is asked about again: nothing is delivered of a
// variant that Admit never saw.
func TestOnlyWhatWasAdmittedIsSubscribedTo(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		changed := false
		r := &reader{t: t, feed: w.b.NewFeed(broker.FeedConfig{
			Holder: "job",
			Wake:   func() {},
			Admit: func(_ string, _ broker.Selection, v tokenbroker.Variant, _ []string) error {
				if !changed {
					changed = true
					w.widen("a", "b")
				}
				if slices.Contains(v.Scopes, "b") {
					return tokenbroker.ErrScopeNotAllowed
				}
				return nil
			},
		})}
		t.Cleanup(r.feed.Close)
		fatal(t, r.feed.Add(t.Context(), broker.Selection{Credential: "acme/jobs"}))
		if u := r.one(); !errors.Is(u.Removed, tokenbroker.ErrScopeNotAllowed) {
			t.Errorf("got %+v, want the selector refused", u)
		}
		for _, ev := range w.log.of(broker.EventDeliver) {
			if slices.Contains(ev.Variant.Scopes, "b") {
				t.Errorf("got a delivery of %v, which was never admitted", ev.Variant)
			}
		}
	})
}

// widen gives the credential other scopes.
func (w *world) widen(scopes ...string) {
	w.t.Helper()
	_, err := w.b.UpdateCredential(w.t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
		c.Scopes = scopes
		return nil
	})
	fatal(w.t, err)
}

// A policy that takes one selector away and gives another, while the audit log is down: what was taken away goes, and the
// stream ends instead of staying silent about what it can't add.
func TestReconsiderWithdrawsFirstAndFailsTheFeed(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		n := w.credential("a")
		n.Credential.Name = "acme/other"
		_, err := w.b.CreateCredential(t.Context(), n)
		fatal(t, err)
		w.settle()
		denied := "acme/other"
		r := w.subscribe(func(s broker.Selection) error {
			if s.Credential == denied {
				return tokenbroker.ErrNotFound
			}
			return nil
		}, broker.Selection{Credential: "acme/other"}, broker.Selection{Credential: "acme/jobs"})
		r.take()
		w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
			if ev.Kind == broker.EventDeliver {
				return errors.New("disk full")
			}
			return nil
		})
		denied = "acme/jobs"
		if err := r.feed.Reconsider(t.Context()); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, want ErrAuditUnavailable", err)
		}
		if got := w.status().Subscribers; got != 0 {
			t.Errorf("got %d subscribers of what was taken away, want 0", got)
		}
		if _, _, err := r.feed.Next(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v from the feed, want it ended", err)
		}
	})
}
