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

// exchanger makes a credential whose subject token is another one's access token.
func (w *world) exchanger(name, source string) error {
	w.t.Helper()
	_, err := w.b.CreateCredential(w.t.Context(), broker.NewCredential{Credential: tokenbroker.Credential{Name: name, Provider: "acme", Client: "app",
		Grant: tokenbroker.GrantTokenExchange, Source: source}})
	w.settle()
	return err
}

func TestACredentialFeedsAnother(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, err := gives(time.Hour, false)(ctx, n, r)
			if r.Credential.Source != "" {
				reply.Token.AccessToken = tokenbroker.NewSecret("for " + r.RefreshToken.Reveal())
				if r.Holds != tokenbroker.HoldsSubjectToken {
					t.Errorf("got a request that holds %q, want a subject token", r.Holds)
				}
			}
			return reply, err
		})
		w.createMachine("a")
		w.subscribe(nil)
		fatal(t, w.exchanger("acme/fed", "acme/jobs"))
		fed := broker.Request{Selection: broker.Selection{Credential: "acme/fed"}}
		s, err := w.ask(fed)
		if err != nil || s.Token.AccessToken.Reveal() != "for at-1" {
			t.Fatalf("got %v, want a token for the source's", err)
		}
		w.wantSent(2)
		w.pass(20 * time.Minute)
		_, err = w.b.Refresh(t.Context(), "acme/jobs")
		fatal(t, err)
		w.pass(time.Second)
		w.wantSent(3) // a new token of the source is no reason to fetch another one
		if err := w.b.DeleteCredential(t.Context(), "acme/jobs", 0); !errors.Is(err, tokenbroker.ErrInUse) {
			t.Errorf("delete the source: got %v, want ErrInUse", err)
		}
		w.restart()
		w.settle()
		if err := w.b.DeleteCredential(t.Context(), "acme/jobs", 0); !errors.Is(err, tokenbroker.ErrInUse) {
			t.Errorf("delete the source after a restart: got %v, want ErrInUse", err)
		}
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/fed", 0))
		fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
	})
}

func TestASourceThatFailsIsTold(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.create("a")
		fatal(t, w.exchanger("acme/fed", "acme/jobs"))
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if r.Credential.Source == "" {
				return tokenbroker.ExchangeReply{Sent: time.Now()}, &tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant", Sent: true}
			}
			return gives(time.Hour, true)(ctx, n, r)
		})
		w.pass(2 * time.Hour)
		fed := broker.Request{Selection: broker.Selection{Credential: "acme/fed"}}
		_, err := w.ask(fed)
		if !errors.Is(err, tokenbroker.ErrReauthorize) || strings.Contains(err.Error(), "acme/jobs") {
			t.Errorf("got %v, want ErrReauthorize that does not name the source", err)
		}
		st, err := w.b.Credential(t.Context(), "acme/fed")
		if err != nil || st.Snapshot.State != tokenbroker.StateDegraded || st.Snapshot.Code != "source_failed" {
			t.Errorf("got %s %s, want DEGRADED source_failed: it is not its own fault", st.Snapshot.State, st.Snapshot.Code)
		}
		_, err = w.b.SetDisabled(t.Context(), "acme/jobs", true)
		fatal(t, err)
		w.pass(10 * time.Minute)
		if _, err = w.ask(fed); !errors.Is(err, tokenbroker.ErrDisabled) {
			t.Errorf("got %v, want ErrDisabled", err)
		}
	})
}

func TestSourcesGoInNoCircle(t *testing.T) {
	run(t, plan{answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
		w.createMachine("a")
		for i, c := range []struct {
			name, source string
			good         bool
		}{
			{"acme/own", "acme/own", false},
			{"acme/none", "acme/missing", false},
			{"acme/one", "acme/jobs", true},
			{"acme/two", "acme/one", true},
			{"acme/three", "acme/two", true},
			{"acme/four", "acme/three", false},
		} {
			if err := w.exchanger(c.name, c.source); (err == nil) != c.good {
				t.Errorf("%d: %s from %s: got %v, want it taken: %t", i, c.name, c.source, err, c.good)
			}
		}
		_, err := w.b.UpdateCredential(t.Context(), "acme/one", 0, func(c *tokenbroker.Credential) error { c.Source = "acme/two"; return nil })
		if !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("an edit that closes a circle: got %v, want it refused", err)
		}
		_, err = w.b.UpdateCredential(t.Context(), "acme/one", 0, func(c *tokenbroker.Credential) error { c.Source = ""; return nil })
		if !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("an edit that takes the source away: got %v, want it refused", err)
		}
		_, err = w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error { c.Source = "acme/one"; return nil })
		if !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("a source of another grant: got %v, want it refused", err)
		}
	})
}

func TestCheckJudgesTheTokenAndShowsNone(t *testing.T) {
	run(t, plan{answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
		w.createMachine("a", "b")
		seen := ""
		w.up.check = func(r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
			seen = r.Token.AccessToken.Reveal()
			if r.Secret.Secret.Reveal() != "s3cret" {
				t.Error("got no client secret to ask with")
			}
			return tokenbroker.CheckReply{Method: tokenbroker.CheckIntrospection, Active: true, Scopes: []string{"a"}, Skew: 7 * time.Second}, nil
		}
		c, err := w.b.Check(t.Context(), broker.Selection{Credential: "acme/jobs"})
		if err != nil || seen != "at-1" || !c.Token.AccessToken.IsZero() || len(c.Missing) != 1 || c.Missing[0] != "b" || c.Order.Generation == 0 {
			t.Errorf("got %+v, %v of %q; want at-1 judged, b missing, and no token", c, err, seen)
		}
		if got := w.b.Handed("acme/jobs"); got != 0 {
			t.Errorf("got %d holders, want nobody who was handed it", got)
		}
		if got := w.status().Skew; got != 7*time.Second {
			t.Errorf("got skew %v, want what the check saw", got)
		}
		w.up.check = func(tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
			return tokenbroker.CheckReply{}, &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_failed"}
		}
		_, err = w.b.Check(t.Context(), broker.Selection{Credential: "acme/jobs"})
		wantCode(t, err, tokenbroker.ErrUpstream, "connect_failed")
	})
}

// Where nobody can be asked, what jobs have reported is what is known.
func TestCheckKnowsOfTheNewestTokensReport(t *testing.T) {
	run(t, plan{answer: gives(time.Hour, false)}, func(t *testing.T, w *world) {
		w.createMachine("a")
		w.up.check = func(tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
			return tokenbroker.CheckReply{Method: tokenbroker.CheckNone}, nil
		}
		code := func() string {
			c, err := w.b.Check(t.Context(), broker.Selection{Credential: "acme/jobs"})
			fatal(t, err)
			return c.Reply.Code
		}
		s, err := w.ask(broker.Request{Holder: "job"})
		fatal(t, err)
		if got := code(); got != "" {
			t.Errorf("got %q of a token that nobody reported", got)
		}
		_, _, _, err = w.report("job", s.Order.Generation, 403)
		fatal(t, err)
		if got := code(); got != "" {
			t.Errorf("got %q of a token that lacks a scope", got)
		}
		_, outcome, _, err := w.report("job", s.Order.Generation, 401)
		if got := code(); err != nil || outcome != broker.ReportWait || got != "reported_401" {
			t.Errorf("got %q, %s, %v of a token that was just refused", got, outcome, err)
		}
		w.pass(time.Minute)
		_, outcome, _, err = w.report("job", s.Order.Generation, 401)
		if got := code(); err != nil || outcome != broker.ReportNewer || got != "" {
			t.Errorf("got %q, %s, %v of the next token", got, outcome, err)
		}
	})
}
