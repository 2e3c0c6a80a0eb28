package broker_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func TestWhatAnOperatorMendedIsTriedAtOnceAlsoWhileATokenIsValid(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.up.use(failure(tokenbroker.ClassConfiguration, "invalid_client"))
		w.refreshing()
		w.wantState(tokenbroker.StateMisconfigured)
		w.up.use(gives(time.Hour, true))
		_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("the right one")})
		fatal(t, err)
		w.pass(2 * time.Second)
		w.wantState(tokenbroker.StateReady)
	})
}

func TestTheStatusSaysSinceWhenAStateLasts(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.pass(10 * time.Minute)
		w.up.use(failure(tokenbroker.ClassTransient, "http_503"))
		w.refreshing()
		w.wantState(tokenbroker.StateDegraded)
		if ago := time.Since(w.status().Snapshot.Since); ago > time.Second {
			t.Errorf("DEGRADED is said to last for %v, want since just now", ago)
		}
		w.pass(30 * time.Second) // and a few more tries
		if ago := time.Since(w.status().Snapshot.Since); ago < 30*time.Second {
			t.Errorf("DEGRADED is said to last for %v, want half a minute", ago)
		}
	})
}

func TestTheStatusNamesNoRefreshOfACredentialNobodyUses(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.get()
		if at := w.status().RefreshAt; !at.After(time.Now()) {
			t.Errorf("in use: got %v, want one to come", at)
		}
		w.pass(24 * time.Hour)
		w.restart()
		if at := w.status().RefreshAt; !at.IsZero() {
			t.Errorf("out of use: got %v, want none", at)
		}
	})
}
