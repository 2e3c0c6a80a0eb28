package broker_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func TestAttackASecondRevocationDoesNotForgetTheFirst(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		down := &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_failed"}
		w.up.revoke = revokes(down)
		w.create("a")
		w.get()
		first := w.grant().RefreshToken.Reveal()
		w.revoke() // parked
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-of-a-second-consent")})
		fatal(t, err)
		w.revoke() // gets through
		w.pass(time.Hour)
		if got := w.up.revocations(); !slices.Contains(got[1:], "refresh_token "+first) {
			t.Errorf("got %v revoked, want %s among them after its first try failed", got, first)
		}
	})
}

func TestAttackTheTokensOfTheFormerAccountAreNotServedForTheNewOne(t *testing.T) {
	down := &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_failed"}
	run(t, plan{traits: rotating, answer: after(1, gives(time.Hour, true), refuses(*down))}, func(t *testing.T, w *world) {
		w.create("a")
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-ann"), Account: "ann@acme.example"})
		fatal(t, err)
		w.settle()
		former := w.get().Token.AccessToken.Reveal()
		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-bob"), Account: "bob@acme.example"})
		fatal(t, err)
		w.settle()
		if st := w.status(); st.Grant.Account != "bob@acme.example" {
			t.Fatalf("got account %q", st.Grant.Account)
		}
		s, err := w.ask(broker.Request{})
		if err == nil && s.Token != nil && s.Token.AccessToken.Reveal() == former {
			t.Error("the credential is bob's, and its workers are given ann's access token")
		}
	})
}

func TestAttackARefreshTokenThatCameDuringARevocationIsRevokedToo(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		let := make(chan struct{})
		w.up.revoke = revokes()
		w.create("a")
		w.get()
		w.pass(5 * time.Minute)
		w.up.use(held(let, gives(time.Hour, true)))
		done := make(chan struct{})
		go func() { defer close(done); _, _ = w.b.Refresh(t.Context(), "acme/jobs") }()
		synctest.Wait()
		w.revoke()
		close(let)
		<-done
		w.settle()
		w.pass(time.Hour)
		kept := w.orphans()
		if len(kept) != 1 || kept[0].Outcome.RefreshToken.IsZero() {
			t.Fatalf("got %d results kept apart, want the one that came late", len(kept))
		}
		if got := w.up.revocations(); !slices.Contains(got, "refresh_token "+kept[0].Outcome.RefreshToken.Reveal()) {
			t.Errorf("got %v revoked, want the refresh token that came late among them", got)
		}
	})
}
