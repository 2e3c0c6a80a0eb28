package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

// answer is what a caller was told, and after how long.
type answer struct {
	after time.Duration
	err   error
}

// ask writes a record and says how that went.
func ask(l *audit.Log, id string) answer {
	began := time.Now()
	err := l.Write(context.Background(), audit.Record{RequestID: id})
	return answer{time.Since(began), err}
}

func (a answer) want(t *testing.T, who string, after time.Duration, refused bool) {
	t.Helper()
	if a.after != after || errors.Is(a.err, tokenbroker.ErrAuditUnavailable) != refused {
		t.Errorf("%s: got %v after %v, want it after %v, refused: %t", who, a.err, a.after, after, refused)
	}
}

// TestCallersBehindAStuckWriteAreToldTogether has callers come at different moments: each group is told when the first of it has waited
// for the deadline, and no caller waits longer.
func TestCallersBehindAStuckWriteAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{hang: make(chan struct{})}
		l := run(t, s, audit.Options{})
		var wg sync.WaitGroup
		for _, c := range []struct {
			id        string
			at, waits time.Duration
		}{
			{id: "writing", at: 0, waits: 2 * time.Second},
			{id: "first", at: 500 * time.Millisecond, waits: 2 * time.Second},
			{id: "joins", at: 1900 * time.Millisecond, waits: 600 * time.Millisecond},
			{id: "late", at: 2100 * time.Millisecond, waits: 0},
		} {
			wg.Go(func() {
				time.Sleep(c.at)
				ask(l, c.id).want(t, c.id, c.waits, true)
			})
		}
		wg.Wait()
		s.set(func() { close(s.hang); s.hang = nil })
		time.Sleep(2 * time.Second)
		ask(l, "after").want(t, "after", 0, false)
		var got []string
		for _, e := range parse(t, s.text()) {
			got = append(got, e.Action+e.RequestID)
		}
		if want := "writing audit.gap first joins after"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", strings.Join(got, " "), want)
		}
	})
}

// TestAnAnswerIsOfTheCallersOwnWait has a second caller come to records whose caller was told already.
func TestAnAnswerIsOfTheCallersOwnWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := audit.New(s, audit.Options{})
		ask(l, "a").want(t, "a", 2*time.Second, true)
		ask(l, "b").want(t, "b", 2*time.Second, true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { ask(l, "c").want(t, "c", time.Second, false) })
		time.Sleep(time.Second)
		go func() { done <- l.Run(ctx) }()
		wg.Wait()
		cancel()
		must(t, <-done)
		if got := parse(t, s.text()); len(got) != 3 {
			t.Errorf("got %+v, want all three records", got)
		}
	})
}

// TestASinkThatMovesIsNotWaitedForWithoutEnd has one write after the other take nearly the deadline. Each caller has its answer after
// two of them.
func TestASinkThatMovesIsNotWaitedForWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := run(t, &slow{}, audit.Options{})
		var wg sync.WaitGroup
		for n := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 170 * time.Millisecond)
				if a := ask(l, fmt.Sprint(n)); a.err != nil || a.after > 3*time.Second {
					t.Errorf("record %d: %v after %v", n, a.err, a.after)
				}
			})
		}
		wg.Wait()
	})
}

// TestTheWatchdogSleepsWhenNobodyWaits looks whether the log does anything by itself: time in the bubble only passes for timers.
func TestTheWatchdogSleepsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := run(t, io.Discard, audit.Options{})
		for range 3 {
			ask(l, "a").want(t, "a", 0, false)
			time.Sleep(time.Hour)
		}
		var wg sync.WaitGroup
		s := &sink{hang: make(chan struct{})}
		hung := run(t, s, audit.Options{})
		wg.Go(func() { ask(hung, "b").want(t, "b", 2*time.Second, true) })
		wg.Wait()
		close(s.hang)
	})
}
