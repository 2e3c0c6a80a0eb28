package consent_test

import (
	"bytes"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

func TestAConsentByLoopbackGivesTheCredentialItsGrant(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.office.granted = []string{"files.read"}
		start := w.beginLoopback()
		c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		if err != nil {
			t.Fatal(err)
		}
		if c.State != tokenbroker.ConsentDone || c.Account != "ann@acme.example" || c.Trial != "READY" || !slices.Equal(c.Missing, []string{"files.write"}) {
			t.Errorf("consent: got %s account %q trial %q missing %v", c.State, c.Account, c.Trial, c.Missing)
		}
		g := w.grantOf("acme/code")
		if g.RefreshToken.Reveal() != "rt-1" || g.Account != "ann@acme.example" || g.SecretID != "one" {
			t.Errorf("grant: got account %q, secret %q, the right token: %v", g.Account, g.SecretID, g.RefreshToken.Reveal() == "rt-1")
		}
		r := w.office.redeemed[0]
		if r.RedirectURI != loopback || r.Code.Reveal() != "code-1" || len(r.Verifier.Reveal()) != 43 || r.Nonce == "" {
			t.Errorf("redeemed with redirect %q, a verifier of %d bytes", r.RedirectURI, len(r.Verifier.Reveal()))
		}
		if s := w.stored(c.ID); s.Grant != nil || s.State256 != nil || !s.Verifier.IsZero() {
			t.Error("a consent that is over still holds what it was completed with")
		}
	})
}

func TestACodeIsRedeemedOnceHoweverManyBringIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.office.hold = make(chan struct{})
		start := w.beginLoopback()
		callback := w.office.visit(t, start.AuthorizationURL)
		var wg sync.WaitGroup
		var mu sync.Mutex
		good := 0
		for range 8 {
			wg.Go(func() {
				if _, err := w.complete(start.Consent.ID, callback); err == nil {
					mu.Lock()
					good++
					mu.Unlock()
				} else {
					wantErr(t, err, tokenbroker.ErrConsentEnded)
				}
			})
		}
		synctest.Wait()
		close(w.office.hold)
		wg.Wait()
		if good != 1 || w.office.times() != 1 {
			t.Errorf("got %d successes and %d codes sent, want 1 and 1", good, w.office.times())
		}
		w.restart()
		_, err := w.complete(start.Consent.ID, callback)
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		if w.office.times() != 1 {
			t.Errorf("after a restart the code was sent again")
		}
	})
}

func TestARestartWhileACodeIsRedeemedSendsItNoMore(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		callback := w.office.visit(t, start.AuthorizationURL)
		c := w.stored(start.Consent.ID)
		c.Step, c.StepTime = tokenbroker.StepRedeeming, time.Now()
		if _, err := w.store.PutConsent(t.Context(), c, c.Version); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the next process begins later
		w.restart()
		synctest.Wait()
		w.wantState(c.ID, tokenbroker.ConsentFailed, "interrupted")
		_, err := w.complete(c.ID, callback)
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		if w.office.times() != 0 {
			t.Error("the code was sent")
		}
	})
}

func TestOnlyTheIdentityThatBeganAConsentCompletesIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		callback := tokenbroker.NewSecret(w.office.visit(t, start.AuthorizationURL))
		for _, other := range []string{"", "spiffe://example.org/operator/bob"} {
			_, err := w.Complete(t.Context(), start.Consent.ID, other, callback)
			wantErr(t, err, tokenbroker.ErrConsentNotFound)
		}
		if _, err := w.Complete(t.Context(), start.Consent.ID, operator, callback); err != nil {
			t.Error(err)
		}
	})
}

func TestACallbackThatDoesNotFitIsRefusedAndTheRightOneStillWorks(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		right := w.office.visit(t, start.AuthorizationURL)
		other := w.office.visit(t, w.beginLoopback().AuthorizationURL)
		query := strings.TrimPrefix(right, loopback)
		for name, callback := range map[string]string{
			"another host":           "http://127.0.0.2:40123/callback" + query,
			"another port":           "http://127.0.0.1:40124/callback" + query,
			"another path":           "http://127.0.0.1:40123/callback/" + query,
			"another scheme":         "https://127.0.0.1:40123/callback" + query,
			"with a user":            "http://x@127.0.0.1:40123/callback" + query,
			"another consent":        other,
			"a state cut short":      strings.Replace(right, "state="+start.Consent.ID, "state="+start.Consent.ID[1:], 1),
			"a state changed":        right[:len(right)-1] + "!",
			"no state":               loopback + "?code=code-1&iss=https://acme.example",
			"the state twice":        right + "&state=x",
			"the code twice":         right + "&code=other",
			"both code and error":    right + "&error=access_denied",
			"neither code nor error": loopback + "?state=" + start.Consent.ID + ".x",
			"another issuer":         strings.Replace(right, url.QueryEscape("https://acme.example"), "https://evil.example", 1),
			"no issuer":              strings.Replace(right, "iss=", "xss=", 1),
			"no URL":                 "\x7f",
			"far too long":           right + "&x=" + strings.Repeat("x", 20<<10),
		} {
			_, err := w.complete(start.Consent.ID, callback)
			wantErr(t, err, tokenbroker.ErrInvalidArgument)
			if err == nil || strings.Contains(err.Error(), "code-1") {
				t.Errorf("%s: the error says %v", name, err)
			}
		}
		if w.office.times() != 0 {
			t.Error("a code was sent")
		}
		if _, err := w.complete(start.Consent.ID, right+"\n"); err != nil {
			t.Error(err)
		}
	})
}

func TestAStateIsGoodForTenMinutes(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		time.Sleep(10*time.Minute + time.Second)
		_, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		w.wantState(start.Consent.ID, tokenbroker.ConsentExpired, "")
	})
}

func TestSayingNoEndsAConsent(t *testing.T) {
	for code, want := range map[string]tokenbroker.ConsentState{"access_denied": tokenbroker.ConsentDenied, "server_error": tokenbroker.ConsentFailed} {
		story(t, func(t *testing.T, w *world) {
			start := w.beginLoopback()
			no := strings.Replace(w.office.visit(t, start.AuthorizationURL), "code=code-1", "error="+code, 1)
			_, err := w.complete(start.Consent.ID, no)
			wantErr(t, err, tokenbroker.ErrConsentEnded)
			if c := w.wantState(start.Consent.ID, want, code); c.Advice == "" {
				t.Error("no advice")
			}
		})
	}
}

func TestACodeThatCanNotBeRedeemedSaysWhy(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.office.err = &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "invalid_client", Sent: true}
		start := w.beginLoopback()
		_, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		w.wantState(start.Consent.ID, tokenbroker.ConsentFailed, "invalid_client")
	})
}

func TestAProviderThatGivesNoRefreshTokenIsSaid(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.office.noRT = true
		start := w.beginLoopback()
		c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		if err != nil || c.State != tokenbroker.ConsentDone || c.Code != "no_refresh_token" || w.taker.trials != 0 {
			t.Errorf("got %s %q (%v) and %d trials", c.State, c.Code, err, w.taker.trials)
		}
	})
}

func TestAKeyThatAClientHasBesideItsSecretRedeemsNoCode(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client, err := w.store.Client(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		client.Secrets = append(client.Secrets, tokenbroker.ClientSecret{ID: "two", Kind: tokenbroker.KindKey, Secret: tokenbroker.NewSecret("key")})
		if _, err := w.store.PutClient(t.Context(), client, client.Version); err != nil {
			t.Fatal(err)
		}
		start := w.beginLoopback()
		if _, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL)); err != nil {
			t.Fatal(err)
		}
		if g := w.grantOf("acme/code"); g.SecretID != "one" {
			t.Errorf("got secret %q, want the one that is no key", g.SecretID)
		}
	})
}

func TestNoTrialWhereARefreshKillsTheTokenThatOthersHold(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		kills := true
		w.profile.KillsOld = &kills
		start := w.beginLoopback()
		c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		if err != nil || c.Trial != "" || w.taker.trials != 0 {
			t.Errorf("trial %q, %d times (%v)", c.Trial, w.taker.trials, err)
		}
	})
}

func TestAnAccountThatWillNotDoIsRefusedAndItsGrantEnded(t *testing.T) {
	for _, tt := range []struct {
		name          string
		known, expect string
		replace       bool
		account       string
		want          error
		code          string
	}{
		{"the expected one", "", "ann@acme.example", false, "ann@acme.example", nil, ""},
		{"the expected one in capitals", "", "Ann@Acme.example", false, "ann@acme.example", nil, ""},
		{"another than the expected one", "", "ann@acme.example", false, "bob@acme.example", tokenbroker.ErrAccountMismatch, "account_mismatch"},
		{"none where one is expected", "", "ann@acme.example", false, "", tokenbroker.ErrAccountMismatch, "account_not_named"},
		{"the known one", "ann@acme.example", "", false, "ann@acme.example", nil, ""},
		{"another than the known one", "ann@acme.example", "", false, "bob@acme.example", tokenbroker.ErrAccountMismatch, "account_mismatch"},
		{"none where one is known", "ann@acme.example", "", false, "", tokenbroker.ErrAccountMismatch, "account_not_named"},
		{"another that takes its place", "ann@acme.example", "bob@acme.example", true, "bob@acme.example", nil, ""},
		{"a third one", "ann@acme.example", "bob@acme.example", true, "cho@acme.example", tokenbroker.ErrAccountMismatch, "account_mismatch"},
		{"the known one where another is expected", "ann@acme.example", "bob@acme.example", true, "ann@acme.example", tokenbroker.ErrAccountMismatch, "account_mismatch"},
		{"a look-alike", "", "kim@acme.example", false, "\u212aim@acme.example", tokenbroker.ErrAccountMismatch, "account_mismatch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				if tt.known != "" {
					first := w.beginLoopback()
					w.office.account = tt.known
					if _, err := w.complete(first.Consent.ID, w.office.visit(t, first.AuthorizationURL)); err != nil {
						t.Fatal(err)
					}
				}
				before := w.grantOf("acme/code")
				w.office.account = tt.account
				start := w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLoopback, RedirectURI: loopback,
					ExpectedAccount: tt.expect, ReplaceAccount: tt.replace})
				c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
				wantErr(t, err, tt.want)
				w.wantState(start.Consent.ID, c.State, tt.code)
				after := w.grantOf("acme/code")
				switch {
				case tt.want == nil && (after.Serial != before.Serial+1 || w.office.ended() != ""):
					t.Errorf("serial %d after %d, revoked %q", after.Serial, before.Serial, w.office.ended())
				case tt.want != nil && (after.Serial != before.Serial || !strings.HasPrefix(w.office.ended(), "rt-")):
					t.Errorf("serial %d after %d, revoked %q", after.Serial, before.Serial, w.office.ended())
				case tt.want != nil && w.stored(c.ID).Grant != nil:
					t.Error("what was revoked is still kept")
				}
			})
		})
	}
}

func TestAConsentCancelledWhileItsCodeIsRedeemedEndsWhatComes(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.office.hold = make(chan struct{})
		start := w.beginLoopback()
		callback := w.office.visit(t, start.AuthorizationURL)
		done := make(chan error, 1)
		go func() { _, err := w.complete(start.Consent.ID, callback); done <- err }()
		synctest.Wait()
		if _, err := w.Cancel(t.Context(), start.Consent.ID); err != nil {
			t.Fatal(err)
		}
		close(w.office.hold)
		wantErr(t, <-done, tokenbroker.ErrConsentEnded)
		if w.office.ended() != "rt-1" || w.grantOf("acme/code").Serial != 0 {
			t.Errorf("revoked %q, serial %d; want rt-1 and 0", w.office.ended(), w.grantOf("acme/code").Serial)
		}
	})
}

func TestAConsentThatCouldNotBeStoredIsTakenUpAfterARestart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		w.taker.fail(tokenbroker.ErrStoreUnavailable)
		_, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		wantErr(t, err, tokenbroker.ErrStoreUnavailable)
		time.Sleep(time.Second)
		w.restart()
		synctest.Wait()
		w.wantState(start.Consent.ID, tokenbroker.ConsentDone, "")
		if g := w.grantOf("acme/code"); g.RefreshToken.Reveal() != "rt-1" || w.office.times() != 1 {
			t.Errorf("serial %d, the code was sent %d times", g.Serial, w.office.times())
		}
	})
}

func TestNothingThatCouldBeUsedIsInTheFileInTheClearOrInTheLog(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		pending := w.beginLoopback()
		link := w.beginLink()
		returned := w.consentByLink(link)
		w.wantState(returned, tokenbroker.ConsentAwaiting, "")
		verifier := w.stored(pending.Consent.ID).Verifier.Reveal()
		w.halt()
		_ = w.engine.Close()
		data, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(pending.AuthorizationURL)
		_, linkSecret, _ := strings.Cut(link.Link.Reveal(), ".")
		for name, secret := range map[string]string{"verifier": verifier, "state": u.Query().Get("state"), "refresh token": "rt-1", "access token": "at-1",
			"link": linkSecret, "code": "code-1", "account": "ann@acme.example"} {
			if bytes.Contains(data, []byte(secret)) || secret != "ann@acme.example" && strings.Contains(w.log.String(), secret) {
				t.Errorf("the %s can be read", name)
			}
		}
		w.open()
		w.start()
	})
}
