package sandbox_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestStrictRotationRevokesTheFamilyOnReplay(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		first := w.seed("read")
		one := w.refresh(first).want(t, 200, "")
		second := one.str("refresh_token")
		if second == first || !strings.HasPrefix(second, sandbox.RefreshPrefix) {
			t.Fatalf("got successor %q, want a new one", second)
		}
		two := w.refresh(second).want(t, 200, "")
		w.wantValid(one.str("access_token"), true)
		w.wantValid(two.str("access_token"), true)

		w.refresh(first).want(t, 400, "invalid_grant")
		w.wantValid(one.str("access_token"), false)
		w.wantValid(two.str("access_token"), false)
		w.refresh(two.str("refresh_token")).want(t, 400, "invalid_grant")

		other := w.seed("read")
		w.refresh(other).want(t, 200, "") // another consent is not touched
	})
}

func TestGraceIsHalfOpen(t *testing.T) {
	for name, row := range map[string]struct {
		after  time.Duration
		status int
	}{
		"a nanosecond before its end the previous token is forgiven": {10*time.Second - 1, 200},
		"at its end the replay kills":                                {10 * time.Second, 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateGrace, Grace: 10 * time.Second})
				first := w.seed()
				one := w.refresh(first).want(t, 200, "")
				time.Sleep(row.after)
				again := w.refresh(first)
				if again.status != row.status {
					t.Fatalf("got %d, want %d", again.status, row.status)
				}
				w.wantValid(one.str("access_token"), row.status == 200)
				if row.status == 200 {
					w.wantValid(again.str("access_token"), true)
					w.refresh(again.str("refresh_token")).want(t, 200, "")
				}
			})
		})
	}
}

func TestGraceIsNotProlongedByReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateGrace, Grace: 10 * time.Second})
		first := w.seed()
		w.refresh(first).want(t, 200, "")
		for range 3 { // each answer but the last is lost, so the client asks again
			time.Sleep(3 * time.Second)
			w.refresh(first).want(t, 200, "")
		}
		time.Sleep(time.Second)
		w.refresh(first).want(t, 400, "invalid_grant")
	})
}

func TestGraceForgivesOnlyTheImmediatelyPreviousToken(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateGrace, Grace: time.Hour})
	first := w.seed()
	second := w.refresh(first).str("refresh_token")
	third := w.refresh(second).str("refresh_token")
	w.refresh(first).want(t, 400, "invalid_grant")
	w.refresh(third).want(t, 400, "invalid_grant")
}

func TestGraceReplacesTheSuccessorThatWasLost(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateGrace, Grace: time.Hour})
	first := w.seed()
	lost := w.refresh(first).str("refresh_token")
	kept := w.refresh(first).str("refresh_token")
	w.refresh(lost).want(t, 400, "invalid_grant")
	w.refresh(kept).want(t, 400, "invalid_grant")
}

func TestWithoutRotationATokenStays(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateNone})
	token := w.seed("read")
	for range 3 {
		if r := w.refresh(token).want(t, 200, ""); r.json["refresh_token"] != nil {
			t.Fatal("got a refresh token, want none")
		}
	}
}

func TestRefreshTokenDiesOfIdleness(t *testing.T) {
	for name, rotation := range map[string]sandbox.Rotation{"strict": sandbox.RotateStrict, "none": sandbox.RotateNone} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sandbox.Issuer{Rotation: rotation, RefreshLife: time.Minute})
				token := w.seed()
				for range 3 {
					time.Sleep(time.Minute - 1)
					if next := w.refresh(token).want(t, 200, "").str("refresh_token"); next != "" {
						token = next
					}
				}
				time.Sleep(time.Minute)
				w.refresh(token).want(t, 400, "invalid_grant")
			})
		})
	}
}

func TestAccessTokenLivesUntilItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{AccessLife: 90 * time.Second})
		r := w.refresh(w.seed()).want(t, 200, "")
		if r.json["expires_in"] != 90.0 {
			t.Errorf("got expires_in %v, want 90", r.json["expires_in"])
		}
		time.Sleep(90*time.Second - 1)
		w.wantValid(r.str("access_token"), true)
		time.Sleep(time.Nanosecond)
		w.wantValid(r.str("access_token"), false)
	})
}

func TestKillsOldEndsThePreviousAccessToken(t *testing.T) {
	for name, kills := range map[string]bool{"kills": true, "keeps": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{KillsOld: kills})
			one := w.refresh(w.seed())
			other := w.refresh(w.seed())
			two := w.refresh(one.str("refresh_token")).want(t, 200, "")
			w.wantValid(one.str("access_token"), !kills)
			w.wantValid(two.str("access_token"), true)
			w.wantValid(other.str("access_token"), true)
		})
	}
}

func TestConcurrentRefreshHasOneWinnerAndADeadFamily(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		token := w.seed("read")
		replies := make([]reply, 8)
		var wg sync.WaitGroup
		for i := range replies {
			wg.Go(func() {
				r, err := w.try(w.refreshing(token))
				if err != nil {
					t.Error(err)
				}
				replies[i] = r
			})
		}
		wg.Wait()
		var winners []reply
		for _, r := range replies {
			if r.status == 200 {
				winners = append(winners, r)
			}
		}
		if len(winners) != 1 {
			t.Fatalf("got %d winners, want 1", len(winners))
		}
		w.wantValid(winners[0].str("access_token"), false)
		w.refresh(winners[0].str("refresh_token")).want(t, 400, "invalid_grant")
		got, want := w.srv.Redemptions()[sandbox.Fingerprint(token)], (sandbox.Redemption{Presented: 8, Redeemed: 1})
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestARefusedScopeDoesNotSpendTheToken(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Downscope: true})
	token := w.seed("read", "write")
	w.refresh(token, "scope", "read admin").want(t, 400, "invalid_scope")
	w.refresh(token, "scope", "read  write").want(t, 400, "invalid_scope")
	narrow := w.refresh(token, "scope", "read").want(t, 200, "")
	if got := narrow.str("scope"); got != "read" {
		t.Errorf("got scope %q, want read", got)
	}
	if got := w.refresh(narrow.str("refresh_token")).str("scope"); got != "read write" {
		t.Errorf("got scope %q of the next refresh, want the whole grant", got)
	}
}

func TestAnIssuerThatDoesNotDownscopeSaysSo(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	token := w.seed("read", "write")
	w.refresh(token, "scope", "read").want(t, 400, "invalid_scope")
	w.refresh(token, "scope", "write read").want(t, 200, "")
}

func TestRefreshTokenBelongsToItsClientAndIssuer(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.refresh(w.srv.SeedRefreshToken("acme", "public")).want(t, 400, "invalid_grant")
	w.refresh("sandbox_rt_unknown").want(t, 400, "invalid_grant")
	w.refresh("").want(t, 400, "invalid_request")
	token := w.srv.SeedRefreshToken("acme", "public")
	r := w.request("POST", "/acme/token", "grant_type=refresh_token&client_id=public&refresh_token="+token)
	w.do(r).want(t, 200, "")
}

func TestRevoke(t *testing.T) {
	t.Run("one access token", func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		r := w.refresh(w.seed())
		w.srv.RevokeToken(r.str("access_token"))
		w.wantValid(r.str("access_token"), false)
		w.refresh(r.str("refresh_token")).want(t, 200, "")
	})
	t.Run("one refresh token", func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		r := w.refresh(w.seed())
		w.srv.RevokeToken(r.str("refresh_token"))
		w.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
		w.wantValid(r.str("access_token"), true)
	})
	for _, kind := range []string{"access_token", "refresh_token"} {
		t.Run("family by "+kind, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			r := w.refresh(w.seed())
			if !w.srv.RevokeFamily(r.str(kind)) {
				t.Fatal("got unknown, want known")
			}
			w.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
			w.wantValid(r.str("access_token"), false)
		})
	}
	t.Run("a token without family", func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		r := w.do(w.request("POST", "/acme/token", "grant_type=client_credentials&client_id=post&client_secret=s3cret"))
		if !w.srv.RevokeFamily(r.str("access_token")) || w.srv.RevokeFamily("sandbox_at_unknown") {
			t.Error("want a known token known and an unknown one unknown")
		}
		w.wantValid(r.str("access_token"), false)
	})
}

func TestExpiredAccessTokensAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{AccessLife: time.Second, Rotation: sandbox.RotateNone})
		token := w.seed()
		for range 1100 {
			w.refresh(token)
		}
		time.Sleep(time.Second)
		for range 1100 { // enough to sweep
			w.refresh(token)
		}
		if got := w.srv.RememberedAccessTokens("acme"); got > 1200 {
			t.Errorf("got %d tokens remembered, want about the 1100 live ones", got)
		}
	})
}
