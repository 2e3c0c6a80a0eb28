package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// revoke revokes "acme/jobs", which has to go well.
func (w *world) revoke() broker.Revocation {
	w.t.Helper()
	list, err := w.b.Revoke(w.t.Context(), broker.RevokeQuery{Credential: "acme/jobs"})
	fatal(w.t, err)
	if len(list) != 1 || list[0].Credential != "acme/jobs" {
		w.t.Fatalf("got %+v, want one of acme/jobs", list)
	}
	w.settle()
	return list[0]
}

func revokes(failures ...*tokenbroker.Failure) func(int, tokenbroker.RevokeRequest) error {
	return func(n int, _ tokenbroker.RevokeRequest) error {
		if n <= len(failures) && failures[n-1] != nil {
			return failures[n-1]
		}
		return nil
	}
}

var unsupported = &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "revocation_not_supported"}

func TestRevokeEndsTheGrantHereAndThere(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.up.revoke = revokes()
		w.create("a")
		r := w.subscribe(nil)
		end := r.one().Snapshot.Token.Expiry
		plan, err := w.b.Revoke(t.Context(), broker.RevokeQuery{Credential: "acme/jobs", DryRun: true})
		if err != nil || plan[0].Outcome != broker.RevokePlanned || plan[0].Subscribers != 1 || !plan[0].LiveUntil.Equal(end) {
			t.Errorf("dry run: got %+v, %v; want it planned, with one subscriber and tokens until %v", plan, err, end)
		}
		w.get()
		if got := w.up.revocations(); len(got) != 0 {
			t.Errorf("the dry run revoked %v", got)
		}

		got := w.revoke()
		if got.Outcome != broker.RevokeDone || !got.LiveUntil.Equal(end) || got.Subscribers != 1 {
			t.Errorf("got %+v, want it revoked, with one subscriber and tokens until %v", got, end)
		}
		if got := w.up.revocations(); !slices.Equal(got, []string{"refresh_token rt-1"}) {
			t.Errorf("got %v revoked, want the refresh token alone", got)
		}
		if s := r.one().Snapshot; s.State != tokenbroker.StateReauthorize || s.Code != "revoked" || s.Token != nil {
			t.Errorf("got %s %s, token %t; want REAUTHORIZE, revoked, without one", s.State, s.Code, s.Token != nil)
		}
		_, err = w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "revoked")
		if p, ok := errors.AsType[*tokenbroker.Problem](err); !ok || p.Metadata["grantType"] != string(w.status().Credential.Grant) {
			t.Errorf("got %v, want the grant told, so that whoever is told knows how it is brought back", err)
		}
		if g := w.grant(); !g.RefreshToken.IsZero() || !g.Previous.IsZero() || g.Revoking != nil || g.Lives() {
			t.Errorf("got serial %d, revoking %v; want nothing held", g.Serial, g.Revoking)
		}
		if _, ok, err := w.store.Token(t.Context(), "acme/jobs", w.status().Credential.UID, tokenbroker.NewVariant([]string{"a"}, "", "").Key()); ok || err != nil {
			t.Errorf("got a token of the store %t, %v; want none", ok, err)
		}
		sent := w.up.count()
		w.pass(2 * day)
		w.restart()
		w.settle()
		_, err = w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "revoked")
		w.wantSent(sent)
		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-new")})
		fatal(t, err)
		w.settle()
		w.get()
		w.wantState(tokenbroker.StateReady)
	})
}

func TestARevocationThatDoesNotGetThroughIsParked(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		down := &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "http_503", HTTPStatus: 503, Sent: true}
		slow := &tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "http_429", RetryAfter: 20 * time.Minute, Sent: true}
		w.up.revoke = revokes(down, down, slow)
		w.create("a")
		w.get()
		got := w.revoke()
		if got.Outcome != broker.RevokeParked || got.Code != "http_503" {
			t.Errorf("got %+v, want it parked", got)
		}
		if st := w.status(); st.Grant.Revoking == nil || st.Snapshot.State != tokenbroker.StateReauthorize {
			t.Errorf("got %s, want REAUTHORIZE with a revocation pending", st.Snapshot.State)
		}
		w.pass(59 * time.Second)
		if got := len(w.up.revocations()); got != 1 {
			t.Errorf("got %d tries within a minute, want 1", got)
		}
		w.restart() // it is durable, and nobody asks for the credential
		w.pass(2 * time.Minute)
		if got := len(w.up.revocations()); got != 2 {
			t.Errorf("got %d tries, want a second one after the restart", got)
		}
		w.pass(2 * time.Minute)
		w.pass(17 * time.Minute)
		if got := len(w.up.revocations()); got != 3 {
			t.Errorf("got %d tries, want the provider's wait obeyed", got)
		}
		w.pass(20 * time.Minute)
		if got := w.up.revocations(); len(got) != 4 || got[3] != "refresh_token rt-1" {
			t.Errorf("got %v, want the refresh token four times", got)
		}
		if g := w.grant(); g.Revoking != nil {
			t.Error("got it pending still, want it done")
		}
		if evs := w.log.of(broker.EventRevoked); len(evs) != 4 || evs[3].Revocation != broker.RevokeDone {
			t.Errorf("got %d results, want four, the last one good", len(evs))
		}
		w.pass(10 * day)
		if got := len(w.up.revocations()); got != 4 {
			t.Errorf("got %d tries in all, want no more", got)
		}
	})
}

func TestARevocationIsGivenUpAtLast(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.up.revoke = func(int, tokenbroker.RevokeRequest) error {
			return &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_failed"}
		}
		w.create("a")
		w.revoke()
		w.pass(31 * day)
		if w.grant().Revoking != nil {
			t.Error("got it pending after 31 days")
		}
		if got := len(w.up.revocations()); got < 100 || got > 140 {
			t.Errorf("got %d tries in a month, want some 125", got)
		}
	})
}

func TestWhatAProviderMakesOfARevocation(t *testing.T) {
	refused := &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "invalid_request", Sent: true}
	badClient := &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "invalid_client", Sent: true}
	for _, c := range []struct {
		name     string
		machine  bool
		failures []*tokenbroker.Failure
		want     broker.RevokeOutcome
		code     string
		lives    bool
		revoked  []string
	}{
		{"no revocation at all", false, []*tokenbroker.Failure{unsupported, unsupported}, broker.RevokeUnsupported, "", true, []string{"refresh_token rt-1", "access_token at-1"}},
		{"of access tokens alone", false, []*tokenbroker.Failure{unsupported}, broker.RevokeDone, "", false, []string{"refresh_token rt-1", "access_token at-1"}},
		{"refused", false, []*tokenbroker.Failure{refused}, broker.RevokeRefused, "invalid_request", true, []string{"refresh_token rt-1", "access_token at-1"}},
		{"the second secret is good", true, []*tokenbroker.Failure{badClient}, broker.RevokeDone, "", false, []string{"access_token at-1", "access_token at-1"}},
		{"client credentials", true, nil, broker.RevokeDone, "", false, []string{"access_token at-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, plan{traits: tokenbroker.Traits{Rotates: !c.machine}, answer: gives(time.Hour, !c.machine)}, func(t *testing.T, w *world) {
				w.up.revoke = revokes(c.failures...)
				w.client()
				_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("other")})
				fatal(t, err)
				if c.machine {
					w.createOnlyMachine("a")
				} else {
					w.createOnly("a")
				}
				w.get()
				got := w.revoke()
				if got.Outcome != c.want || got.Code != c.code || got.LiveUntil.IsZero() == c.lives {
					t.Errorf("got %+v, want %s %s, tokens that live: %t", got, c.want, c.code, c.lives)
				}
				if got := w.up.revocations(); !slices.Equal(got, c.revoked) {
					t.Errorf("got %v, want %v", got, c.revoked)
				}
			})
		})
	}
}

// A grant that lives on its OAuth client alone has nobody to consent again: an operator brings it back.
func TestARevokedMachineComesBackWithARefresh(t *testing.T) {
	run(t, plan{answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
		w.up.revoke = revokes()
		w.createMachine("a")
		w.subscribe(nil)
		w.revoke()
		w.pass(day)
		_, err := w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "revoked")
		w.wantSent(1)
		_, err = w.b.Refresh(t.Context(), "acme/jobs")
		fatal(t, err)
		w.get()
		w.wantState(tokenbroker.StateReady)
	})
}

// An exchange under way when its grant is revoked must not bring it back.
func TestARevocationWinsOverTheFlightThatItMeets(t *testing.T) {
	for _, machine := range []bool{false, true} {
		t.Run(fmt.Sprintf("machine %t", machine), func(t *testing.T) {
			run(t, plan{traits: tokenbroker.Traits{Rotates: !machine}}, func(t *testing.T, w *world) {
				w.up.revoke = revokes()
				let := make(chan struct{})
				if machine {
					w.createMachine("a")
				} else {
					w.create("a")
				}
				r := w.subscribe(nil)
				r.take()
				w.up.use(held(let, gives(time.Hour, !machine)))
				for w.up.count() == 1 {
					w.pass(time.Second)
				}
				w.revoke()
				close(let)
				w.pass(time.Minute)
				_, err := w.ask(broker.Request{})
				wantCode(t, err, tokenbroker.ErrReauthorize, "revoked")
				if g := w.grant(); g.Lives() || g.State != tokenbroker.StateReauthorize {
					t.Errorf("got %s, want REAUTHORIZE with nothing held", g.State)
				}
				for _, u := range r.take() {
					if u.Snapshot != nil && u.Snapshot.Token != nil {
						t.Error("a token was published after the revocation")
					}
				}
			})
		})
	}
}

func TestRevokingAClientMeansAllThatMayBe(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.up.revoke = revokes()
		w.client()
		for _, name := range []string{"acme/one", "acme/two", "other/three"} {
			n := w.credential("a")
			n.Credential.Name = name
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
		}
		w.made(tokenbroker.GrantStatic, "key", func(n *broker.NewCredential) { n.Credential.Name = "acme/static" })
		w.settle()
		var recorded []string
		q := broker.RevokeQuery{Client: "app", Allowed: func(name string) bool { return strings.HasPrefix(name, "acme/") },
			Record: func(_ context.Context, name string) error { recorded = append(recorded, name); return nil }}
		q.DryRun = true
		list, err := w.b.Revoke(t.Context(), q)
		if err != nil || len(list) != 2 || list[0].Credential != "acme/one" || list[1].Credential != "acme/two" || len(recorded) != 0 {
			t.Errorf("got %+v, %v, recorded %v; want the plan for two", list, err, recorded)
		}
		q.DryRun = false
		q.Record = func(_ context.Context, name string) error {
			if name == "acme/two" {
				return tokenbroker.ErrAuditUnavailable
			}
			return nil
		}
		list, err = w.b.Revoke(t.Context(), q)
		if err != nil || list[0].Outcome != broker.RevokeDone || list[1].Outcome != broker.RevokeRefused || list[1].Code != "audit_unavailable" {
			t.Errorf("got %+v, %v; want one revoked, and one not touched without a record", list, err)
		}
		for name, want := range map[string]tokenbroker.State{"acme/one": tokenbroker.StateReauthorize, "acme/two": tokenbroker.StateReady, "other/three": tokenbroker.StateReady} {
			st, err := w.b.Credential(t.Context(), name)
			if err != nil || st.Snapshot.State != want {
				t.Errorf("%s: got %s, %v, want %s", name, st.Snapshot.State, err, want)
			}
		}
		if list, err = w.b.Revoke(t.Context(), broker.RevokeQuery{Provider: "acme", DryRun: true}); err != nil || len(list) != 4 {
			t.Errorf("got %d of the provider, %v; want 4", len(list), err)
		}
		if _, err = w.b.Revoke(t.Context(), broker.RevokeQuery{Credential: "acme/none"}); !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}
