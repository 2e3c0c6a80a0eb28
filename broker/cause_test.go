package broker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

func advised(c *broker.Config) {
	c.Advice = func(_ string, cause tokenbroker.Cause, grant tokenbroker.GrantType) string {
		switch cause {
		case "delegation_not_authorized":
			return "Authorize it in the Admin console."
		case "token_expired_or_revoked":
			return "Bring what " + string(grant) + " lives on."
		}
		return ""
	}
}

func TestTheCauseOfAFailureIsTold(t *testing.T) {
	p := plan{traits: rotating, config: advised, answer: refuses(tokenbroker.Failure{Class: tokenbroker.ClassConfiguration,
		Code: "unauthorized_client", Cause: "delegation_not_authorized", Sent: true})}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a")
		check := func(when string) {
			st := w.status()
			if s := st.Snapshot; s.State != tokenbroker.StateMisconfigured || s.Cause != "delegation_not_authorized" || st.Advice != "Authorize it in the Admin console." {
				t.Errorf("%s: got %s %s, advice %q", when, s.State, s.Cause, st.Advice)
			}
			_, err := w.ask(broker.Request{})
			wantCode(t, err, tokenbroker.ErrMisconfigured, "unauthorized_client")
			var problem *tokenbroker.Problem
			if errors.As(err, &problem); problem.Metadata["cause"] != "delegation_not_authorized" || !strings.Contains(problem.Detail, "Admin console") {
				t.Errorf("%s: got %+v, want the cause and what to do", when, problem)
			}
		}
		check("at first")
		_, err := w.b.Refresh(t.Context(), "acme/jobs")
		wantCode(t, err, tokenbroker.ErrMisconfigured, "unauthorized_client")
		if !strings.Contains(err.Error(), "Admin console") || !strings.Contains(err.Error(), "again in") {
			t.Errorf("got %v, want what to do, and when it can be tried", err)
		}
		w.wantSent(1)
		w.restart()
		w.settle()
		check("after a restart")
		w.up.use(gives(time.Hour, true))
		w.pass(time.Minute)
		_, err = w.b.Refresh(t.Context(), "acme/jobs")
		fatal(t, err)
		if s := w.status().Snapshot; s.State != tokenbroker.StateReady || s.Code != "" || s.Cause != "" {
			t.Errorf("got %s %s %s after it was mended, want READY", s.State, s.Code, s.Cause)
		}
	})
}

// The way back to life depends on what the grant lives on: there may be nothing to consent to.
func TestWhatToDoAboutADeadGrantFollowsTheGrant(t *testing.T) {
	p := plan{traits: rotating, config: advised, answer: refuses(tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant,
		Code: "invalid_grant", Cause: "token_expired_or_revoked", Sent: true})}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a")
		const want = "Bring what refresh_token lives on."
		if st := w.status(); st.Snapshot.State != tokenbroker.StateReauthorize || st.Advice != want {
			t.Errorf("got %s, advice %q, want %q", st.Snapshot.State, st.Advice, want)
		}
		_, err := w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "invalid_grant")
		if problem, _ := errors.AsType[*tokenbroker.Problem](err); problem == nil || !strings.HasSuffix(problem.Detail, want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	})
}

// What the credential's own scopes are refused for is for the operator to mend, whoever asks.
func TestTheCredentialsOwnScopesAreConfiguration(t *testing.T) {
	p := plan{traits: tokenbroker.Traits{Downscopes: true}, answer: failure(tokenbroker.ClassConfiguration, "invalid_scope")}
	run(t, p, func(t *testing.T, w *world) {
		w.create("a", "b")
		w.wantState(tokenbroker.StateMisconfigured)
		for range 2 { // by the flight, and from memory
			_, err := w.ask(broker.Request{})
			wantCode(t, err, tokenbroker.ErrMisconfigured, "invalid_scope")
		}
		w.wantSent(1)
		for range 2 {
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a"}}})
			wantCode(t, err, tokenbroker.ErrScopeNotAllowed, "invalid_scope")
		}
		w.wantSent(2)
	})
}

func TestInvariant6AChosenSubjectFailsAlone(t *testing.T) {
	key := newKey(t)
	run(t, plan{config: advised}, func(t *testing.T, w *world) {
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if r.Variant.Subject == "eve@example.org" {
				return tokenbroker.ExchangeReply{Sent: time.Now()}, &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "unauthorized_client",
					Cause: "delegation_not_authorized", Sent: true}
			}
			return gives(time.Hour, false)(ctx, n, r)
		})
		w.serviceAccount(key)
		w.made(tokenbroker.GrantJWTBearer, "", nil)
		of := func(subject string) broker.Request {
			return broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Subject: subject}}
		}
		_, err := w.ask(of("jo@example.org"))
		fatal(t, err)
		for range 3 {
			_, err = w.ask(of("eve@example.org"))
			wantCode(t, err, tokenbroker.ErrMisconfigured, "unauthorized_client")
		}
		w.wantSent(3)
		w.get()
		w.wantState(tokenbroker.StateReady)
		if g := w.grant(); g.State != tokenbroker.StateReady {
			t.Errorf("got %s in the store, want READY", g.State)
		}
		w.pass(14 * time.Minute)
		_, err = w.ask(of("eve@example.org"))
		wantCode(t, err, tokenbroker.ErrMisconfigured, "unauthorized_client")
		w.wantSent(3) // delegation takes a while: not sooner than after a quarter of an hour
		w.up.use(gives(time.Hour, false))
		w.pass(17 * time.Minute)
		_, err = w.ask(of("eve@example.org"))
		fatal(t, err)
	})
}

func TestClockSkewIsRemembered(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		ahead := func(skew time.Duration) answer {
			return func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
				reply, err := gives(time.Hour, false)(ctx, n, r)
				reply.Skew = skew
				return reply, err
			}
		}
		w.up.use(ahead(90 * time.Second))
		w.createMachine("a")
		w.subscribe(nil)
		if got := w.status().Skew; got != 90*time.Second {
			t.Errorf("got skew %v, want 90s", got)
		}
		w.pass(55 * time.Minute)
		w.up.use(ahead(3 * time.Second))
		w.pass(time.Hour)
		if got := w.status().Skew; got != 0 {
			t.Errorf("got skew %v, want none that is worth telling", got)
		}
		if got := w.log.of(broker.EventClockSkew); len(got) != 2 || got[0].Skew != 90*time.Second || got[0].Provider != "acme" {
			t.Errorf("got %d events %v, want one for each change", len(got), got)
		}
		w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassClockSkew, Code: "invalid_grant", Cause: "clock_skew", Skew: -time.Hour, Sent: true}))
		w.pass(time.Hour)
		if st := w.status(); st.Skew != -time.Hour || st.Snapshot.State != tokenbroker.StateMisconfigured {
			t.Errorf("got skew %v and %s, want -1h and MISCONFIGURED", st.Skew, st.Snapshot.State)
		}
	})
}
