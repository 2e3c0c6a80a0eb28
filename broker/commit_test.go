package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// stuck is a world whose second exchange brought a refresh token that the store has not taken for so long that the pauses
// between tries have become long.
func (w *world) stuck() {
	w.t.Helper()
	w.create("a")
	w.subscribe(nil)
	w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "commit"), nil)
	w.pass(55 * time.Minute)
	w.wantSent(2)
	w.pass(10 * time.Minute)
}

// wantStored checks that the refresh token of the second exchange is not lost.
func (w *world) wantStored() {
	w.t.Helper()
	if g := w.grant(); g.Serial != 3 || g.Intent != nil {
		w.t.Errorf("got serial %d, intent %v; want the refresh token that was received stored", g.Serial, g.Intent)
	}
}

func TestShutdownTriesToStoreWhatIsHeld(t *testing.T) {
	t.Run("drain wakes a pause", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.stuck()
			w.store.hook(nil, nil)
			began := time.Now()
			w.b.Drain()
			if took := time.Since(began); took > 0 {
				t.Errorf("draining took %s, want no pause", took)
			}
			w.wantStored()
		})
	})
	t.Run("drain makes pauses short", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.stuck()
			done := make(chan struct{})
			go func() { w.b.Drain(); close(done) }()
			w.pass(20 * time.Second)
			w.store.hook(nil, nil)
			w.pass(time.Second)
			select {
			case <-done:
			default:
				t.Error("still draining a second after the store was mended")
			}
			w.down()
			w.wantStored()
		})
	})
	t.Run("close tries once more", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.stuck()
			w.store.hook(nil, nil)
			w.b.Close()
			w.wantStored()
		})
	})
}

// Whoever waits for a token that can't be stored is told so at once, not at its own deadline. The flight goes on.
func TestWhoWaitsIsToldThatTheStoreFails(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}, func(t *testing.T, w *world) {
		w.client()
		w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "commit"), nil)
		_, err := w.b.CreateCredential(t.Context(), w.credential("a", "b"))
		fatal(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, scopes := range [][]string{nil, {"a"}, nil} { // in the flight, behind the spend lock, and too late for both
			began := time.Now()
			_, err := w.b.Token(ctx, broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: scopes}})
			var p *tokenbroker.Problem
			if !errors.Is(err, tokenbroker.ErrStoreUnavailable) || !errors.As(err, &p) || p.RetryAfter <= 0 {
				t.Errorf("scopes %v: got %v, want ErrStoreUnavailable and when to ask again", scopes, err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("scopes %v: told after %s, want at once", scopes, took)
			}
		}
		w.wantSent(1)
		w.store.hook(nil, nil)
		w.pass(10 * time.Second)
		w.get()
		if g := w.grant(); g.Serial < 2 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v; want the refresh token that was received stored", g.Serial, g.Intent)
		}
		evs := w.log.of(broker.EventCommitErr)
		if len(evs) == 0 || evs[0].Credential != "acme/jobs" || evs[0].Attempt == "" || evs[0].Code != "store_unavailable" {
			t.Errorf("got events %+v, want one with credential, attempt and code", evs)
		}
	})
}

// A provider that does not rotate may still name the refresh token that it was sent. Nothing is lost with that, so nobody is kept waiting for
// the store to take it: for other variants there may be room.
func TestARefreshTokenThatCameBackAsItWasSentHoldsUpNobody(t *testing.T) {
	echo := func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		reply, err := gives(time.Hour, false)(ctx, n, r)
		reply.RefreshToken = r.RefreshToken
		return reply, err
	}
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}, answer: echo}, func(t *testing.T, w *world) {
		w.create("a", "b")
		w.get()
		w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "commit"), nil)
		narrow := func(scope string) error {
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{scope}}})
			return err
		}
		if err := narrow("a"); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
			t.Errorf("got %v, want ErrStoreUnavailable", err)
		}
		w.store.hook(nil, nil)
		fatal(t, narrow("b"))
		if g := w.grant(); g.Serial != 1 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v, want the refresh token as it was, and not spent", g.Serial, g.Intent)
		}
	})
}
