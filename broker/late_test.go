package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// ending has the next flight wait, when its token is stored and can be seen, for as long as its result is being recorded: it is over for
// nobody yet, and who wants a token that is not to be had otherwise comes to wait for it. let ends that.
func (w *world) ending() (let func()) {
	w.t.Helper()
	recorded := make(chan struct{})
	w.log.refuseWith(func(_ context.Context, ev broker.Event) error {
		if ev.Kind == broker.EventExchange {
			<-recorded
		}
		return nil
	})
	sent := w.up.count()
	w.pass(55 * time.Minute)
	w.wantSent(sent + 1)
	return func() { close(recorded) }
}

// TestWhoComesAfterATokenWasWithdrawnIsNotGivenItByAFlight has callers come when a token may not be given any more, and join the flight that
// brought it, which looked before that.
func TestWhoComesAfterATokenWasWithdrawnIsNotGivenItByAFlight(t *testing.T) {
	withdrawals := map[error]func(*world) error{
		tokenbroker.ErrDisabled: func(w *world) error {
			_, err := w.b.SetDisabled(w.t.Context(), "acme/jobs", true)
			return err
		},
		tokenbroker.ErrReauthorize: func(w *world) error {
			_, err := w.b.Revoke(w.t.Context(), broker.RevokeQuery{Credential: "acme/jobs"})
			return err
		},
	}
	for name, ask := range map[string]func(w *world, held tokenbroker.Generation) (*broker.Snapshot, error){
		"a token": func(w *world, _ tokenbroker.Generation) (*broker.Snapshot, error) { return w.ask(broker.Request{}) },
		"a report of a 401": func(w *world, held tokenbroker.Generation) (*broker.Snapshot, error) {
			s, _, _, err := w.report("job", held, 401)
			return s, err
		},
		"a report of a 403": func(w *world, held tokenbroker.Generation) (*broker.Snapshot, error) {
			s, _, _, err := w.report("job", held, 403)
			return s, err
		},
	} {
		for want, withdraw := range withdrawals {
			t.Run(name+", "+want.Error(), func(t *testing.T) {
				run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
					w.create("a")
					held := w.get().Order.Generation
					let := w.ending()
					fatal(t, withdraw(w))
					done := make(chan error, 1)
					go func() {
						s, err := ask(w, held)
						if s != nil && s.Token != nil {
							t.Error("got the token that the flight brought")
						}
						done <- err
					}()
					w.settle()
					let()
					if err := <-done; !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
				})
			})
		}
	}
}

// The same for who comes after a credential was given another account: it is the token of that one that they get.
func TestWhoComesAfterAnotherAccountIsNotGivenTheTokenOfTheOneBefore(t *testing.T) {
	of := func(account string) answer {
		return func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, err := gives(time.Hour, true)(ctx, n, r)
			reply.Account, reply.Token.AccessToken = account, tokenbroker.NewSecret(fmt.Sprintf("%s-%d", account, n))
			return reply, err
		}
	}
	run(t, plan{traits: rotating, answer: of("ann")}, func(t *testing.T, w *world) {
		w.create("a")
		held := w.get().Order.Generation
		let := w.ending()
		w.up.use(of("bob"))
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-of-bob"), Account: "bob"})
		fatal(t, err)
		got := make(chan string, 2)
		give := func(s *broker.Snapshot, err error) {
			if err != nil || s.Token == nil {
				t.Errorf("got %v, %v, want a token", s, err)
				got <- ""
				return
			}
			got <- s.Token.AccessToken.Reveal()
		}
		go func() { give(w.ask(broker.Request{})) }()
		go func() {
			s, _, _, err := w.report("job", held, 401)
			give(s, err)
		}()
		w.settle()
		let()
		for range 2 {
			if token := <-got; token != "bob-3" {
				t.Errorf("got %q, want a token of the account that was adopted", token)
			}
		}
	})
}
