package broker_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// outside is a test outside of a bubble: goroutines that wait for a mutex would stop its time.
type outside struct{ testing.TB }

// busy makes a world in which the lock of acme/jobs is held, by an edit that is making its snapshot anew, until let is called.
func busy(t *testing.T) (w *world, let func()) {
	t.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	w = newWorld(outside{t}, plan{answer: gives(time.Hour, false), still: true, config: func(c *broker.Config) {
		c.Encode = func(s *broker.Snapshot) any {
			if s.Credential == "acme/jobs" && s.State == tokenbroker.StateDisabled {
				close(held)
				<-free
			}
			return nil
		}
	}})
	w.createMachine("a")
	w.get()
	edited := make(chan error, 1)
	go func() {
		_, err := w.b.SetDisabled(t.Context(), "acme/jobs", true)
		edited <- err
	}()
	<-held
	return w, func() {
		close(free)
		fatal(t, <-edited)
	}
}

// running waits until some goroutine is in a function.
func running(function string) {
	for dump := make([]byte, 1<<20); !strings.Contains(string(dump[:runtime.Stack(dump, true)]), function); {
		runtime.Gosched()
	}
}

// TestWhoWaitsForOneCredentialHoldsUpNoOther: whoever held the lock of all credentials meanwhile would wait for ever for one whose holder wants
// to read there too, once somebody else wants to write.
func TestWhoWaitsForOneCredentialHoldsUpNoOther(t *testing.T) {
	w, let := busy(t)
	updated := make(chan error, 1)
	go func() {
		_, err := w.b.UpdateClient(t.Context(), "app", 0, func(c *tokenbroker.OAuthClient) error {
			c.Labels = map[string]string{"team": "a"}
			return nil
		})
		updated <- err
	}()
	running("(*Broker).loadedWith")
	created := make(chan error, 1)
	go func() {
		n := w.credential("a")
		n.Credential.Name = "acme/other"
		_, err := w.b.CreateCredential(t.Context(), n)
		created <- err
	}()
	select {
	case err := <-created:
		fatal(t, err)
		let()
	case <-time.After(time.Minute):
		t.Error("a credential that has nothing to do with it can't be created")
		let()
		fatal(t, <-created)
	}
	fatal(t, <-updated)
}
