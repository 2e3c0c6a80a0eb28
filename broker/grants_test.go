package broker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const day = 24 * time.Hour

// made creates the credential "acme/jobs" of a grant, with what it is to live on.
func (w *world) made(grant tokenbroker.GrantType, held string, change func(*broker.NewCredential)) {
	w.t.Helper()
	n := broker.NewCredential{Credential: tokenbroker.Credential{Name: "acme/jobs", Provider: "acme", Grant: grant, Scopes: []string{"a", "b"}},
		RefreshToken: tokenbroker.NewSecret(held)}
	if held != "" {
		n.Holds = grant.Keeps()
	}
	if !grant.Clientless() {
		n.Credential.Client = "app"
	}
	if grant == tokenbroker.GrantJWTBearer {
		n.Credential.Subject = "robot@acme"
	}
	if change != nil {
		change(&n)
	}
	_, err := w.b.CreateCredential(w.t.Context(), n)
	fatal(w.t, err)
	w.settle()
}

// wantCode checks an error's sentinel and the code that it tells.
func wantCode(t *testing.T, err, sentinel error, code string) {
	t.Helper()
	var p *tokenbroker.Problem
	if !errors.Is(err, sentinel) || !errors.As(err, &p) || p.Metadata["code"] != code {
		t.Errorf("got %v, want %v with code %s", err, sentinel, code)
	}
}

func TestAStaticTokenIsServedUntilItsEndAndWarnedOf(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		end := time.Now().Add(40 * day)
		w.made(tokenbroker.GrantStatic, "key-1", func(n *broker.NewCredential) { n.RefreshEnd = end })
		if got := w.get(); got.Token.AccessToken.Reveal() != "key-1" || !got.Token.Expiry.Equal(end) {
			t.Errorf("got a token until %v, want the static one until %v", got.Token.Expiry, end)
		}
		if st := w.status(); !st.GrantEnd.Equal(end) || st.Grant.Holds != tokenbroker.HoldsToken {
			t.Errorf("got end %v, holding %q; want %v and a token", st.GrantEnd, st.Grant.Holds, end)
		}
		for i, at := range []int{30, 7, 1} {
			w.pass(time.Until(end) - time.Duration(at)*day + time.Minute)
			if got := len(w.log.of(broker.EventExpiring)); got != i+1 {
				t.Errorf("%d days before: got %d warnings, want %d", at, got, i+1)
			}
		}
		w.pass(time.Until(end) + 2*time.Minute)
		_, err := w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "static_token_expired")
		if got := w.grant().State; got != tokenbroker.StateReauthorize {
			t.Errorf("got %s in the store, want REAUTHORIZE: it ended with nobody asking", got)
		}
		sent := w.up.count()
		w.restart()
		w.settle()
		w.wantState(tokenbroker.StateReauthorize)
		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("key-2"), Holds: tokenbroker.HoldsToken})
		fatal(t, err)
		w.settle()
		if got := w.get(); got.Token.AccessToken.Reveal() != "key-2" {
			t.Error("got another token than the one imported")
		}
		w.wantSent(sent + 1)
	})
}

func TestACredentialWithoutAClientIsRefusedOne(t *testing.T) {
	run(t, plan{}, func(t *testing.T, w *world) {
		w.client()
		n := broker.NewCredential{Credential: tokenbroker.Credential{Name: "acme/key", Provider: "acme", Grant: tokenbroker.GrantStatic, Client: "app"},
			RefreshToken: tokenbroker.NewSecret("k"), Holds: tokenbroker.HoldsToken, ValidateOnly: true}
		if _, err := w.b.CreateCredential(t.Context(), n); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("with a client: got %v, want it refused", err)
		}
		n.Credential.Client = ""
		st, err := w.b.CreateCredential(t.Context(), n)
		if err != nil || len(st.Warnings) == 0 {
			t.Errorf("got warnings %q, %v; want one of a missing expiry", st.Warnings, err)
		}
		n.RefreshEnd = time.Now().Add(-time.Second)
		if _, err := w.b.CreateCredential(t.Context(), n); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("already expired: got %v, want it refused", err)
		}
	})
}

func TestAConsentStillToComeIsNotTried(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.client()
		w.made(tokenbroker.GrantAuthorizationCode, "", nil)
		r := w.subscribe(nil)
		if s := r.one().Snapshot; s.State != tokenbroker.StatePending || s.Code != "consent_needed" || s.Recovery != tokenbroker.RecoveryReauthorize {
			t.Errorf("got %s %s %s, want PENDING, consent_needed, REAUTHORIZE", s.State, s.Code, s.Recovery)
		}
		_, err := w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "consent_needed")
		_, err = w.b.Refresh(t.Context(), "acme/jobs")
		wantCode(t, err, tokenbroker.ErrReauthorize, "consent_needed")
		if w.status().Advice == "" {
			t.Error("got no advice, want what to do")
		}
		w.pass(day)
		w.wantSent(0)

		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-consent"),
			Token: fresh("at-consent", time.Hour, []string{"a", "b"}), Account: "jo@example.org", SecretID: "s"})
		fatal(t, err)
		w.settle()
		if s := r.one().Snapshot; s.State != tokenbroker.StateReady || s.Token == nil || s.Token.AccessToken.Reveal() != "at-consent" {
			t.Errorf("got %+v, want the token of the consent at once", s)
		}
		w.wantSent(0)
		if st := w.status(); st.Grant.Account != "jo@example.org" || st.Grant.Consented.IsZero() || st.Rotated {
			t.Errorf("got account %q, consented %v, rotated %t", st.Grant.Account, st.Grant.Consented, st.Rotated)
		}
		w.pass(55 * time.Minute)
		w.wantSent(1)
		if q, _ := w.up.request(1); q.RefreshToken.Reveal() != "rt-consent" || q.Holds != tokenbroker.HoldsRefreshToken {
			t.Errorf("got another refresh token, holding %q", q.Holds)
		}
		if !w.status().Rotated {
			t.Error("got no rotation, want it seen")
		}
	})
}

func TestAConsentWithoutARefreshTokenIsServedToItsEnd(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		w.made(tokenbroker.GrantAuthorizationCode, "", nil)
		r := w.subscribe(nil)
		end := time.Now().Add(60 * day)
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{Token: fresh("at", 60*day, []string{"a", "b"})})
		fatal(t, err)
		w.settle()
		r.take()
		if st := w.status(); !st.GrantEnd.Equal(end) || st.Grant.Lives() {
			t.Errorf("got end %v, want %v and no refresh token", st.GrantEnd, end)
		}
		w.restart()
		w.settle()
		w.wantState(tokenbroker.StateReady)
		_, err = w.ask(broker.Request{MinValidity: broker.MaxMinValidity})
		fatal(t, err)
		w.pass(59*day + time.Hour)
		if got := w.log.of(broker.EventExpiring); len(got) != 3 {
			t.Errorf("got %d warnings, want 3", len(got))
		}
		if _, err = w.ask(broker.Request{MinValidity: broker.MaxMinValidity}); !errors.Is(err, tokenbroker.ErrMinValidity) {
			t.Errorf("got %v, want ErrMinValidity: nothing can prolong it", err)
		}
		w.get()
		w.pass(day)
		w.wantSent(0)
		_, err = w.ask(broker.Request{})
		wantCode(t, err, tokenbroker.ErrReauthorize, "no_refresh_token")
		if g := w.grant(); g.State != tokenbroker.StateReauthorize || g.Code != "no_refresh_token" {
			t.Errorf("got %s %s in the store, want REAUTHORIZE no_refresh_token", g.State, g.Code)
		}
	})
}

// A provider that gives a refresh token with the first consent only must not lose it to the second.
func TestAConsentWithoutARefreshTokenKeepsOneThatWorks(t *testing.T) {
	run(t, plan{traits: rotating, answer: gives(time.Hour, true)}, func(t *testing.T, w *world) {
		w.client()
		w.made(tokenbroker.GrantAuthorizationCode, "", nil)
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt"), Token: fresh("at-first", time.Hour, nil)})
		fatal(t, err)
		before := w.grant()
		_, err = w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{Token: fresh("at-consent", time.Hour, nil)})
		fatal(t, err)
		w.settle()
		if g := w.grant(); g.RefreshToken != before.RefreshToken || g.Serial != before.Serial {
			t.Errorf("got serial %d, want %d and the same refresh token", g.Serial, before.Serial)
		}
		if got := w.get(); got.Token.AccessToken.Reveal() != "at-consent" {
			t.Error("got another token than that of the consent")
		}
	})
}

func TestAnAdoptionWinsOverTheFlightThatItMeets(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		r := w.subscribe(nil)
		r.take()
		let := make(chan struct{})
		w.up.use(held(let, gives(time.Hour, true)))
		for w.up.count() == 1 {
			w.pass(time.Second)
		}
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-consent"), Token: fresh("at-consent", time.Hour, []string{"a"})})
		fatal(t, err)
		close(let)
		w.settle()
		if got := w.get(); got.Token.AccessToken.Reveal() != "at-consent" {
			t.Error("got the flight's token, want that of the consent")
		}
		if got := w.grant().RefreshToken.Reveal(); got != "rt-consent" {
			t.Error("got another refresh token than that of the consent")
		}
		if got := len(w.orphans()); got != 1 {
			t.Errorf("got %d orphans, want the flight's result kept apart", got)
		}
		last := r.take()
		if n := len(last); n == 0 || last[n-1].Snapshot.Token.AccessToken.Reveal() != "at-consent" {
			t.Errorf("got %d updates, want the last to be the consent's token", n)
		}
	})
}

func TestAPasswordIsKeptOnlyUntilARefreshTokenCame(t *testing.T) {
	p := plan{traits: rotating, answer: gives(time.Hour, true), change: func(p *provider.Profile) {
		p.Grants = []tokenbroker.GrantType{tokenbroker.GrantPassword}
	}}
	run(t, p, func(t *testing.T, w *world) {
		w.client()
		w.made(tokenbroker.GrantPassword, "hunter2", func(n *broker.NewCredential) { n.Credential.Subject = "jo" })
		w.get()
		if q, _ := w.up.request(1); q.Holds != tokenbroker.HoldsPassword || q.RefreshToken.Reveal() != "hunter2" {
			t.Errorf("got a request that holds %q, want the password", q.Holds)
		}
		if g := w.grant(); g.Holds != tokenbroker.HoldsRefreshToken || g.RefreshToken.Reveal() != "rt-1" || !g.Previous.IsZero() || g.Serial != 2 {
			t.Errorf("got holds %q, serial %d, previous %t; want the refresh token alone", g.Holds, g.Serial, !g.Previous.IsZero())
		}
		if got := len(w.log.of(broker.EventIntent)); got != 1 {
			t.Errorf("got %d attempts, want 1", got)
		}
		w.subscribe(nil)
		w.up.use(func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			if w.grant().Intent == nil {
				t.Error("got no intent while the refresh token is spent")
			}
			return gives(time.Hour, true)(ctx, n, r)
		})
		w.pass(55 * time.Minute)
		if q, _ := w.up.request(2); q.Holds != tokenbroker.HoldsRefreshToken || q.RefreshToken.Reveal() != "rt-1" {
			t.Errorf("got a request that holds %q, want the refresh token", q.Holds)
		}
	})
}

func TestScopesThatWereNotGranted(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.client()
		w.made(tokenbroker.GrantAuthorizationCode, "", nil)
		_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt"),
			Token: fresh("at", time.Hour, []string{"a"}), Granted: []string{"a"}})
		fatal(t, err)
		w.settle()
		w.get() // the credential's own variant is served with what was granted
		if st := w.status(); !slices.Equal(st.Missing, []string{"b"}) || !slices.Equal(st.Grant.Granted, []string{"a"}) {
			t.Errorf("got missing %v of granted %v, want b", st.Missing, st.Grant.Granted)
		}
		both := broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a", "b"}}}
		if _, err := w.ask(both); !errors.Is(err, tokenbroker.ErrScopeNotGranted) {
			t.Errorf("got %v, want ErrScopeNotGranted", err)
		}
		r := w.subscribe(nil, both.Selection)
		if u := r.one(); !errors.Is(u.Removed, tokenbroker.ErrScopeNotGranted) {
			t.Errorf("got %v, want the selector turned away", u.Removed)
		}
		w.subscribe(nil)
		w.up.use(func(_ context.Context, _ int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, err := gives(time.Hour, true)(t.Context(), 1, r)
			reply.Granted = []string{"b", "a"}
			return reply, err
		})
		w.pass(55 * time.Minute)
		if _, err := w.ask(both); err != nil {
			t.Errorf("got %v after a reply that names both, want a token", err)
		}
	})
}

// Who has to get a scope granted may have nothing to consent to: the refresh token was imported.
func TestHowToGetAScopeGrantedFollowsTheGrant(t *testing.T) {
	for grant, want := range map[tokenbroker.GrantType]string{
		tokenbroker.GrantRefreshToken:      "import anew what the credential lives on",
		tokenbroker.GrantAuthorizationCode: "connect the credential again",
	} {
		run(t, plan{traits: rotating, answer: func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, err := gives(time.Hour, true)(ctx, n, r)
			reply.Granted = []string{"a"}
			return reply, err
		}}, func(t *testing.T, w *world) {
			w.client()
			w.made(grant, "rt-0", nil)
			w.get()
			_, err := w.ask(broker.Request{Selection: broker.Selection{Credential: "acme/jobs", Scopes: []string{"a", "b"}}})
			if p, _ := errors.AsType[*tokenbroker.Problem](err); p == nil || !errors.Is(err, tokenbroker.ErrScopeNotGranted) || !strings.Contains(p.Detail, want) {
				t.Errorf("%s: got %v, want to be told to %s", grant, err, want)
			}
		})
	}
}

// A consent that lands between the commit of an exchange and its publication is the newer one.
func TestAnAdoptionRightAfterACommitIsNotOverwritten(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		r := w.subscribe(nil)
		r.take()
		w.store.hook(nil, func(_ context.Context, op string) error {
			if op != "commit" {
				return nil
			}
			w.store.hook(nil, nil)
			_, err := w.b.Adopt(context.Background(), "acme/jobs", tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret("rt-consent"), Token: fresh("at-consent", time.Hour, []string{"a"})})
			return err
		})
		w.up.use(gives(time.Hour, true))
		w.pass(55 * time.Minute)
		if got := w.get(); got.Token.AccessToken.Reveal() != "at-consent" {
			t.Error("got the token of the exchange, want that of the consent")
		}
		if u := r.take(); len(u) == 0 || u[len(u)-1].Snapshot.Token.AccessToken.Reveal() != "at-consent" {
			t.Error("got another token last than that of the consent")
		}
	})
}
