package broker_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// repeatable answers a request and makes it repeatable.
func repeatable(t *testing.T, w *world) (*broker.Snapshot, broker.Repeat) {
	t.Helper()
	edition := w.b.Edition("acme/jobs")
	s := w.get()
	r, ok := s.Repeat(edition)
	if !ok {
		t.Fatal("nothing changed, and the answer can't be repeated")
	}
	if again, ok := w.b.Again(r, 0, time.Now()); !ok || again != s {
		t.Fatalf("got %v (%t), want the same snapshot", again, ok)
	}
	return s, r
}

func TestAnAnswerIsRepeatedAsLongAsNothingChanged(t *testing.T) {
	for what, change := range map[string]func(*testing.T, *world){
		"the token ends": func(_ *testing.T, w *world) {
			w.up.use(refuses(tokenbroker.Failure{Class: tokenbroker.ClassTransient}))
			w.pass(time.Hour)
		},
		"a refresh": func(t *testing.T, w *world) {
			w.pass(20 * time.Minute)
			_, err := w.b.Refresh(t.Context(), "acme/jobs")
			fatal(t, err)
		},
		"an edit": func(t *testing.T, w *world) {
			_, err := w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error { c.Owner = "somebody"; return nil })
			fatal(t, err)
		},
		"it is disabled": func(t *testing.T, w *world) {
			_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
			fatal(t, err)
		},
		"it is deleted and made anew": func(t *testing.T, w *world) {
			fatal(t, w.b.DeleteCredential(t.Context(), "acme/jobs", 0))
			w.createOnly("a")
			w.get()
		},
		"a new refresh token": func(t *testing.T, w *world) {
			_, err := w.b.Adopt(t.Context(), "acme/jobs", tokenbroker.Adoption{Holds: tokenbroker.HoldsRefreshToken,
				RefreshToken: tokenbroker.NewSecret(w.srv.SeedRefreshToken("acme", "app", "a"))})
			fatal(t, err)
		},
	} {
		t.Run(what, func(t *testing.T) {
			run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
				w.create("a")
				w.get()
				w.settle()
				_, r := repeatable(t, w)
				change(t, w)
				w.settle()
				if s, ok := w.b.Again(r, 0, time.Now()); ok {
					t.Errorf("got the answer of before: %+v", s.Order)
				}
			})
		})
	}
}

func TestAnAnswerThatDoesNotLiveAsLongAsIsAskedIsNotRepeated(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		w.create("a")
		w.get()
		w.settle()
		_, r := repeatable(t, w)
		if _, ok := w.b.Again(r, time.Minute, time.Now()); !ok {
			t.Error("got nothing for a minute")
		}
		if _, ok := w.b.Again(r, 24*time.Hour, time.Now()); ok {
			t.Error("got a token for a day, which it does not live")
		}
	})
}

func TestAnAnswerToWhatChangedMeanwhileCanNotBeRepeated(t *testing.T) {
	run(t, plan{traits: rotating}, func(t *testing.T, w *world) {
		if got := w.b.Edition("acme/none"); got != 0 {
			t.Errorf("got edition %d of a credential that there is not", got)
		}
		w.create("a")
		w.get()
		w.settle()
		edition := w.b.Edition("acme/jobs")
		_, err := w.b.UpdateCredential(t.Context(), "acme/jobs", 0, func(c *tokenbroker.Credential) error { c.Owner = "somebody"; return nil })
		fatal(t, err)
		if _, ok := w.get().Repeat(edition); ok {
			t.Error("what was decided before the edit can be repeated")
		}
		if _, ok := w.get().Repeat(0); ok {
			t.Error("what nobody looked at can be repeated")
		}
	})
}
