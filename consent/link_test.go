package consent_test

import (
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

// jar is what a browser keeps.
type jar map[string]tokenbroker.Secret

func (j jar) get(id string) tokenbroker.Secret { return j[id] }

func (w *world) beginLink() tokenbroker.ConsentStart {
	w.t.Helper()
	return w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLink})
}

// token is the part of a link that follows LinkPath.
func token(start tokenbroker.ConsentStart) string {
	return strings.TrimPrefix(start.Link.Reveal(), public+consent.LinkPath)
}

// press presses the button in a browser, and returns where that goes.
func (w *world) press(start tokenbroker.ConsentStart, browser jar) string {
	w.t.Helper()
	d, err := w.Depart(w.t.Context(), token(start), browser.get)
	if err != nil {
		w.t.Fatalf("press the button: %v", err)
	}
	browser[d.ConsentID] = d.Browser
	return d.URL
}

// query is what a browser that went to target brings back.
func (w *world) query(target string) string {
	w.t.Helper()
	u, err := url.Parse(w.office.visit(w.t, target))
	if err != nil || u.Scheme+"://"+u.Host+u.Path != public+consent.CallbackPath {
		w.t.Fatalf("redirected to %s%s (%v)", u.Host, u.Path, err)
	}
	return u.RawQuery
}

// consentByLink goes all the way and returns the id of the consent.
func (w *world) consentByLink(start tokenbroker.ConsentStart) string {
	w.t.Helper()
	browser := jar{}
	c, err := w.Return(w.t.Context(), w.query(w.press(start, browser)), browser.get)
	if err != nil {
		w.t.Fatalf("return: %v", err)
	}
	return c.ID
}

func TestALinkTakesEffectWhenAnOperatorAcceptsTheAccount(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLink()
		id := w.consentByLink(start)
		c := w.wantState(id, tokenbroker.ConsentAwaiting, "")
		if c.Account != "ann@acme.example" || w.grantOf("acme/code").Serial != 0 {
			t.Errorf("before it is accepted: account %q, serial %d", c.Account, w.grantOf("acme/code").Serial)
		}
		w.restart()
		_, err := w.Accept(t.Context(), id, "bob@acme.example")
		wantErr(t, err, tokenbroker.ErrAccountMismatch)
		w.wantState(id, tokenbroker.ConsentAwaiting, "")
		if c, err = w.Accept(t.Context(), id, "ann@acme.example"); err != nil || c.State != tokenbroker.ConsentDone || c.Trial != "READY" {
			t.Errorf("accept: got %s, trial %q (%v)", c.State, c.Trial, err)
		}
		if g := w.grantOf("acme/code"); g.RefreshToken.Reveal() != "rt-1" || g.Account != "ann@acme.example" {
			t.Errorf("grant: serial %d of %q", g.Serial, g.Account)
		}
		_, err = w.Accept(t.Context(), id, "ann@acme.example")
		wantErr(t, err, tokenbroker.ErrConsentEnded)
	})
}

func TestLookingAtALinkChangesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.profile.ConsentScopes = []string{"openid", "files.read"}
		start := w.beginLink()
		for range 3 {
			i, err := w.Invitation(t.Context(), token(start), jar{}.get)
			if err != nil {
				t.Fatal(err)
			}
			if i.Provider != "Acme Files" || i.App != "acme" || i.Origin != "https://acme.example" || i.Scopes[0].Meaning != "See your files" || i.Scopes[1].Meaning != "" || len(i.Scopes) != 3 || i.Scopes[2].Name != "openid" || i.Scopes[2].Meaning != "Know which account it is" {
				t.Errorf("got %+v", i)
			}
		}
		if got := w.stored(start.Consent.ID); got.Version != 1 {
			t.Errorf("it was written %d times", got.Version)
		}
		w.consentByLink(start)
	})
}

func TestALinkIsOfTheBrowserThatPressedItsButton(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start, owner, thief := w.beginLink(), jar{}, jar{}
		first := w.press(start, owner)
		_, err := w.Invitation(t.Context(), token(start), thief.get)
		wantErr(t, err, consent.ErrLinkUsed)
		_, err = w.Depart(t.Context(), token(start), thief.get)
		wantErr(t, err, consent.ErrLinkUsed)
		again := w.press(start, owner) // the owner came back and pressed it again
		_, err = w.Return(t.Context(), w.query(first), owner.get)
		wantErr(t, err, consent.ErrBadCallback) // the first state is over
		_, err = w.Return(t.Context(), w.query(again), thief.get)
		wantErr(t, err, consent.ErrOtherBrowser)
		if _, err := w.Return(t.Context(), w.query(again), owner.get); err != nil {
			t.Errorf("the owner: %v", err)
		}
		_, err = w.Return(t.Context(), w.query(again), owner.get)
		wantErr(t, err, consent.ErrLinkUsed)
		if w.office.times() != 1 {
			t.Errorf("%d codes were sent", w.office.times())
		}
		_, err = w.Invitation(t.Context(), token(start), owner.get)
		wantErr(t, err, consent.ErrLinkUsed)
	})
}

func TestALinkIsGoodForHalfAnHourAndTheRestForTenMinutes(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		late, browser := w.beginLink(), jar{}
		time.Sleep(29 * time.Minute)
		target := w.press(late, browser)
		unused := w.beginLink()
		time.Sleep(9 * time.Minute)
		_, err := w.Invitation(t.Context(), token(late), browser.get)
		wantErr(t, err, consent.ErrLinkExpired)
		w.wantState(late.Consent.ID, tokenbroker.ConsentPending, "")
		if _, err := w.Return(t.Context(), w.query(target), browser.get); err != nil {
			t.Errorf("within ten minutes of the button: %v", err)
		}
		target = w.press(unused, browser)
		time.Sleep(10*time.Minute + time.Second)
		_, err = w.Return(t.Context(), w.query(target), browser.get)
		wantErr(t, err, consent.ErrLinkExpired)
		time.Sleep(12 * time.Minute)
		_, err = w.Invitation(t.Context(), token(unused), browser.get)
		wantErr(t, err, consent.ErrLinkExpired)
	})
}

func TestALinkThatIsNoneIsNotFound(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLink()
		other := w.beginLoopback()
		for _, link := range []string{"", ".", "x", start.Consent.ID, start.Consent.ID + ".", start.Consent.ID + ".x", token(start) + "x",
			other.Consent.ID + ".", strings.Repeat("x", 5000) + ".y"} {
			_, err := w.Invitation(t.Context(), link, jar{}.get)
			wantErr(t, err, consent.ErrNoLink)
			_, err = w.Depart(t.Context(), link, jar{}.get)
			wantErr(t, err, consent.ErrNoLink)
		}
		u, _ := url.Parse(w.office.visit(t, other.AuthorizationURL))
		_, err := w.Return(t.Context(), u.RawQuery, jar{}.get)
		wantErr(t, err, consent.ErrBadCallback) // a loopback consent does not come back here
	})
}

func TestSayingNoByLinkIsAnOutcome(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start, browser := w.beginLink(), jar{}
		no := strings.Replace(w.query(w.press(start, browser)), "code=code-1", "error=access_denied", 1)
		c, err := w.Return(t.Context(), no, browser.get)
		if err != nil || c.State != tokenbroker.ConsentDenied {
			t.Errorf("got %s (%v), want DENIED", c.State, err)
		}
		if c, err = w.Outcome(t.Context(), c.ID, browser[c.ID]); err != nil || c.State != tokenbroker.ConsentDenied {
			t.Errorf("outcome: %s (%v)", c.State, err)
		}
		_, err = w.Outcome(t.Context(), c.ID, tokenbroker.NewSecret("guess"))
		wantErr(t, err, consent.ErrNoLink)
	})
}

func TestACancelledOrForgottenLinkIsEndedAtTheProvider(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		cancelled, forgotten := w.consentByLink(w.beginLink()), w.consentByLink(w.beginLink())
		if _, err := w.Cancel(t.Context(), cancelled); err != nil {
			t.Fatal(err)
		}
		_, err := w.Accept(t.Context(), cancelled, "ann@acme.example")
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		_, err = w.Cancel(t.Context(), cancelled)
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		w.office.mu.Lock()
		w.office.revokeErr = &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "timeout", Sent: true}
		w.office.mu.Unlock()
		time.Sleep(7*24*time.Hour + time.Minute)
		synctest.Wait()
		w.wantState(forgotten, tokenbroker.ConsentExpired, "")
		w.office.mu.Lock()
		w.office.revokeErr = nil
		w.office.mu.Unlock()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := w.office.ended(); got != "rt-1 rt-2" {
			t.Errorf("revoked %q, want both", got)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		_, err = w.Consent(t.Context(), forgotten)
		wantErr(t, err, tokenbroker.ErrConsentNotFound)
	})
}

func TestAnAccountThatTheCredentialGotMeanwhileIsHeldAgainstALink(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		id := w.consentByLink(w.beginLink())
		w.office.account = "bob@acme.example"
		start := w.beginLoopback()
		if _, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL)); err != nil {
			t.Fatal(err)
		}
		_, err := w.Accept(t.Context(), id, "ann@acme.example")
		wantErr(t, err, tokenbroker.ErrAccountMismatch)
		if w.office.ended() != "rt-1" || w.grantOf("acme/code").Account != "bob@acme.example" {
			t.Errorf("revoked %q, the account is %q", w.office.ended(), w.grantOf("acme/code").Account)
		}
	})
}
