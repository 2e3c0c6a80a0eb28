package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func failure(class tokenbroker.Class, code string) answer {
	return refuses(tokenbroker.Failure{Class: class, Code: code, Sent: class != tokenbroker.ClassTransient})
}

// Whatever fails, a subscribed credential with callers who ask every second must not hammer the provider, nor keep the schedule busy.
func TestNoStorm(t *testing.T) {
	same := tokenbroker.NewSecret("the same")
	cases := []struct {
		name   string
		traits tokenbroker.Traits
		answer answer
		most   int // exchanges in an hour, after the token was due
	}{
		{"transient", rotating, failure(tokenbroker.ClassTransient, "http_503"), 40},
		{"throttled without a time", rotating, failure(tokenbroker.ClassThrottled, "http_429"), 40},
		{"throttled for 10 minutes", rotating, refuses(tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "http_429", RetryAfter: 10 * time.Minute}), 7},
		{"ambiguous, strict", rotating, failure(tokenbroker.ClassAmbiguous, "timeout"), 40},
		{"ambiguous, grace", tokenbroker.Traits{Rotates: true, Grace: time.Minute}, failure(tokenbroker.ClassAmbiguous, "timeout"), 40},
		{"ambiguous, no rotation", tokenbroker.Traits{}, failure(tokenbroker.ClassAmbiguous, "timeout"), 40},
		{"configuration", rotating, failure(tokenbroker.ClassConfiguration, "unauthorized_client"), 5},
		{"clock skew", rotating, failure(tokenbroker.ClassClockSkew, "clock"), 5},
		{"scope", rotating, failure(tokenbroker.ClassConfiguration, "invalid_scope"), 7},
		{"dead grant", rotating, failure(tokenbroker.ClassDeadGrant, "invalid_grant"), 1},
		{"dead grant, many strikes", tokenbroker.Traits{Rotates: true, Strikes: 1000}, failure(tokenbroker.ClassDeadGrant, "invalid_grant"), 40},
		{"no failure at all", rotating, func(context.Context, int, tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return tokenbroker.ExchangeReply{}, errors.New("not a failure")
		}, 40},
		{"neither token nor failure", rotating, func(context.Context, int, tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return tokenbroker.ExchangeReply{}, nil
		}, 40},
		{"a refresh token alone", rotating, func(_ context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, _ := gives(time.Hour, true)(t.Context(), n, r)
			reply.Token = nil
			return reply, &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "no_access_token", Sent: true}
		}, 40},
		{"a token that has expired", rotating, gives(-time.Second, true), 40},
		{"a token without a life", rotating, gives(0, true), 40},
		{"the same token always", tokenbroker.Traits{}, func(_ context.Context, _ int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			tok := fresh("", time.Minute, r.Variant.Scopes)
			tok.AccessToken = same
			return tokenbroker.ExchangeReply{Token: tok, Sent: time.Now()}, nil
		}, 130},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			run(t, plan{traits: c.traits}, func(t *testing.T, w *world) {
				w.create("a")
				w.subscribe(nil)
				w.up.use(c.answer)
				w.pass(59*time.Minute + 55*time.Second)
				w.poll()
				sent, ticks := w.up.count(), w.ticks.Load()
				for range 720 {
					time.Sleep(5 * time.Second)
					w.poll()
				}
				w.settle()
				if got := w.up.count() - sent; got > c.most {
					t.Errorf("got %d exchanges in an hour, want at most %d", got, c.most)
				}
				if got := w.ticks.Load() - ticks; got > int64(3*c.most+20) {
					t.Errorf("got %d ticks of the schedule in an hour", got)
				}
				if got := w.b.Scheduled(); got > 2 {
					t.Errorf("got %d items on the schedule of one variant, want at most 2", got)
				}
			})
		})
	}
}

// poll asks and does not care for the answer, but that there is one.
func (w *world) poll() {
	w.t.Helper()
	s, err := w.ask(broker.Request{})
	if (err == nil) != (s != nil && s.Token != nil) {
		w.t.Fatalf("got %v and %v, want a token or an error", s, err)
	}
	if s != nil && !time.Now().Before(s.Token.Expiry) {
		w.t.Fatalf("got a token that expired at %s", s.Token.Expiry)
	}
}

// While the answer to a refresh is lost in the grace window, other variants of the credential are fresh: they have nothing to do.
func TestLostAnswerKeepsNoOtherVariantBusy(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true, Grace: 10 * time.Minute, Floor: time.Second}}
	run(t, p, func(t *testing.T, w *world) {
		w.up.use(gives(time.Hour, true))
		w.create("a", "b")
		w.subscribe(nil, broker.Selection{Credential: "acme/jobs"}, broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}})
		w.pass(time.Second)
		w.wantSent(2)
		w.pass(5 * time.Second)
		w.up.use(failure(tokenbroker.ClassAmbiguous, "timeout"))
		_, _ = w.ask(broker.Request{MinValidity: 2 * time.Hour})
		sent, ticks := w.up.count(), w.ticks.Load()
		w.pass(time.Minute)
		if got := w.ticks.Load() - ticks; got > 60 {
			t.Errorf("got %d ticks in a minute", got)
		}
		if got := w.up.count() - sent; got < 1 || got > 30 {
			t.Errorf("got %d replays in a minute of the grace, want a few", got)
		}
		w.up.use(gives(time.Hour, true))
		w.pass(3 * time.Minute)
		w.wantState(tokenbroker.StateReady)
		sent = w.up.count()
		w.pass(10 * time.Minute)
		w.wantSent(sent) // both are fresh
	})
}

func TestLostAnswerByTraits(t *testing.T) {
	lost := failure(tokenbroker.ClassAmbiguous, "timeout")
	t.Run("no rotation is tried again soon", func(t *testing.T) {
		run(t, plan{}, func(t *testing.T, w *world) {
			w.create("a")
			w.subscribe(nil)
			w.up.use(after(2, lost, gives(time.Hour, false)))
			w.pass(53 * time.Minute)
			w.wantSent(3)
			w.wantState(tokenbroker.StateReady)
		})
	})
	t.Run("in the grace the same token is sent again at once", func(t *testing.T) {
		run(t, plan{traits: tokenbroker.Traits{Rotates: true, Grace: time.Minute}}, func(t *testing.T, w *world) {
			w.create("a")
			w.subscribe(nil)
			w.up.use(after(2, lost, gives(time.Hour, true)))
			for w.up.count() < 2 {
				w.pass(time.Second)
			}
			w.pass(time.Second)
			w.wantSent(3)
			w.wantState(tokenbroker.StateReady)
			two, _ := w.up.request(2)
			if three, _ := w.up.request(3); three.RefreshToken != two.RefreshToken {
				t.Error("another refresh token was sent")
			}
		})
	})
	t.Run("in the grace an outage is outlived to its last minute, breaker or not", func(t *testing.T) {
		run(t, plan{traits: tokenbroker.Traits{Rotates: true, Grace: 30 * time.Minute}}, func(t *testing.T, w *world) {
			w.create("a")
			w.subscribe(nil)
			w.up.use(after(2, lost, failure(tokenbroker.ClassTransient, "connect_failed")))
			for w.up.count() < 2 {
				w.pass(time.Second)
			}
			w.pass(28 * time.Minute)
			w.wantState(tokenbroker.StateUncertain)
			if got := w.up.count(); got > 60 {
				t.Errorf("got %d requests in the grace, want a few", got)
			}
			w.up.use(gives(time.Hour, true))
			w.pass(time.Minute)
			w.wantState(tokenbroker.StateReady)
		})
	})
	t.Run("a strict provider is probed just before the token ends", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.create("a")
			first := w.get()
			w.subscribe(nil)
			w.up.use(after(2, lost, failure(tokenbroker.ClassDeadGrant, "invalid_grant")))
			w.pass(55 * time.Minute)
			w.wantSent(2)
			w.wantState(tokenbroker.StateUncertain)
			if got := w.get(); got.Token.AccessToken != first.Token.AccessToken || got.State != tokenbroker.StateUncertain {
				t.Errorf("got state %s, want the token that is still valid, UNCERTAIN", got.State)
			}
			w.pass(5 * time.Minute)
			w.wantSent(3)
			if _, at := w.up.request(3); first.Token.Expiry.Sub(at) > time.Minute {
				t.Errorf("probed %s before the end of the token, want just before", first.Token.Expiry.Sub(at))
			}
			w.wantState(tokenbroker.StateReauthorize)
		})
	})
	t.Run("a probe that was not sent settles nothing", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.create("a")
			w.subscribe(nil)
			w.up.use(after(2, lost, failure(tokenbroker.ClassTransient, "refused")))
			w.pass(61 * time.Minute)
			w.wantState(tokenbroker.StateUncertain)
			if g := w.grant(); g.Intent == nil {
				t.Error("the intent of a token that may be spent was cleared by a request that was not sent")
			}
			w.up.use(gives(time.Hour, true))
			w.pass(6 * time.Minute)
			w.wantState(tokenbroker.StateReady)
		})
	})
	t.Run("a clock that went back counts as grace passed", func(t *testing.T) {
		if broker.InGrace(tokenbroker.Traits{Grace: time.Hour}, noon, noon.Add(-time.Minute)) {
			t.Error("got in grace, want passed")
		}
	})
}

func TestLostAnswerIsRecoveredAtStart(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Grace: time.Hour}}, func(t *testing.T, w *world) {
		w.create("a")
		let := make(chan struct{})
		w.up.use(held(let, nil))
		w.subscribe(nil)
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		w.down() // cuts the exchange off
		if w.grant().Intent == nil {
			t.Fatal("got no intent after a cut")
		}
		w.up.use(gives(time.Hour, true))
		w.boot()
		w.pass(time.Second)
		w.wantSent(3) // nobody asked
		w.wantState(tokenbroker.StateReady)
	})
}

// A store that can't be read at start must not be the end of the recovery.
func TestRecoveryAtStartSurvivesAStoreThatFails(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Grace: time.Hour}}, func(t *testing.T, w *world) {
		w.create("a")
		w.up.use(held(nil, nil))
		w.subscribe(nil)
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		w.down()
		w.plan.still = true
		w.boot()
		w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "load"), nil)
		w.up.use(gives(time.Hour, true))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.b.Run(ctx) }()
		w.pass(10 * time.Second)
		w.store.hook(nil, nil)
		w.pass(2 * time.Minute)
		w.wantSent(3)
		cancel()
		<-done
	})
}

func TestConfigurationIsProbedSlowlyAndAtOnceAfterAChange(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.srv.RotateSecret("acme", "app", "another")
		w.pass(61 * time.Minute)
		w.wantState(tokenbroker.StateMisconfigured)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrMisconfigured) {
			t.Errorf("got %v, want ErrMisconfigured", err)
		}
		sent := w.up.count()
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("another")})
		fatal(t, err)
		w.settle()
		if w.up.count() == sent {
			t.Error("a changed client was not tried at once")
		}
		w.wantState(tokenbroker.StateReady)
	})
}

func TestAnOutageAfterAFixIsNotProbedSlowly(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.up.use(failure(tokenbroker.ClassConfiguration, "invalid_client"))
		w.pass(61 * time.Minute)
		w.up.use(failure(tokenbroker.ClassTransient, "http_503"))
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("another")})
		fatal(t, err)
		w.pass(time.Minute)
		w.up.use(gives(time.Hour, true))
		w.pass(6 * time.Minute)
		w.wantState(tokenbroker.StateReady)
	})
}

func TestThrottlingPausesTheWholeGate(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a", "b")
		w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "http_429", HTTPStatus: 429, RetryAfter: 5 * time.Minute, Sent: true}))
		var p *tokenbroker.Problem
		for _, scope := range []string{"a", "b"} {
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{scope}}})
			if !errors.Is(err, tokenbroker.ErrThrottled) || !errors.As(err, &p) || p.RetryAfter < 5*time.Minute-time.Second {
				t.Errorf("got %v, want ErrThrottled with the provider's time", err)
			}
		}
		w.wantSent(2) // one of them, and the first of all
		w.up.use(gives(time.Hour, true))
		w.pass(6 * time.Minute)
		w.wantSent(4) // both are in use
	})
}

func TestReceivedRefreshTokenIsNeverDropped(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.store.hook(failing(errors.New("disk full"), "commit"), nil)
		w.pass(55 * time.Minute)
		w.wantSent(2)
		w.pass(2 * time.Hour)
		w.wantSent(2)
		if len(w.log.of(broker.EventCommitErr)) == 0 {
			t.Error("nobody was told that a refresh token can't be stored")
		}
		w.store.hook(nil, nil)
		w.pass(2 * time.Minute)
		if g := w.grant(); g.Serial < 3 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v; want the token that was received stored", g.Serial, g.Intent)
		}
		w.wantState(tokenbroker.StateReady)
	})
}

// A shutdown while the result is being committed does not lose it.
func TestCloseLosesNoResult(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		reached := make(chan struct{})
		w.store.hook(func(ctx context.Context, op string) error {
			if op == "commit" {
				close(reached)
				time.Sleep(time.Second)
				return ctx.Err()
			}
			return nil
		}, nil)
		<-reached
		w.down()
		if g := w.grant(); g.Serial != 3 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v; want the result committed", g.Serial, g.Intent)
		}
		w.boot()
	})
}

// A refusal that could not be recorded leaves an intent in the store. It must not be taken for a lost answer afterwards.
func TestUnrecordedRefusalIsNotUncertain(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.up.use(after(2, failure(tokenbroker.ClassThrottled, "http_429"), gives(time.Hour, true)))
		w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "abort"), nil)
		for w.up.count() < 2 {
			w.pass(time.Second)
		}
		w.store.hook(nil, nil)
		w.pass(time.Minute)
		w.wantSent(3)
		w.wantState(tokenbroker.StateReady)
	})
}

func TestRefreshTokenWithoutAccessTokenIsKept(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		alone := func(_ context.Context, _ int, _ tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			return tokenbroker.ExchangeReply{RefreshToken: tokenbroker.NewSecret("rt-kept"), Sent: time.Now()},
				&tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "truncated", Sent: true}
		}
		w.up.use(after(1, alone, gives(time.Hour, true)))
		w.create("a")
		if g := w.grant(); g.RefreshToken.Reveal() != "rt-kept" || g.Intent != nil || g.State == tokenbroker.StateUncertain {
			t.Errorf("got serial %d, intent %v, state %s; want the new refresh token and nothing uncertain", g.Serial, g.Intent, g.State)
		}
		w.pass(2 * time.Second)
		if r, _ := w.up.request(2); r.RefreshToken.Reveal() != "rt-kept" {
			t.Error("the next exchange did not send the new refresh token")
		}
		w.wantState(tokenbroker.StateReady)
	})
}

func TestHangingUpstreamIsCutOff(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.up.use(held(nil, nil))
		w.create("a")
		w.pass(31 * time.Second)
		w.wantState(tokenbroker.StateUncertain)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}}); err == nil {
			t.Error("got no error")
		}
	})
}

// What hangs, hangs alone: tokens that are valid are served, and callers leave when they want.
func TestWhatHangsHangsAlone(t *testing.T) {
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, spoil := range map[string]func(w *world){
		"audit": func(w *world) {
			w.log.refuseWith(func(ctx context.Context, _ broker.Event) error { return hang(ctx) })
		},
		"store":    func(w *world) { w.store.hook(func(ctx context.Context, _ string) error { return hang(ctx) }, nil) },
		"upstream": func(w *world) { w.up.use(held(nil, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
				w.create("a")
				first := w.get()
				spoil(w)
				w.pass(59 * time.Minute)
				if got := w.get(); got.Token.AccessToken != first.Token.AccessToken {
					t.Error("got another token, want the valid one")
				}
				w.pass(2 * time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_, err := w.b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}})
				if err == nil || time.Since(began) > time.Second {
					t.Errorf("got %v after %s, want an error when the caller's time is over", err, time.Since(began))
				}
			})
		})
	}
}

func TestTamperedRecordIsQuarantined(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.restart()
		w.store.hook(failing(tokenbroker.ErrTampered, "load"), nil)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrQuarantined) {
			t.Errorf("got %v, want ErrQuarantined", err)
		}
		feed := w.subscribe(nil, broker.Selection{Credential: "acme/jobs"}, broker.Selection{Credential: "acme/other"})
		if got := feed.take(); len(got) != 2 || !errors.Is(got[0].Removed, tokenbroker.ErrQuarantined) {
			t.Errorf("got %+v, want one selector refused and the other going on", got)
		}
		list, _, err := w.b.Credentials(t.Context(), "", 10, func(string) bool { return true })
		if err != nil || len(list) != 1 || list[0].Snapshot.State != tokenbroker.StateQuarantined {
			t.Errorf("got %+v, %v; want it listed as QUARANTINED", list, err)
		}
		if len(w.log.of(broker.EventTampered)) == 0 {
			t.Error("nobody was told")
		}
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0)) // the way out
	})
}

// A life longer than what the clock agrees with is cut to what the pessimistic clock says.
func TestTokenFromTheFuture(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.up.use(func(_ context.Context, _ int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			tok := fresh("early", time.Hour, r.Variant.Scopes)
			tok.Obtained, tok.Expiry = tok.Obtained.Add(10*time.Hour), tok.Expiry.Add(10*time.Hour)
			return tokenbroker.ExchangeReply{Token: tok, RefreshToken: tokenbroker.NewSecret(time.Now().String()), Sent: time.Now()}, nil
		})
		w.create("a")
		w.get()
		w.restart()
		w.get()
		sent := w.up.count()
		w.pass(time.Hour)
		w.get()
		w.wantSent(sent + 1)
	})
}

func TestAFailedExchangeSaysWhenItIsTriedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		failure     tokenbroker.Failure
		least, most time.Duration // 0 = never
	}{
		"transient":  {tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "http_503"}, time.Second / 2, time.Second},
		"throttled":  {tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "http_429", RetryAfter: 5 * time.Minute}, 5 * time.Minute, 6 * time.Minute},
		"dead grant": {tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant"}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, plan{traits: rotating, answer: refuses(tc.failure)}, func(t *testing.T, w *world) {
				w.create()
				_, _ = w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs"}}) // fails
				all := w.log.of(broker.EventExchange)
				if len(all) == 0 {
					t.Fatal("there was no exchange")
				}
				next := all[len(all)-1].Next
				if got := time.Until(next); tc.most == 0 && !next.IsZero() || tc.most > 0 && (got < tc.least || got > tc.most) {
					t.Errorf("got in %s (%s), want in %s to %s", got, next, tc.least, tc.most)
				}
			})
		})
	}
}
