package consent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

func pending() error {
	return &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "authorization_pending", Sent: true}
}

func (w *world) beginDevice() tokenbroker.ConsentStart {
	w.t.Helper()
	return w.begin(tokenbroker.BeginConsent{Credential: "acme/device", Identity: operator, Flow: tokenbroker.FlowDevice})
}

// gaps are the times between polls, the first from the beginning on.
func (w *world) gaps(begun time.Time) []time.Duration {
	w.office.mu.Lock()
	defer w.office.mu.Unlock()
	var list []time.Duration
	for _, at := range w.office.polledAt {
		list = append(list, at.Sub(begun).Round(time.Second))
		begun = at
	}
	return list
}

func (w *world) wantGaps(begun time.Time, seconds ...int) {
	w.t.Helper()
	got, want := w.gaps(begun), []time.Duration{}
	for _, n := range seconds {
		want = append(want, time.Duration(n)*time.Second)
	}
	if len(got) != len(want) {
		w.t.Fatalf("polls after %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			w.t.Errorf("polls after %v, want %v", got, want)
			return
		}
	}
}

func TestADeviceCodeIsPolledAtItsIntervalAndSlowerForGoodWhenAsked(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		slow := &tokenbroker.Failure{Class: tokenbroker.ClassThrottled, Code: "slow_down", Sent: true}
		w.office.polls = []error{pending(), slow, pending(), slow, pending()}
		begun := time.Now()
		start := w.beginDevice()
		if start.UserCode != "WDJB-MJHT" || start.VerificationURI == "" {
			t.Errorf("got %+v", start)
		}
		time.Sleep(12 * time.Second)
		w.restart() // the interval survives it
		time.Sleep(time.Minute + 12*time.Second)
		synctest.Wait()
		c := w.wantState(start.Consent.ID, tokenbroker.ConsentDone, "")
		if c.Account != "ann@acme.example" || w.grantOf("acme/device").RefreshToken.Reveal() != "rt-1" {
			t.Errorf("account %q", c.Account)
		}
		w.wantGaps(begun, 5, 5, 12, 10, 15, 15) // the restart begins the third wait anew
	})
}

func TestANetworkThatFailsIsAskedLessAndLess(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		lost := &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "timeout", Sent: true}
		w.office.polls = []error{lost, lost, lost, pending(), pending()}
		begun := time.Now()
		start := w.beginDevice()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		w.wantState(start.Consent.ID, tokenbroker.ConsentDone, "")
		w.wantGaps(begun, 5, 10, 20, 40, 5, 5)
	})
}

func TestADeviceConsentEndsAsTheProviderSays(t *testing.T) {
	for code, want := range map[string]tokenbroker.ConsentState{"access_denied": tokenbroker.ConsentDenied, "expired_token": tokenbroker.ConsentExpired} {
		story(t, func(t *testing.T, w *world) {
			w.office.polls = []error{&tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: code, Sent: true}, nil}
			start := w.beginDevice()
			time.Sleep(time.Minute)
			synctest.Wait()
			w.wantState(start.Consent.ID, want, code)
			if n := len(w.gaps(time.Now())); n != 1 {
				t.Errorf("polled %d times, want once", n)
			}
		})
	}
}

func TestADeviceCodeThatNobodyTypesInExpires(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		for range 1000 {
			w.office.polls = append(w.office.polls, pending())
		}
		start := w.beginDevice()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		w.wantState(start.Consent.ID, tokenbroker.ConsentExpired, "")
		n := len(w.gaps(time.Now()))
		time.Sleep(10 * time.Minute)
		if more := len(w.gaps(time.Now())); more != n {
			t.Errorf("polled on after its end: %d, then %d", n, more)
		}
	})
}

func TestACancelledDeviceConsentIsPolledNoMore(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		for range 1000 {
			w.office.polls = append(w.office.polls, pending())
		}
		start := w.beginDevice()
		time.Sleep(7 * time.Second)
		if _, err := w.Cancel(t.Context(), start.Consent.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := len(w.gaps(time.Now())); n != 1 {
			t.Errorf("polled %d times, want once", n)
		}
	})
}
