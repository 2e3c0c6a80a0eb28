package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// Asking for audiences that there is no token of must not keep others from theirs.
func TestMadeUpVariantsGiveWay(t *testing.T) {
	few := func(c *broker.Config) { c.MaxVariants = 3 }
	run(t, plan{config: few}, func(t *testing.T, w *world) {
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if strings.HasPrefix(r.Variant.Audience, "made-up") {
				return failure(tokenbroker.ClassConfiguration, "invalid_target")(ctx, n, r)
			}
			return gives(time.Hour, false)(ctx, n, r)
		})
		w.createMachine("a")
		at := func(audience string) error {
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Audience: audience}})
			return err
		}
		for range 20 {
			for i := range 2 {
				if err := at(fmt.Sprint("made-up-", i)); err == nil {
					t.Fatal("got a token for a made-up audience")
				}
			}
			w.pass(time.Second)
		}
		if err := at("mine"); err != nil {
			t.Errorf("got %v, want a token", err)
		}
		w.pass(time.Minute)
		for i := range 20 {
			_ = at(fmt.Sprint("made-up-", i)) // an error
			w.pass(11 * time.Second)
		}
		if err := at("mine"); err != nil {
			t.Errorf("got %v, want the token that is in use", err)
		}
		if sent := w.up.count(); sent > 60 {
			t.Errorf("got %d exchanges, want few", sent)
		}
	})
}

func TestAListBringsNothingToLife(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		for i := range 5 {
			n := w.credential("a")
			n.Credential.Name = fmt.Sprint("acme/", i)
			_, err := w.b.CreateCredential(t.Context(), n)
			fatal(t, err)
		}
		w.settle()
		w.restart()
		_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/3"}})
		fatal(t, err)
		list, _, err := w.b.Credentials(t.Context(), "", 10, func(string) bool { return true })
		if err != nil || len(list) != 5 {
			t.Fatalf("got %d credentials, %v; want 5", len(list), err)
		}
		for _, st := range list {
			if st.Snapshot.State != tokenbroker.StateReady || st.Snapshot.Token == nil {
				t.Errorf("%s: got state %s, want READY with its token", st.Credential.Name, st.Snapshot.State)
			}
		}
		if got := w.b.Alive(); got != 1 {
			t.Errorf("got %d variants in memory after a list, want the one in use", got)
		}
		w.wantSent(5)
	})
}

func TestLastUseIsWhenATokenWasHandedOut(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.up.use(failure(tokenbroker.ClassTransient, "http_500"))
		w.create("a")
		_, err := w.ask(broker.Request{})
		if got := w.status().LastUse; err == nil || !got.IsZero() {
			t.Errorf("got last use %v after a call that got %v, want none", got, err)
		}
		w.up.use(nil)
		w.pass(time.Minute)
		if got := w.status().LastUse; !got.IsZero() {
			t.Errorf("got last use %v although nobody asked, want none", got)
		}
		w.get()
		if got := w.status().LastUse; !got.Equal(time.Now()) {
			t.Errorf("got last use %v after a call, want %v", got, time.Now())
		}
		w.pass(time.Minute)
		r := w.subscribe(nil)
		if got := w.status().LastUse; got.Equal(time.Now()) {
			t.Error("got a use before the subscriber took the token")
		}
		r.take()
		if got := w.status().LastUse; !got.Equal(time.Now()) {
			t.Errorf("got last use %v after a delivery, want %v", got, time.Now())
		}
	})
}

// After a restart the token of a variant that nobody asked for yet is valid all the same: the probe of an uncertain refresh token,
// which may end the grant, waits for its end.
func TestRecoveryAfterARestartMindsStoredTokens(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}, func(t *testing.T, w *world) {
		w.uncertain()
		w.restart()
		w.pass(time.Hour)
		w.wantSent(3)
		w.wantState(tokenbroker.StateUncertain)
		_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
		if err != nil {
			t.Errorf("got %v, want the stored token of the other variant", err)
		}
		w.up.use(gives(time.Hour, true))
		w.pass(2 * time.Hour)
		if w.up.count() < 4 {
			t.Error("got no probe before the last token ended")
		}
		w.wantState(tokenbroker.StateReady)
	})
}

// Equal secrets have other fingerprints: one that could be computed from the secret could be guessed from.
func TestFingerprintsCanNotBeGuessedFrom(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		seen := map[string]bool{}
		for _, name := range []string{"a", "b"} {
			c, err := w.b.CreateClient(t.Context(), tokenbroker.OAuthClient{Name: name, Provider: "acme", ClientID: "app",
				Auth: tokenbroker.AuthClientSecretBasic}, broker.NewSecret{Secret: tokenbroker.NewSecret("hunter2")}, false)
			fatal(t, err)
			seen[c.Secrets[0].Fingerprint] = true
		}
		if len(seen) != 2 {
			t.Errorf("got %d fingerprints of one secret in two clients, want 2", len(seen))
		}
	})
}

// A client is not deleted between the look at it and the creation of a credential that uses it. It runs on the real clock, since
// who waits for a mutex stops the one of a bubble.
func TestAClientIsNotDeletedUnderACredential(t *testing.T) {
	w := newWorld(t, plan{still: true, answer: gives(time.Hour, false)})
	_, err := w.b.CreateClient(t.Context(), tokenbroker.OAuthClient{Name: "other", Provider: "acme", ClientID: "app",
		Auth: tokenbroker.AuthClientSecretBasic}, broker.NewSecret{Secret: tokenbroker.NewSecret("s3cret")}, false)
	fatal(t, err)
	w.client()
	n := w.credential("a")
	n.Credential.Name, n.Credential.Client = "acme/first", "other"
	_, err = w.b.CreateCredential(t.Context(), n)
	fatal(t, err)
	created := make(chan error, 1)
	var once sync.Once
	w.store.hook(nil, func(_ context.Context, op string) error {
		if op == "load" {
			once.Do(func() {
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, err := w.b.CreateCredential(context.WithoutCancel(t.Context()), w.credential("a"))
					created <- err
				}()
				select {
				case <-done:
				case <-time.After(100 * time.Millisecond):
				}
			})
		}
		return nil
	})
	deleted := w.b.DeleteClient(t.Context(), "app", 0)
	if err := <-created; (err == nil) == (deleted == nil) {
		t.Errorf("got %v for the create and %v for the delete, want one of them refused", err, deleted)
	}
	err = w.b.DeleteClient(t.Context(), "other", 0)
	if !errors.Is(err, tokenbroker.ErrInUse) || strings.Contains(err.Error(), "first") {
		t.Errorf("got %v, want ErrInUse without the name of a credential", err)
	}
}
