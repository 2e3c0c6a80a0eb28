package broker_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// What an attack found of parked revocations and imports.

func TestAttackAParkedRevocationOutlivesItsCredential(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.up.revoke = revokes(&tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_failed"})
		w.create("a")
		w.get()
		w.revoke() // parked
		if err := w.b.DeleteCredential(t.Context(), "acme/jobs", 0); err != nil {
			return // refused, so that nothing is forgotten: good, too
		}
		w.pass(time.Hour)
		if got := len(w.up.revocations()); got < 2 {
			t.Errorf("got %d tries: deleting the credential forgot that its grant is yet to be ended at the provider", got)
		}
	})
}

func TestAttackAnImportIsNotSaidToBeOfTheAccountThatConsented(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.create("a")
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-ann"), Account: "ann@acme.example"})
		fatal(t, err)
		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-of-whoever")})
		fatal(t, err)
		if got := w.status().Grant.Account; got != "" {
			t.Errorf("got account %q, of a refresh token that somebody brought", got)
		}
	})
}
