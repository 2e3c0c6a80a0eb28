package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func (w *world) report(holder string, g tokenbroker.Generation, status int) (*broker.Snapshot, broker.ReportOutcome, time.Duration, error) {
	return w.b.ReportRejected(w.t.Context(), broker.Report{Selection: broker.Selection{Credential: "acme/jobs"}, Generation: g, HTTPStatus: status, Holder: holder})
}

func TestFleetReportsCauseOneExchange(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		const fleet = 500
		for i := range fleet {
			_, err := w.ask(broker.Request{Holder: fmt.Sprint("job-", i)})
			fatal(t, err)
		}
		g := w.get().Order.Generation
		w.pass(time.Minute)
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		got := make(chan tokenbroker.Generation, fleet)
		for i := range fleet {
			go func() {
				s, outcome, _, err := w.report(fmt.Sprint("job-", i), g, 401)
				if err != nil || outcome != broker.ReportNewer {
					t.Errorf("got %s, %v; want a newer token", outcome, err)
					got <- 0
					return
				}
				got <- s.Order.Generation
			}()
		}
		w.settle()
		close(let)
		for range fleet {
			if n := <-got; n <= g {
				t.Errorf("got generation %d after %d, want a later one", n, g)
			}
		}
		s, outcome, _, err := w.report("job-7", g, 401) // a late one
		if err != nil || outcome != broker.ReportNewer || s.Order.Generation <= g {
			t.Errorf("got %s, %v for a late report, want the newer token", outcome, err)
		}
		w.wantSent(2)
	})
}

func TestReportsInsideTheFloor(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		s := w.get()
		_, outcome, wait, err := w.report("job", s.Order.Generation, 401)
		if err != nil || outcome != broker.ReportWait || wait <= 0 || wait > 30*time.Second {
			t.Errorf("got %s, %s, %v; want to wait for the floor", outcome, wait, err)
		}
		w.wantSent(1)
	})
}

func TestLiarIsSlowedDown(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		var gaps []time.Duration
		last, sent := time.Now(), w.up.count()
		for end := time.Now().Add(40 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			_, _, _, err := w.report("job", w.get().Order.Generation, 401)
			fatal(t, err)
			if n := w.up.count(); n > sent {
				sent, gaps, last = n, append(gaps, time.Since(last).Round(time.Second)), time.Now()
			}
		}
		if len(gaps) < 4 || len(gaps) > 7 {
			t.Fatalf("got %d exchanges for a liar, after %v; want some, ever more rarely", len(gaps), gaps)
		}
		for i := 1; i < len(gaps); i++ {
			if gaps[i] < 2*gaps[i-1]-2*time.Second {
				t.Errorf("got an exchange %s after one after %s, want the floor to double", gaps[i], gaps[i-1])
			}
		}
		// An honest life resets it.
		w.subscribe(nil)
		w.pass(100 * time.Minute)
		g := w.get().Order.Generation
		w.pass(31 * time.Second)
		if _, outcome, wait, _ := w.report("job", g, 401); outcome != broker.ReportNewer {
			t.Errorf("got %s, %s after a token lived out its life, want the floor back where it began", outcome, wait)
		}
	})
}

// A provider may end each token long before its time, as those do that keep one token per user. Each refresh helps then, and none is held back
// for those before it, however many there were.
func TestAReportOfATokenThatWasGoodForLongIsHeldBackForNoneBefore(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		for range 20 {
			g := w.get().Order.Generation
			w.pass(20 * time.Minute)
			s, outcome, wait, err := w.report("job", g, 401)
			if err != nil || outcome != broker.ReportNewer {
				t.Fatalf("got %s, %s, %v for a token that was good for 20 min of its hour, want a newer one", outcome, wait, err)
			}
			if _, outcome, wait, _ = w.report("job", s.Order.Generation, 401); outcome != broker.ReportWait || wait != time.Minute {
				t.Errorf("got %s, %s for what came in its place, want to wait for twice the floor", outcome, wait)
			}
		}
	})
}

// A job that runs every few minutes, and whose API refuses every token, has the floor double as one does that asks all the time.
func TestAJobThatIsAlwaysRefusedIsSlowedDownHoweverSeldomItRuns(t *testing.T) {
	for _, every := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute} {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.create("a")
			const lives = 10
			for end := time.Now().Add(lives * time.Hour); time.Now().Before(end); w.pass(every) {
				_, _, _, err := w.report("job", w.get().Order.Generation, 401)
				fatal(t, err)
			}
			if n := w.up.count(); n > 7*lives {
				t.Errorf("got %d exchanges in %d lives of a token for a job that runs every %s, want few", n, lives, every)
			}
		})
	}
}

func TestReportsThatCauseNothing(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		s := w.get()
		w.pass(5 * time.Minute)
		if _, _, _, err := w.report("stranger", s.Order.Generation, 401); !errors.Is(err, tokenbroker.ErrNotHanded) {
			t.Errorf("got %v of one who never had the token, want ErrNotHanded", err)
		}
		if _, _, _, err := w.report("job", s.Order.Generation+1, 401); !errors.Is(err, tokenbroker.ErrNotHanded) {
			t.Errorf("got %v for a generation that was never handed, want ErrNotHanded", err)
		}
		if _, outcome, _, err := w.report("job", s.Order.Generation, 403); err != nil || outcome != broker.ReportCounted {
			t.Errorf("got %s, %v for a 403, want it counted", outcome, err)
		}
		w.wantSent(1)
		if got := len(w.log.of(broker.EventReport)); got != 1 {
			t.Errorf("got %d reports observed, want 1", got)
		}
	})
}

func TestReportCheck(t *testing.T) {
	good := broker.Report{Selection: broker.Selection{Credential: "acme/jobs"}, Generation: 1, HTTPStatus: 401}
	for field, spoil := range map[string]func(*broker.Report){
		"credential": func(r *broker.Report) { r.Credential = "No" },
		"scopes":     func(r *broker.Report) { r.Scopes = []string{"a b"} },
		"subject":    func(r *broker.Report) { r.Subject = "\x00" },
		"audience":   func(r *broker.Report) { r.Audience = "\n" },
		"generation": func(r *broker.Report) { r.Generation = 0 },
		"httpStatus": func(r *broker.Report) { r.HTTPStatus = 200 },
		"errorCode":  func(r *broker.Report) { r.Code = "a b" },
	} {
		t.Run(field, func(t *testing.T) {
			r := good
			spoil(&r)
			var p *tokenbroker.Problem
			if err := r.Check(); !errors.As(err, &p) || p.Field != field {
				t.Errorf("got %v, want field %s at fault", err, field)
			}
		})
	}
	fatal(t, good.Check())
}

// A 401 while a refresh token may be spent is worth one probe, and only one.
func TestReportProbesAnUncertainGrantOnce(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.subscribe(nil)
		g := w.get().Order.Generation
		w.up.use(failure(tokenbroker.ClassAmbiguous, "timeout"))
		w.pass(52 * time.Minute)
		w.wantSent(2)
		for range 10 {
			_, _, _, _ = w.report("job", g, 401) // a wait or an error
		}
		w.wantSent(3)
		w.wantState(tokenbroker.StateUncertain)
	})
}

func TestWhoWasHandedIsBounded(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		for round := range 5 {
			for i := range 100 {
				_, err := w.ask(broker.Request{Holder: fmt.Sprint(round, "/", i)})
				fatal(t, err)
			}
			w.pass(55 * time.Minute)
		}
		if got := w.b.Handed("acme/jobs"); got > 200 {
			t.Errorf("got %d identities remembered, want those of two generations", got)
		}
	})
}

func TestMinValidity(t *testing.T) {
	t.Run("one exchange per floor", func(t *testing.T) {
		run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
			w.create("a")
			w.pass(20 * time.Minute)
			s, err := w.ask(broker.Request{MinValidity: 59 * time.Minute})
			if err != nil || time.Until(s.Token.Expiry) < 59*time.Minute {
				t.Errorf("got %v, want a token of an hour", err)
			}
			var p *tokenbroker.Problem
			for range 10 {
				_, err = w.ask(broker.Request{MinValidity: 2 * time.Hour})
				if !errors.Is(err, tokenbroker.ErrMinValidity) || !errors.As(err, &p) || p.Metadata["longest"] != "1h0m0s" {
					t.Fatalf("got %v, want ErrMinValidity with the longest to be had", err)
				}
			}
			w.wantSent(2)
			w.pass(31 * time.Second)
			_, _ = w.ask(broker.Request{MinValidity: 2 * time.Hour}) // unattainable, but tried
			w.wantSent(3)
		})
	})
	t.Run("never kills what others hold", func(t *testing.T) {
		run(t, plan{traits: tokenbroker.Traits{Rotates: true, KillsOld: true}}, func(t *testing.T, w *world) {
			w.create("a")
			w.pass(20 * time.Minute)
			if _, err := w.ask(broker.Request{MinValidity: 59 * time.Minute}); !errors.Is(err, tokenbroker.ErrMinValidity) {
				t.Errorf("got %v, want ErrMinValidity", err)
			}
			w.wantSent(1)
		})
	})
}

// uncertain is a world in which the answer to the refresh of the credential's own, expired token was lost, while the token of
// another variant is valid yet.
func (w *world) uncertain() *broker.Snapshot {
	w.t.Helper()
	w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		life := 10 * time.Minute
		if len(r.Variant.Scopes) == 1 {
			life = 3 * time.Hour
		}
		return gives(life, true)(ctx, n, r)
	})
	w.create("a", "b")
	_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
	fatal(w.t, err)
	s := w.get()
	w.up.use(failure(tokenbroker.ClassAmbiguous, "timeout"))
	w.pass(10 * time.Minute)
	w.wantSent(3)
	w.wantState(tokenbroker.StateUncertain)
	return s
}

// A status that a refresh can't help says nothing of the token: it must not cause the one probe of an uncertain refresh token.
func TestOnlyA401ProbesAnUncertainGrant(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}, func(t *testing.T, w *world) {
		s := w.uncertain()
		for _, status := range []int{400, 403, 500} {
			if _, _, _, err := w.report("job", s.Order.Generation, status); !errors.Is(err, tokenbroker.ErrUncertain) {
				t.Errorf("status %d: got %v, want ErrUncertain", status, err)
			}
		}
		w.wantSent(3)
		_, _, _, _ = w.report("job", s.Order.Generation, 401) // an error
		w.wantSent(4)
	})
}

// A report that is answered after the credential was configured anew hands out a token, which can be reported in turn.
func TestReportDuringAnEditHandsOutTheNewToken(t *testing.T) {
	run(t, plan{traits: tokenbroker.Traits{Rotates: true, Downscopes: true}}, func(t *testing.T, w *world) {
		w.create("a", "b")
		g := w.get().Order.Generation
		w.pass(time.Minute)
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		go func() { // takes the spend lock
			_, _ = w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
		}()
		w.settle()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s, outcome, _, err := w.report("job", g, 401)
			if err != nil || outcome != broker.ReportNewer {
				t.Errorf("got %s, %v; want a newer token", outcome, err)
				return
			}
			if _, _, _, err := w.report("job", s.Order.Generation, 401); err != nil {
				t.Errorf("got %v for a report of the token that came of a report, want it taken", err)
			}
		}()
		w.settle()
		w.widen("a", "b", "c")
		close(let)
		<-done
	})
}

// TestAFleetThatReportsWhileTheExchangeEndsMovesOn: whoever looks at the state just before the newer token is there, and at the floor
// just after, must not be told to wait for what there is.
func TestAFleetThatReportsWhileTheExchangeEndsMovesOn(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		for range 30 {
			w.pass(20 * time.Minute) // the floor has doubled for reports that did not help, but no more than this
			g := w.get().Order.Generation
			var wg sync.WaitGroup
			for range 2000 {
				wg.Go(func() {
					s, outcome, _, err := w.report("job", g, 401)
					if err != nil || outcome != broker.ReportNewer || s.Order.Generation <= g {
						t.Errorf("got %s, %v, want a newer token", outcome, err)
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			w.pass(50 * time.Minute) // it lives out its life
			w.get()
		}
	})
}
