package broker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

var rotating = tokenbroker.Traits{Rotates: true}

func TestInvariant1CommitBeforePublish(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		first := w.get()
		feed := w.subscribe(nil)
		feed.take()
		stop := make(chan struct{})
		w.store.hook(func(_ context.Context, op string) error {
			if op == "commit" {
				<-stop
			}
			return nil
		}, nil)
		w.pass(52 * time.Minute)
		w.wantSent(2)
		if got := w.get(); got.Order != first.Order {
			t.Errorf("got %v before the commit ended, want %v still", got.Order, first.Order)
		}
		if got := feed.take(); len(got) != 0 {
			t.Errorf("got %d updates before the commit ended, want none", len(got))
		}
		close(stop)
		w.pass(time.Second)
		u := feed.one()
		tok, ok, err := w.store.Token(t.Context(), "acme/jobs", w.status().Credential.UID, u.Snapshot.Variant.Key())
		if err != nil || !ok || tok.Generation != u.Snapshot.Order.Generation || tok.AccessToken != u.Snapshot.Token.AccessToken {
			t.Errorf("got %t, %v, %v of the store, want what was published: %v", ok, err, tok.Generation, u.Snapshot.Order)
		}
	})
}

func TestInvariant1IntentBeforeSend(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		var standing *tokenbroker.Intent
		var attempt string
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			standing = w.grant().Intent
			attempt = w.log.of(broker.EventIntent)[0].Attempt
			return gives(time.Hour, true)(ctx, n, r)
		})
		w.create("a")
		w.get()
		if standing == nil || standing.Sends != 1 || standing.Attempt != attempt {
			t.Errorf("got intent %+v while sending, want that of attempt %s", standing, attempt)
		}
		if g := w.grant(); g.Intent != nil || g.Serial != 2 {
			t.Errorf("got intent %v and serial %d afterwards, want none and 2", g.Intent, g.Serial)
		}
	})
}

func TestInvariant1UnwritableStoreMeansNoExchange(t *testing.T) {
	for name, machine := range map[string]bool{"refresh_token": false, "client_credentials": true} {
		t.Run(name, func(t *testing.T) {
			run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
				if machine {
					w.createMachine("a")
				} else {
					w.create("a")
				}
				first := w.get()
				w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "prove", "begin", "commit", "abort"), nil)
				sent, begun := w.up.count(), w.log.recorded(broker.EventIntent)
				w.pass(55 * time.Minute)
				if got := w.get(); got.Token.AccessToken != first.Token.AccessToken || got.State != tokenbroker.StateDegraded {
					t.Errorf("got another token, or state %s; want the valid one, DEGRADED", got.State)
				}
				w.wantSent(sent)
				w.pass(6 * time.Minute)
				_, err := w.ask(broker.Request{})
				if !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
					t.Errorf("got %v, want ErrStoreUnavailable", err)
				}
				w.wantSent(sent)
				if n := w.log.recorded(broker.EventIntent); n != begun {
					t.Errorf("got %d records of a request that was about to be sent, want none", n-begun)
				}
				w.store.hook(nil, nil)
				w.pass(11 * time.Second) // however long it lasted
				w.get()
				w.wantState(tokenbroker.StateReady)
			})
		})
	}
}

// The crash windows of a refresh. A cut is where the process dies.
func TestInvariant1CrashWindows(t *testing.T) {
	died := errors.New("the process died here")
	cases := []struct {
		name       string
		cut        func(w *world)
		rotation   tokenbroker.Traits
		lost       bool // the successor of the refresh token is lost with the process
		wantIntent bool
	}{
		{"after intent, before send", func(w *world) {
			w.store.hook(nil, failing(died, "begin"))
		}, tokenbroker.Traits{Rotates: true, Grace: time.Minute}, false, true},
		{"after exchange, before commit", func(w *world) {
			w.store.hook(func(_ context.Context, op string) error {
				if op == "commit" {
					w.store.hook(failing(died, "commit", "abort"), nil)
					return died
				}
				return nil
			}, nil)
		}, tokenbroker.Traits{Rotates: true, Grace: time.Minute}, true, true},
		{"after commit, before publish", func(w *world) {
			w.store.hook(nil, failing(died, "commit"))
		}, rotating, false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := plan{traits: c.rotation}
			p.issuer.Grace = c.rotation.Grace
			run(t, p, func(t *testing.T, w *world) {
				w.create("a")
				first := w.get()
				w.pass(58 * time.Minute)
				c.cut(w)
				w.pass(10 * time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = w.b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}}) // it may fail or not
				w.down()
				w.store.hook(nil, nil)
				w.boot()
				w.settle()
				got := w.get()
				if got.Order.Generation <= first.Order.Generation || !w.srv.Valid(got.Token.AccessToken.Reveal()) {
					t.Errorf("got %v after %v, valid %t; want a later one that the provider takes", got.Order, first.Order, w.srv.Valid(got.Token.AccessToken.Reveal()))
				}
				w.wantState(tokenbroker.StateReady)
			})
		})
	}
}

func TestInvariant2TwoVariantsTakeTurns(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}
	p.issuer.Downscope = true
	run(t, p, func(t *testing.T, w *world) {
		w.create("a", "b")
		busy := 0
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if busy++; busy > 1 {
				t.Error("two exchanges of one refresh token at once")
			}
			time.Sleep(time.Second)
			defer func() { busy-- }()
			return w.up.Client.Exchange(ctx, r)
		})
		w.pass(2 * time.Hour)
		sent := w.up.count()
		got := make(chan *broker.Snapshot, 2)
		for _, scopes := range [][]string{{"a"}, {"b"}} {
			go func() {
				s, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: scopes}})
				if err != nil || len(s.Token.Scopes) != 1 || s.Token.Scopes[0] != scopes[0] {
					t.Errorf("asked for %v, got %v, %v", scopes, s, err)
				}
				got <- s
			}()
		}
		one, two := <-got, <-got
		if one.Token.AccessToken == two.Token.AccessToken {
			t.Error("both got the same token")
		}
		w.wantSent(sent + 2)
	})
}

// A refresh of one variant under way must not look like a lost answer to the callers of another.
func TestInvariant2VariantWaitsForAnothersExchange(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}
	p.issuer.Downscope = true
	run(t, p, func(t *testing.T, w *world) {
		w.create("a", "b")
		feed := w.subscribe(nil)
		feed.take()
		let := make(chan struct{})
		w.up.use(held(let, func(ctx context.Context, _ int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return w.up.Client.Exchange(ctx, r)
		}))
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		done := make(chan error)
		go func() {
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
			done <- err
		}()
		w.settle()
		close(let)
		if err := <-done; err != nil {
			t.Errorf("got %v, want a token after the other variant's exchange", err)
		}
	})
}

// What changes while a flight waits for another variant's exchange is seen before anything is sent.
func TestInvariant2LooksAgainBeforeSending(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world) error
		want   error
	}{
		"disabled": {func(w *world) error {
			_, err := w.b.SetDisabled(w.t.Context(), "acme/jobs", true)
			return err
		}, tokenbroker.ErrDisabled},
		"reconfigured": {func(w *world) error {
			_, err := w.b.UpdateCredential(w.t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
				c.Scopes = []string{"a", "b", "c"}
				return nil
			})
			return err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}, func(t *testing.T, w *world) {
				w.create("a", "b")
				w.pass(5 * time.Hour)
				let := make(chan struct{})
				w.up.use(held(let, gives(time.Hour, true)))
				done := make(chan error, 2)
				go func() { _, _ = w.ask(broker.Request{}); done <- nil }() // the one that holds the lock
				synctest.Wait()
				go func() {
					_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
					done <- err
				}()
				synctest.Wait()
				sent := w.up.count()
				fatal(t, c.change(w))
				close(let)
				if err := errors.Join(<-done, <-done); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if c.want != nil {
					w.wantSent(sent)
				}
			})
		})
	}
}

func TestInvariant2HerdCausesOneExchange(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.pass(3 * time.Hour)
		sent := w.up.count()
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		ctx, leave := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := w.b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}})
			first <- err
		}()
		synctest.Wait()
		const herd = 10_000
		got := make(chan error, herd)
		for range herd {
			go func() {
				_, err := w.ask(broker.Request{})
				got <- err
			}()
		}
		synctest.Wait()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v for the one who left, want its own context's error", err)
		}
		close(let)
		for range herd {
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		}
		w.get() // a late arrival
		w.wantSent(sent + 1)
	})
}

func TestInvariant3SecondSecretIsASecondAttempt(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.srv.RotateSecret("acme", "app", "s3cret", "second")
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("second")})
		fatal(t, err)
		w.get()
		feed := w.subscribe(nil)
		w.pass(time.Hour)
		if r, _ := w.up.request(w.up.count()); r.Secret.Secret.Reveal() != "s3cret" {
			t.Error("the secret that worked last did not go first")
		}
		w.srv.RotateSecret("acme", "app", "second")
		sent, intents := w.up.count(), len(w.log.of(broker.EventIntent))
		feed.take()
		w.pass(time.Hour)
		w.wantSent(sent + 2)
		if got := len(w.log.of(broker.EventIntent)) - intents; got != 2 {
			t.Errorf("got %d intents, want one of its own for each attempt", got)
		}
		for _, ev := range w.log.of(broker.EventState) {
			if ev.State == tokenbroker.StateMisconfigured {
				t.Error("called misconfigured while a second secret was to be tried")
			}
		}
		w.pass(time.Hour)
		w.wantSent(sent + 3)
		if r, _ := w.up.request(sent + 3); r.Secret.Secret.Reveal() != "second" {
			t.Error("the secret that worked last did not go first")
		}
		w.wantState(tokenbroker.StateReady)
	})
}

func TestInvariant3OneSendForOtherFailures(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("second")})
		fatal(t, err)
		w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "unauthorized_client", Sent: true}))
		w.createOnly("a")
		w.wantSent(1)
	})
}

func TestInvariant4OutageIsNeverReauthorize(t *testing.T) {
	for _, class := range []tokenbroker.Class{tokenbroker.ClassTransient, tokenbroker.ClassAmbiguous, tokenbroker.ClassThrottled,
		tokenbroker.ClassConfiguration, tokenbroker.ClassClockSkew} {
		t.Run(string(class), func(t *testing.T) {
			run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
				w.create("a")
				w.subscribe(nil)
				w.up.use(refuses(tokenbroker.Failure{Class: class, Code: "x", Sent: true}))
				for range 12 {
					w.pass(time.Hour)
					if got := w.status().Snapshot.State; got == tokenbroker.StateReauthorize {
						t.Fatalf("got %s of an outage", got)
					}
				}
				w.up.use(gives(time.Hour, true))
				w.pass(7 * time.Hour)
				w.wantState(tokenbroker.StateReady)
			})
		})
	}
}

func TestInvariant4StrikesInARow(t *testing.T) {
	dead := refuses(tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant", HTTPStatus: 400, Sent: true})
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Strikes: 3}}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.up.use(after(3, dead, gives(time.Hour, true)))
		w.pass(53 * time.Minute)
		w.wantSent(4)
		w.wantState(tokenbroker.StateReady)
		for _, ev := range w.log.of(broker.EventState) {
			if ev.State == tokenbroker.StateReauthorize {
				t.Error("condemned after two strikes of three")
			}
		}
		sent := w.up.count()
		w.up.use(dead)
		w.pass(3 * time.Hour)
		w.wantSent(sent + 3)
		w.wantState(tokenbroker.StateReauthorize)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrReauthorize) {
			t.Errorf("got %v, want ErrReauthorize", err)
		}
		w.wantSent(sent + 3) // and it is remembered
	})
}

func TestInvariant4ConsentMeanwhileIsNotCondemned(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		let := make(chan struct{})
		w.up.use(held(let, refuses(tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant", HTTPStatus: 400, Sent: true})))
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret(w.srv.SeedRefreshToken("acme", "app", "a"))})
		fatal(t, err)
		w.up.use(nil)
		close(let)
		w.pass(time.Hour)
		w.wantState(tokenbroker.StateReady)
		if g := w.grant(); g.State != tokenbroker.StateReady || g.Strikes != 0 {
			t.Errorf("got %s with %d strikes in the store, want READY with none", g.State, g.Strikes)
		}
	})
}

// The store has recorded that the grant is dead, then a consent; the broker hears of the two in the other order.
func TestInvariant4LateNewsCondemnsNothing(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		recorded, let := make(chan struct{}), make(chan struct{})
		w.store.hook(nil, func(_ context.Context, op string) error {
			if op == "abort" {
				close(recorded)
				<-let
			}
			return nil
		})
		w.up.use(failure(tokenbroker.ClassDeadGrant, "invalid_grant"))
		<-recorded
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-adopted")})
		fatal(t, err)
		w.up.use(gives(time.Hour, true))
		close(let)
		w.pass(time.Minute)
		w.wantState(tokenbroker.StateReady)
		if r, _ := w.up.request(3); r.RefreshToken.Reveal() != "rt-adopted" {
			t.Error("what was adopted was not tried")
		}
	})
}

func TestInvariant4AssertionGrantIsNeverReauthorize(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant", HTTPStatus: 400, Sent: true}))
		w.createMachine("a")
		w.wantState(tokenbroker.StateMisconfigured)
	})
}

func TestInvariant5ServedUntilExpiryLessGuard(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		first := w.get()
		feed := w.subscribe(nil)
		feed.take()
		w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "http_503", HTTPStatus: 503}))
		time.Sleep(time.Until(first.Token.Expiry.Add(-11 * time.Second)))
		w.settle()
		if got := w.get(); got.Token.AccessToken != first.Token.AccessToken || got.State != tokenbroker.StateDegraded {
			t.Errorf("got state %s, want the token, DEGRADED", got.State)
		}
		if u := feed.one(); u.Snapshot.Token == nil || u.Snapshot.State != tokenbroker.StateDegraded {
			t.Errorf("got %+v, want the token, DEGRADED", u.Snapshot)
		}
		w.pass(1001 * time.Millisecond)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrBackoff) && !errors.Is(err, tokenbroker.ErrUpstream) {
			t.Errorf("got %v inside the guard, want a refusal", err)
		}
		if u := feed.one(); u.Snapshot.Token != nil {
			t.Error("subscribers were not told that the token ended")
		}
	})
}

func TestInvariant6VariantsOwnFault(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}
	run(t, p, func(t *testing.T, w *world) {
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if len(r.Variant.Scopes) == 1 {
				return tokenbroker.ExchangeReply{Sent: time.Now()}, &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "invalid_scope", HTTPStatus: 400, Sent: true}
			}
			return gives(time.Hour, true)(ctx, n, r)
		})
		w.create("a", "b")
		narrow := broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}}
		for range 10 {
			if _, err := w.ask(narrow); !errors.Is(err, tokenbroker.ErrScopeNotAllowed) {
				t.Fatalf("got %v, want ErrScopeNotAllowed", err)
			}
		}
		w.wantSent(2) // the refusal is remembered
		w.wantState(tokenbroker.StateReady)
		w.get()
		w.pass(11 * time.Minute)
		_, _ = w.ask(narrow) // refused once more
		w.wantSent(3)
	})
}

func TestInvariant7NewestWins(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		slow, fast := w.subscribe(nil), w.subscribe(nil)
		for range 3 {
			w.pass(time.Hour)
			fast.take()
		}
		newest := w.get()
		if u := slow.one(); u.Snapshot.Order != newest.Order {
			t.Errorf("got %v, want only the newest, %v", u.Snapshot.Order, newest.Order)
		}
		if len(fast.got) < 3 {
			t.Errorf("got %d updates at the reader that reads, want each", len(fast.got))
		}
		wantRising(t, fast.got)
	})
}

// wantRising checks that the order of updates strictly rises.
func wantRising(t *testing.T, got []broker.Update) {
	t.Helper()
	var last tokenbroker.Order
	for _, u := range got {
		if u.Snapshot == nil {
			continue
		}
		if u.Snapshot.Order.Compare(last) <= 0 {
			t.Errorf("got %v after %v, want it to rise", u.Snapshot.Order, last)
		}
		last = u.Snapshot.Order
	}
}

// The record of an older state takes longer than that of a newer one.
func TestInvariant7OlderStateComesLate(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		let := make(chan struct{})
		w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
			if ev.Kind == broker.EventDeliver && ev.State == tokenbroker.StateDisabled {
				<-let
			}
			return nil
		})
		done := make(chan error)
		go func() {
			_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
			done <- err
		}()
		synctest.Wait()
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", false)
		fatal(t, err)
		close(let)
		fatal(t, <-done)
		if u := feed.one(); u.Snapshot.State != tokenbroker.StateReady {
			t.Errorf("got %s, want the newest state", u.Snapshot.State)
		}
	})
}

func TestInvariant8GenerationsRise(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		one := w.get()
		w.restart()
		two := w.get()
		if two.Order.Generation != one.Order.Generation || two.Order.Compare(one.Order) <= 0 {
			t.Errorf("got %v after %v over a restart, want the same generation under a higher revision", two.Order, one.Order)
		}
		feed := w.subscribe(nil)
		feed.take()
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
		if u := feed.one(); !errors.Is(u.Removed, tokenbroker.ErrNotFound) {
			t.Errorf("got %+v, want a removal", u)
		}
		w.createOnly("a")
		three := w.get()
		if three.Order.Generation <= two.Order.Generation {
			t.Errorf("got %v after %v over delete and create, want a higher generation", three.Order, two.Order)
		}
		feed.take()
		w.pass(2 * time.Hour)
		feed.take()
		wantRising(t, feed.got)
	})
}

func TestInvariant9NoAuditRecordNoToken(t *testing.T) {
	full := errors.New("no space left")
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
			if ev.Kind == broker.EventDeliver {
				return full
			}
			return nil
		})
		w.pass(time.Hour)
		if _, _, err := feed.feed.Next(); !errors.Is(err, tokenbroker.ErrAuditUnavailable) || !errors.Is(err, full) {
			t.Errorf("got %v of a feed whose delivery could not be recorded, want ErrAuditUnavailable", err)
		}
		sent := w.up.count()
		w.log.refuseWith(func(context.Context, broker.Event) error { return full })
		w.pass(time.Hour)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v, want ErrAuditUnavailable", err)
		}
		w.wantSent(sent)
		late := w.b.NewFeed(broker.FeedConfig{Holder: "job", Admit: func(string, broker.Selection, tokenbroker.Variant, []string) error { return nil }, Wake: func() {}})
		defer late.Close()
		if err := late.Add(t.Context(), broker.Selection{Credential: "acme/jobs"}); !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v for a new subscriber, want ErrAuditUnavailable", err)
		}
	})
}
