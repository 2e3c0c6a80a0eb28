package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// inFlight begins a background refresh and holds its answer back until let is closed.
func (w *world) inFlight(a answer) (let chan struct{}) {
	w.t.Helper()
	let = make(chan struct{})
	sent := w.up.count()
	w.up.use(held(let, a))
	for w.up.count() == sent {
		w.pass(time.Second)
	}
	return let
}

func TestAdoptDuringRefresh(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		let := w.inFlight(gives(time.Hour, true))
		adopted := w.srv.SeedRefreshToken("acme", "app", "a")
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret(adopted)})
		fatal(t, err)
		w.up.use(nil)
		close(let)
		w.pass(time.Second)
		if got := w.orphans(); len(got) != 1 || got[0].Outcome.RefreshToken.Reveal() != "rt-2" {
			t.Errorf("got %d orphans, want the one result that lost", len(got))
		}
		if g := w.grant(); g.Serial != 4 || g.Intent != nil || !strings.HasPrefix(g.RefreshToken.Reveal(), "sandbox_rt_") {
			t.Errorf("got serial %d, intent %v; want the successor of what was adopted", g.Serial, g.Intent)
		}
		if r, _ := w.up.request(3); r.RefreshToken.Reveal() != adopted {
			t.Error("the next exchange did not send what was adopted")
		}
		w.wantState(tokenbroker.StateReady)
		if evs := w.log.of(broker.EventOrphan); len(evs) != 1 || evs[0].Credential != "acme/jobs" || evs[0].Attempt == "" || evs[0].Code != "superseded" {
			t.Errorf("got events %+v, want one of the orphan, with credential, attempt and code", evs)
		}
	})
}

func TestAdoptEndsReauthorizeAndIsTriedAtOnce(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		w.up.use(failure(tokenbroker.ClassDeadGrant, "invalid_grant"))
		w.pass(52 * time.Minute)
		w.wantState(tokenbroker.StateReauthorize)
		w.up.use(nil)
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret(w.srv.SeedRefreshToken("acme", "app", "a"))})
		fatal(t, err)
		w.pass(time.Second)
		w.wantSent(3)
		w.wantState(tokenbroker.StateReady)
	})
}

func TestEditDuringRefreshLosesNeither(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		let := w.inFlight(gives(time.Hour, true))
		st, err := w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
			c.Owner = "the reports team"
			return nil
		})
		fatal(t, err)
		close(let)
		w.pass(time.Second)
		if g := w.grant(); g.Serial != 3 || g.RefreshToken.Reveal() != "rt-2" {
			t.Errorf("got serial %d, want what the refresh brought", g.Serial)
		}
		if got := w.status().Credential; got.Owner != "the reports team" || got.Version != st.Credential.Version {
			t.Errorf("got owner %q, version %d; want the edit", got.Owner, got.Version)
		}
		w.wantSent(2) // an edit that concerns no token causes no exchange
		_, err = w.b.UpdateCredential(t.Context(), "acme/jobs", st.Credential.Version-1, func(*tokenbroker.Credential) error { return nil })
		if !errors.Is(err, tokenbroker.ErrETagMismatch) {
			t.Errorf("got %v for an old version, want ErrETagMismatch", err)
		}
	})
}

func TestScopeChange(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Rotates: true}}
	run(t, p, func(t *testing.T, w *world) {
		w.up.use(gives(time.Hour, true))
		w.create("a")
		old := w.get()
		feed := w.subscribe(nil)
		feed.take()
		_, err := w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
			c.Scopes = []string{"a", "b"}
			return nil
		})
		fatal(t, err)
		w.settle()
		s := w.get()
		if len(s.Variant.Scopes) != 2 || s.Token.AccessToken == old.Token.AccessToken || s.Order.Generation <= old.Order.Generation {
			t.Errorf("got %v with scopes %v, want a new token with both", s.Order, s.Variant.Scopes)
		}
		got := feed.take()
		for _, u := range got {
			if u.Removed != nil {
				t.Errorf("got removed (%v) in between, want none", u.Removed)
			}
		}
		if len(got) == 0 || got[len(got)-1].Snapshot.Order != s.Order {
			t.Errorf("got %+v, want the new token", got)
		}
		wantRising(t, feed.got)
		w.restart()
		if again := w.get(); again.Token.AccessToken != s.Token.AccessToken {
			t.Error("got another token after a restart, want the one of the new scopes")
		}
	})
}

// Whoever waits for a token while its credential is reconfigured gets one of the new configuration, not an error.
func TestScopeChangeWhileCallersWait(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.pass(5 * time.Hour)
		let := make(chan struct{})
		w.up.use(held(let, failure(tokenbroker.ClassTransient, "http_503")))
		blocker := make(chan error)
		go func() {
			_, err := w.ask(broker.Request{})
			blocker <- err
		}()
		w.settle()
		_, err := w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error {
			c.Scopes = []string{"a", "b"}
			return nil
		})
		fatal(t, err)
		waiter := make(chan error)
		go func() {
			_, err := w.ask(broker.Request{})
			waiter <- err
		}()
		w.settle()
		w.up.use(gives(time.Hour, true))
		close(let)
		<-blocker
		if err := <-waiter; err != nil {
			t.Errorf("got %v, want a token", err)
		}
	})
}

func TestDeleteDuringRefresh(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		feed := w.subscribe(nil)
		feed.take()
		let := w.inFlight(gives(time.Hour, true))
		began := time.Now()
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
		if took := time.Since(began); took > time.Second {
			t.Errorf("the delete took %s, want at most a second", took)
		}
		if u := feed.one(); !errors.Is(u.Removed, tokenbroker.ErrNotFound) {
			t.Errorf("got %+v, want a removal", u)
		}
		close(let)
		w.settle()
		if got := w.orphans(); len(got) != 1 {
			t.Errorf("got %d orphans, want the result that came too late", len(got))
		}
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		if got := w.b.Scheduled(); got != 0 {
			t.Errorf("got %d items on the schedule, want none", got)
		}
		w.createOnly("a")
		w.up.use(nil)
		w.pass(time.Minute)
		feed.take()
		wantRising(t, feed.got)
	})
}

func TestDeleteLeavesARefreshAMoment(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		let := w.inFlight(gives(time.Hour, true))
		time.AfterFunc(200*time.Millisecond, func() { close(let) })
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
		w.pass(time.Second)
		if got := w.orphans(); len(got) != 0 {
			t.Errorf("got %d orphans, want the result committed before the delete", len(got))
		}
	})
}

func TestDisableLetsTheFlightCommit(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.pass(5 * time.Hour)
		sent := w.up.count()
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		got := make(chan error)
		go func() {
			_, err := w.ask(broker.Request{})
			got <- err
		}()
		w.settle()
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
		fatal(t, err)
		close(let)
		if err := <-got; !errors.Is(err, tokenbroker.ErrDisabled) {
			t.Errorf("got %v, want ErrDisabled", err)
		}
		if g := w.grant(); g.RefreshToken.Reveal() != fmt.Sprint("rt-", sent+1) {
			t.Error("the refresh token that came was not kept")
		}
		w.pass(5 * time.Hour)
		w.wantSent(sent + 1)
		_, err = w.b.SetDisabled(t.Context(), "acme/jobs", false)
		fatal(t, err)
		w.get()
	})
}

func TestRefreshByOperatorIsHeldToTheFloor(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.pass(time.Minute)
		old := w.get()
		st, err := w.b.Refresh(t.Context(), "acme/jobs")
		if err != nil || st.Snapshot.Order.Generation <= old.Order.Generation {
			t.Errorf("got %v, %v; want a new token", st.Snapshot.Order, err)
		}
		for range 10 {
			if _, err := w.b.Refresh(t.Context(), "acme/jobs"); !errors.Is(err, tokenbroker.ErrBackoff) {
				t.Errorf("got %v, want ErrBackoff", err)
			}
		}
		w.wantSent(2)
		w.up.use(failure(tokenbroker.ClassDeadGrant, "invalid_grant"))
		w.pass(time.Minute)
		for range 10 {
			_, _ = w.b.Refresh(t.Context(), "acme/jobs") // it fails, and is then held back
		}
		w.wantSent(3)
		w.wantState(tokenbroker.StateReauthorize)
	})
}

func TestCreateRefuses(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		for name, c := range map[string]struct {
			spoil func(*broker.NewCredential)
			want  error
		}{
			"a bad name":            {func(n *broker.NewCredential) { n.Credential.Name = "A" }, tokenbroker.ErrInvalidArgument},
			"a bad scope":           {func(n *broker.NewCredential) { n.Credential.Scopes = []string{"a b"} }, tokenbroker.ErrInvalidArgument},
			"no refresh token":      {func(n *broker.NewCredential) { n.RefreshToken = tokenbroker.Secret{} }, tokenbroker.ErrInvalidArgument},
			"one that is too long":  {func(n *broker.NewCredential) { n.RefreshToken = tokenbroker.NewSecret(strings.Repeat("x", 20_000)) }, tokenbroker.ErrInvalidArgument},
			"one the grant has not": {func(n *broker.NewCredential) { n.Credential.Grant = tokenbroker.GrantClientCredentials }, tokenbroker.ErrInvalidArgument},
			"an unknown provider":   {func(n *broker.NewCredential) { n.Credential.Provider = "other" }, tokenbroker.ErrUnknownProvider},
			"an unknown client":     {func(n *broker.NewCredential) { n.Credential.Client = "other" }, tokenbroker.ErrClientNotFound},
			"a bad client name":     {func(n *broker.NewCredential) { n.Credential.Client = "O" }, tokenbroker.ErrInvalidArgument},
		} {
			n := w.credential("a")
			c.spoil(&n)
			if _, err := w.b.CreateCredential(t.Context(), n); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
		n := w.credential("a")
		n.ValidateOnly = true
		st, err := w.b.CreateCredential(t.Context(), n)
		if err != nil || st.Snapshot.State != tokenbroker.StatePending {
			t.Errorf("got %v, want a check that passes", err)
		}
		w.wantSent(0)
		if _, err := w.ask(broker.Request{}); !errors.Is(err, tokenbroker.ErrNotFound) {
			t.Errorf("got %v after a mere check, want ErrNotFound", err)
		}
		w.createOnly("a")
		if _, err := w.b.CreateCredential(t.Context(), w.credential("a")); !errors.Is(err, tokenbroker.ErrAlreadyExists) {
			t.Errorf("got %v for the same name, want ErrAlreadyExists", err)
		}
	})
}

func TestListing(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		for i := range 5 {
			n := w.credential("a")
			n.Credential.Name = fmt.Sprint("acme/", i)
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
		}
		odd := func(name string) bool { return name != "acme/2" }
		var names []string
		for next := ""; ; {
			page, n, err := w.b.Credentials(t.Context(), next, 2, odd)
			fatal(t, err)
			for _, st := range page {
				names = append(names, st.Credential.Name)
				if !st.Grant.RefreshToken.IsZero() || !st.Grant.Previous.IsZero() {
					t.Error("a status holds a refresh token")
				}
			}
			if next = n; next == "" {
				break
			}
		}
		if got, want := fmt.Sprint(names), "[acme/0 acme/1 acme/3 acme/4]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestClients(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.createMachine("a")
		c, err := w.b.Client(t.Context(), "app")
		if err != nil || len(c.Secrets) != 1 || !c.Secrets[0].Secret.IsZero() || len(c.Secrets[0].Fingerprint) != 12 {
			t.Fatalf("got %+v, %v; want one secret, by its fingerprint alone", c, err)
		}
		if _, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("s3cret")}); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("got %v for a secret that is there, want ErrInvalidArgument", err)
		}
		if _, err := w.b.RetireSecret(t.Context(), "app", c.Secrets[0].ID); !errors.Is(err, tokenbroker.ErrInUse) {
			t.Errorf("got %v for the last secret, want ErrInUse", err)
		}
		for i := range 7 {
			_, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret(fmt.Sprint("more-", i))})
			fatal(t, err)
		}
		if _, err := w.b.AddSecret(t.Context(), "app", broker.NewSecret{Secret: tokenbroker.NewSecret("one too many")}); !errors.Is(err, tokenbroker.ErrTooMany) {
			t.Errorf("got %v, want ErrTooMany", err)
		}
		c, err = w.b.RetireSecret(t.Context(), "app", c.Secrets[0].ID)
		if err != nil || len(c.Secrets) != 7 {
			t.Errorf("got %d secrets, %v; want 7", len(c.Secrets), err)
		}
		list, next, err := w.b.ListClients(t.Context(), "", 10, func(string) bool { return true })
		if err != nil || len(list) != 1 || next != "" {
			t.Errorf("got %d clients, next %q, %v; want one", len(list), next, err)
		}
		if err := w.b.DeleteClient(t.Context(), "app", 0); !errors.Is(err, tokenbroker.ErrInUse) {
			t.Errorf("got %v for a client in use, want ErrInUse", err)
		}
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
		fatal(t, w.b.DeleteClient(t.Context(), "app", 0))
		if got := w.b.Gates(); got != 0 {
			t.Errorf("got %d gates after the client went, want none", got)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := broker.New(t.Context(), broker.Config{}); err == nil || strings.Count(err.Error(), "is missing") != 4 {
		t.Errorf("got %v, want all that is missing", err)
	}
}
