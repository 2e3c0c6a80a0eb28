package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func TestSubscribedCredentialIsNeverForgotten(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		for i := range 100 {
			w.pass(time.Hour)
			var newest *broker.Snapshot
			for _, u := range feed.take() {
				newest = u.Snapshot
			}
			if newest == nil || !w.srv.Valid(newest.Token.AccessToken.Reveal()) {
				t.Fatalf("hour %d: subscribers hold no valid token", i)
			}
		}
		wantRising(t, feed.got)
	})
}

func TestUnusedCredentialIsNotRefreshed(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.get()
		w.pass(24 * time.Hour)
		sent := w.up.count()
		if sent > 4 {
			t.Errorf("got %d exchanges for one read, want those of two lives", sent)
		}
		ticks := w.ticks.Load()
		w.pass(48 * time.Hour)
		w.wantSent(sent)
		if got := w.ticks.Load() - ticks; got > 0 {
			t.Errorf("got %d ticks for a credential nobody uses", got)
		}
		w.get() // and it comes back
		w.pass(55 * time.Minute)
		w.wantSent(sent + 2)
	})
}

func TestRefreshTokenIsExercised(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, IdleLife: 10 * 24 * time.Hour}}
	p.issuer.RefreshLife = 10 * 24 * time.Hour
	run(t, p, func(t *testing.T, w *world) {
		w.create("a")
		w.pass(9 * 24 * time.Hour)
		w.restart()
		w.pass(60 * 24 * time.Hour)
		w.get()
		w.wantState(tokenbroker.StateReady)
		if got := w.up.count(); got < 7 || got > 14 {
			t.Errorf("got %d exchanges in 69 days of no use, want one in eight days or so", got)
		}
		// Disabled for a while, then on again: still looked after.
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
		fatal(t, err)
		w.pass(24 * time.Hour)
		_, err = w.b.SetDisabled(t.Context(), "acme/jobs", false)
		fatal(t, err)
		w.pass(30 * 24 * time.Hour)
		w.get()
		w.wantState(tokenbroker.StateReady)
	})
}

func TestTheEndOfARefreshTokenIsWarnedOfInTime(t *testing.T) {
	day := 24 * time.Hour
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, AbsoluteLife: 90 * day}}, func(t *testing.T, w *world) {
		w.create("a")
		for _, c := range []struct {
			after time.Duration
			want  int // warnings so far
		}{{59 * day, 0}, {2 * day, 1}, {21 * day, 1}, {2 * day, 2}, {5*day + 12*time.Hour, 3}} {
			w.pass(c.after)
			if got := w.log.of(broker.EventExpiring); len(got) != c.want {
				t.Fatalf("after another %v: got %d warnings, want %d", c.after, len(got), c.want)
			}
		}
		ev := w.log.of(broker.EventExpiring)[2]
		if left := time.Until(ev.Expiry); ev.Credential != "acme/jobs" || left <= 0 || left > day {
			t.Errorf("got %q, %v left, want acme/jobs with less than a day", ev.Credential, left)
		}
		w.restart() // who starts the broker is told at once
		w.pass(time.Minute)
		if got := len(w.log.of(broker.EventExpiring)); got != 4 {
			t.Errorf("after a restart: got %d warnings, want 4", got)
		}
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret(w.srv.SeedRefreshToken("acme", "app", "a"))})
		fatal(t, err)
		w.pass(61 * day) // a new consent, and a new count
		if got := len(w.log.of(broker.EventExpiring)); got != 5 {
			t.Errorf("after a new consent: got %d warnings, want 5", got)
		}
	})
}

func TestAnEndThatEachUseMovesIsNotWarnedOf(t *testing.T) {
	day := 24 * time.Hour
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.up.use(func(_ context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return tokenbroker.ExchangeReply{Token: fresh(fmt.Sprint("token-", n), time.Hour, r.Variant.Scopes), Sent: time.Now(),
				RefreshToken: tokenbroker.NewSecret(fmt.Sprint("refresh-", n)), RefreshEnd: time.Now().Add(14 * day)}, nil
		})
		w.create("a")
		w.pass(100 * day) // nobody uses it; it is exercised at four fifths of its life
		if sent := w.up.count(); sent < 8 || sent > 12 {
			t.Errorf("got %d exchanges in 100 days of no use, want one in eleven days or so", sent)
		}
		if got := w.log.of(broker.EventExpiring); len(got) != 0 {
			t.Errorf("got %d warnings, want none", len(got))
		}
	})
}

// TestAnEndThatMovesALittleWithEachUse is about a provider whose refresh tokens live for half an hour from each use, and are used every
// half minute: seconds that are lost in rounding each time must not make it look like an end that stays.
func TestAnEndThatMovesALittleWithEachUse(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.up.use(func(_ context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return tokenbroker.ExchangeReply{Token: fresh(fmt.Sprint("token-", n), time.Minute, r.Variant.Scopes), Sent: time.Now(),
				RefreshToken: tokenbroker.NewSecret(fmt.Sprint("refresh-", n)), RefreshEnd: time.Now().Add(30 * time.Minute)}, nil
		})
		w.create("a")
		feed := w.subscribe(nil)
		for range 24 * 60 {
			w.pass(time.Minute)
			feed.take()
		}
		if ago := time.Since(w.grant().Prolonged); ago > 5*time.Minute {
			t.Errorf("its end is said to have moved %v ago, want just now", ago)
		}
		feed.feed.Close()
		for range 5 * 60 {
			w.pass(time.Minute)
			if left := time.Until(w.grant().RefreshEnd); left < 0 {
				t.Fatalf("unused, it died %v ago", -left)
			}
		}
		if got := w.log.of(broker.EventExpiring); len(got) != 0 {
			t.Errorf("got %d warnings, want none", len(got))
		}
	})
}

func TestADisabledCredentialIsWarnedOfAndNotUsed(t *testing.T) {
	day := 24 * time.Hour
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, AbsoluteLife: 90 * day, IdleLife: 50 * day}}, func(t *testing.T, w *world) {
		w.create("a")
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
		fatal(t, err)
		sent := w.up.count()
		w.pass(44 * day) // unused, it dies in 6
		if got := w.log.of(broker.EventExpiring); len(got) != 1 {
			t.Errorf("got %d warnings, want 1", len(got))
		}
		w.wantSent(sent)
	})
}

func TestShortLives(t *testing.T) {
	for life := time.Second; life <= 5*time.Second; life += time.Second {
		t.Run(life.String(), func(t *testing.T) {
			run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
				w.up.use(gives(life, true))
				w.create("a")
				feed := w.subscribe(nil)
				sent := w.up.count()
				for range 600 {
					time.Sleep(100 * time.Millisecond)
					if s := w.get(); !time.Now().Before(s.Token.Expiry) {
						t.Fatal("got an expired token")
					}
				}
				feed.take()
				if got, most := w.up.count()-sent, int(time.Minute/(life/2)); got > most+1 {
					t.Errorf("got %d exchanges in a minute, want at most two in a life: %d", got, most)
				}
			})
		})
	}
}

func TestSameTokenReturned(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		var kept atomic.Pointer[tokenbroker.Token]
		kept.Store(fresh("kept", time.Hour, []string{"a"}))
		w.up.use(func(context.Context, int, tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			tok := *kept.Load()
			return tokenbroker.ExchangeReply{Token: &tok, Sent: time.Now()}, nil
		})
		w.create("a")
		first := w.get()
		feed := w.subscribe(nil)
		feed.take()
		delivered := len(w.log.of(broker.EventDeliver))
		w.pass(57 * time.Minute)
		if got := w.up.count(); got < 2 || got > 6 {
			t.Errorf("got %d exchanges, want a few", got)
		}
		if got := w.get(); got != first {
			t.Errorf("got %v, want the very snapshot of before, %v", got.Order, first.Order)
		}
		if got := feed.take(); len(got) != 0 {
			t.Errorf("got %d updates, want none: nothing changed", len(got))
		}
		if got := len(w.log.of(broker.EventDeliver)) - delivered; got != 0 {
			t.Errorf("got %d records of a delivery that was none", got)
		}
		kept.Store(fresh("kept", time.Hour, []string{"a"})) // the provider prolonged it
		w.pass(2 * time.Minute)
		u := feed.one()
		if u.Snapshot.Order.Generation != first.Order.Generation || u.Snapshot.Order.Revision <= first.Order.Revision {
			t.Errorf("got %v after %v, want the same generation and a higher revision", u.Snapshot.Order, first.Order)
		}
	})
}

func TestVariantsAreBoundedAndEvicted(t *testing.T) {
	few := func(c *broker.Config) { c.MaxVariants = 3 }
	run(t, plan{config: few}, func(t *testing.T, w *world) {
		w.up.use(gives(time.Hour, false))
		w.createMachine("a")
		at := func(i int) broker.Request {
			return broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Audience: fmt.Sprint("https://", i)}}
		}
		for i := range 2 {
			_, err := w.ask(at(i))
			fatal(t, err)
		}
		if _, err := w.ask(at(2)); !errors.Is(err, tokenbroker.ErrTooMany) {
			t.Errorf("got %v for a fourth variant, want ErrTooMany", err)
		}
		w.pass(5 * time.Hour) // nobody uses them any more
		for i := 2; i < 4; i++ {
			_, err := w.ask(at(i))
			fatal(t, err)
		}
		w.get() // the credential's own always has a place
		if got := w.status().Variants; got != 3 {
			t.Errorf("got %d variants, want 3", got)
		}
		if got := w.b.Scheduled(); got > 4 {
			t.Errorf("got %d items on the schedule", got)
		}
	})
}

func TestOneLiveTokenIsOneVariant(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true, LiveTokens: 1}}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a", "b")
		w.restart() // so that the credential's own variant is not in memory
		_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
		if !errors.Is(err, tokenbroker.ErrTooMany) {
			t.Errorf("got %v, want ErrTooMany: its token would end the other", err)
		}
		w.get()
	})
}

func TestSelectionsBeyondTheGrant(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a", "b")
		for name, s := range map[string]broker.Selection{
			"more scopes":              {Scopes: []string{"c"}},
			"fewer, not downscoping":   {Scopes: []string{"a"}},
			"subject the grant has no": {Subject: "someone"},
		} {
			s.Credential = "acme/jobs"
			if _, err := w.ask(broker.Request{Selection: s}); !errors.Is(err, tokenbroker.ErrScopeNotAllowed) {
				t.Errorf("%s: got %v, want ErrScopeNotAllowed", name, err)
			}
		}
		s, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"b", "a"}}})
		if err != nil || s != w.get() {
			t.Errorf("got %v, %v; want the credential's own variant for its own scopes in another order", s, err)
		}
		w.wantSent(1)
	})
}

func TestDrain(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		s := w.get()
		w.subscribe(nil)
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.halt() // Run's context ends
		}()
		w.settle()
		select {
		case <-done:
			t.Error("Run returned while an exchange was in flight")
		default:
		}
		close(let)
		<-done
		if g := w.grant(); g.Serial != 3 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v; want the exchange in flight committed", g.Serial, g.Intent)
		}
		if got := w.get(); got.Order.Generation <= s.Order.Generation {
			t.Errorf("got %v, want the new token served while draining", got.Order)
		}
		w.pass(2 * time.Hour)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrDraining) {
			t.Errorf("got %v, want ErrDraining", err)
		}
		w.halt = func() {}
	})
}

func TestCallersGoBeforeBackground(t *testing.T) {
	slow := func(c *broker.Config) {
		c.Limits = func(string) broker.Limit { return broker.Limit{PerSecond: 0.1, Burst: 1} }
	}
	run(t, plan{config: slow}, func(t *testing.T, w *world) {
		w.up.use(gives(2*time.Hour, false))
		w.client()
		for i := range 10 {
			n := w.credential("a")
			n.Credential.Name = fmt.Sprint("acme/", i)
			n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
		}
		began := time.Now()
		_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/9"}})
		if took := time.Since(began); err != nil || took > 11*time.Second {
			t.Errorf("got %v after %s, want the next turn, before the background", err, took)
		}
		w.pass(2 * time.Minute)
		w.wantSent(10)
	})
}

func TestBreaker(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.up.use(gives(time.Hour, false))
		w.client()
		const many = 50
		for i := range many {
			n := w.credential("a")
			n.Credential.Name = fmt.Sprint("acme/", i)
			n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
			w.subscribe(nil, broker.Selection{Credential: n.Credential.Name})
		}
		w.settle()
		w.up.use(failure(tokenbroker.ClassTransient, "http_503"))
		w.pass(time.Hour)
		sent := w.up.count()
		w.pass(time.Hour)
		if got := w.up.count() - sent; got > 60 {
			t.Errorf("got %d exchanges in an hour of outage of %d credentials, want about one trial at a time", got, many)
		}
		w.up.use(gives(time.Hour, false))
		for sent = w.up.count(); w.up.count() == sent; {
			w.pass(time.Second)
		}
		w.pass(5 * time.Second) // the rest follows at once, and is spread
		for i := range many {
			if s, err := w.ask(broker.Request{Selection: broker.Selection{Credential: fmt.Sprint("acme/", i)}}); err != nil || s.State != tokenbroker.StateReady {
				t.Errorf("got %v after the outage, want READY", err)
			}
		}
		if got := w.b.Gates(); got != 1 {
			t.Errorf("got %d gates, want 1", got)
		}
	})
}

func TestBreakerLetsOneTry(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.up.use(failure(tokenbroker.ClassTransient, "http_503"))
		w.client()
		for i := range 20 {
			n := w.credential("a")
			n.Credential.Name = fmt.Sprint("acme/", i)
			n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
			w.subscribe(nil, broker.Selection{Credential: n.Credential.Name})
		}
		w.settle()
		var busy, most atomic.Int64
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			most.Store(max(most.Load(), busy.Add(1)))
			defer busy.Add(-1)
			time.Sleep(10 * time.Second)
			return failure(tokenbroker.ClassTransient, "http_503")(ctx, n, r)
		})
		w.pass(time.Hour)
		if got := most.Load(); got != 1 {
			t.Errorf("got %d trials at once, want 1", got)
		}
	})
}

func TestCloseFreesWhoWaitsForATurn(t *testing.T) {
	slow := func(c *broker.Config) {
		c.Limits = func(string) broker.Limit { return broker.Limit{PerSecond: 0.001, Burst: 1} }
	}
	run(t, plan{config: slow}, func(t *testing.T, w *world) {
		w.up.use(gives(time.Minute, false))
		w.createMachine("a")
		w.pass(2 * time.Minute)
		got := make(chan error)
		go func() {
			_, err := w.ask(broker.Request{})
			got <- err
		}()
		w.settle()
		w.down()
		if err := <-got; !errors.Is(err, tokenbroker.ErrDraining) {
			t.Errorf("got %v, want ErrDraining", err)
		}
		w.boot()
	})
}
