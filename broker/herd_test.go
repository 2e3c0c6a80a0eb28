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

// same answers with one and the same token, as a provider does that caches its tokens.
func same(life time.Duration) answer {
	return func(_ context.Context, _ int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		return tokenbroker.ExchangeReply{Token: fresh("always-the-same", life, r.Variant.Scopes), Sent: time.Now()}, nil
	}
}

// herd lets many ask at once, while one exchange is under way, and returns when all have their answer.
func (w *world) herd(a answer, ask func(holder string)) {
	w.t.Helper()
	const size = 200
	for i := range size {
		_, err := w.ask(broker.Request{Holder: fmt.Sprint("job-", i)})
		fatal(w.t, err)
	}
	w.pass(time.Minute) // the floor
	let, done := make(chan struct{}), make(chan struct{})
	w.up.use(held(let, a))
	for i := range size {
		go func() {
			ask(fmt.Sprint("job-", i))
			done <- struct{}{}
		}()
	}
	w.settle()
	close(let)
	for range size {
		<-done
	}
}

// A provider that answers with the token we have must not be asked by each of those who wait in turn.
func TestHerdCausesOneExchangeWhateverItBrings(t *testing.T) {
	t.Run("reports", func(t *testing.T) {
		run(t, plan{}, func(t *testing.T, w *world) {
			w.up.use(same(time.Hour))
			w.createMachine("a")
			g := w.get().Order.Generation
			w.herd(same(time.Hour), func(holder string) {
				_, outcome, wait, err := w.report(holder, g, 401)
				if err != nil || outcome != broker.ReportWait || wait <= 0 {
					t.Errorf("got %s, %s, %v; want to be told to wait", outcome, wait, err)
				}
			})
			w.wantSent(2)
		})
	})
	t.Run("min validity", func(t *testing.T) {
		run(t, plan{}, func(t *testing.T, w *world) {
			w.up.use(same(time.Hour))
			w.createMachine("a")
			w.herd(same(time.Hour), func(holder string) {
				if _, err := w.ask(broker.Request{Holder: holder, MinValidity: 2 * time.Hour}); !errors.Is(err, tokenbroker.ErrMinValidity) {
					t.Errorf("got %v, want ErrMinValidity", err)
				}
			})
			w.wantSent(2)
		})
	})
}

// queue makes credentials acme/0 to acme/n-1, of which the first is in its exchange and the others wait for their turn.
func (w *world) queue(n int) (let chan struct{}) {
	w.t.Helper()
	let = make(chan struct{})
	w.up.use(held(let, w.up.answer))
	w.client()
	for i := range n {
		c := w.credential("a")
		c.Credential.Name = fmt.Sprint("acme/", i)
		c.Credential.Grant, c.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
		_, err := w.b.CreateCredential(w.t.Context(), c)
		fatal(w.t, err)
	}
	w.settle()
	w.wantSent(1)
	return let
}

func slowly(c *broker.Config) {
	c.Limits = func(string) broker.Limit { return broker.Limit{PerSecond: 0.1, Burst: 1} }
}

// What our own disk keeps from being sent takes nobody's turn at the provider: with one turn in 10 s, all would wait for theirs in vain.
func TestADiskThatRefusesKeepsNobodyWaitingForATurn(t *testing.T) {
	for name, refuse := range map[string]func(w *world){
		"the store": func(w *world) {
			w.store.hook(failing(tokenbroker.ErrStoreUnavailable, "prove", "begin", "commit", "abort"), nil)
		},
		"the audit log": func(w *world) {
			w.log.refuseWith(func(context.Context, broker.Event) error { return tokenbroker.ErrAuditUnavailable })
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, plan{config: slowly, answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
				const jobs = 10
				close(w.queue(jobs))
				w.pass(30 * time.Minute)
				refuse(w)
				w.pass(2 * time.Hour)
				for i := range 5 * jobs {
					began := time.Now()
					_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: fmt.Sprint("acme/", i%jobs)}})
					if !errors.Is(err, tokenbroker.ErrStoreUnavailable) && !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
						t.Fatalf("got %v, want that the disk refuses", err)
					}
					if took := time.Since(began); took > time.Second {
						t.Fatalf("it was told after %v", took)
					}
					w.pass(time.Second)
				}
			})
		})
	}
}

func TestWhoWaitsForATurnIsRefusedLikeWhoComes(t *testing.T) {
	t.Run("after a provider asked for a pause", func(t *testing.T) {
		throttled := refuses(tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "slow_down", RetryAfter: 10 * time.Minute})
		run(t, plan{config: slowly, answer: throttled}, func(t *testing.T, w *world) {
			close(w.queue(5))
			w.pass(9 * time.Minute)
			w.wantSent(1)
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/4"}})
			if !errors.Is(err, tokenbroker.ErrThrottled) {
				t.Errorf("got %v, want ErrThrottled", err)
			}
		})
	})
	t.Run("once the broker drains", func(t *testing.T) {
		run(t, plan{config: slowly, answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
			let := w.queue(5)
			answered := make(chan error, 1)
			go func() {
				_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/4"}})
				answered <- err
			}()
			w.settle()
			drained := make(chan struct{})
			go func() { w.b.Drain(); close(drained) }()
			if err := <-answered; !errors.Is(err, tokenbroker.ErrDraining) {
				t.Errorf("got %v, want ErrDraining", err)
			}
			close(let)
			<-drained
			w.pass(time.Minute)
			w.wantSent(1)
			if st, err := w.b.Credential(t.Context(), "acme/4"); err != nil || st.Snapshot.Code != "" {
				t.Errorf("got code %q, %v; want no failure noted for a shutdown", st.Snapshot.Code, err)
			}
		})
	})
}
