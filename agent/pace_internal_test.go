package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/tokenbroker/tokenbroker"
)

func TestAUserMakesNoMoreCallsThanHisPaceAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t)
		defer b.end()
		b.pace, b.hurry = newPace(7), rate.Sometimes{First: 1, Interval: time.Minute}
		calls := func(n int) (passed int) {
			for range n {
				if err := b.hurried(1); err == nil {
					passed++
				} else if !errors.Is(err, tokenbroker.ErrTooMany) || retryOf(statusOf(err)) != time.Second {
					t.Fatalf("got %v, want ErrTooMany and when to ask again", err)
				}
			}
			return passed
		}
		if got := calls(200); got != 70 {
			t.Errorf("got %d calls at once, want 70", got)
		}
		if err := b.hurried(2); err != nil {
			t.Errorf("another user: got %v, want a pace of his own", err)
		}
		time.Sleep(time.Second)
		if got := calls(200); got != 7 {
			t.Errorf("got %d calls a second later, want 7", got)
		}
		if got := strings.Count(b.log.String(), `"uid":1`); got != 1 {
			t.Errorf("got %d lines of the log, want one", got)
		}
		if err := b.hurried(1); err == nil || !strings.Contains(err.Error(), "which may be 7") {
			t.Errorf("got %v, want how many there may be", err)
		}
	})
}
