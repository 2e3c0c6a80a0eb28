package table

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// served says for whom an exchange was made, and if for nobody, why.
func (r row) served(waiters int, now time.Time) string {
	switch {
	case waiters == 1:
		return "1 exchange served 1 waiter"
	case waiters > 1:
		return fmt.Sprintf("1 exchange served %d waiters", waiters)
	case r.failing:
		return "recovered"
	case !now.Before(r.expiry):
		return "got a token"
	}
	return "refreshed ahead of expiry"
}

func fresh(ev broker.Event, now time.Time) string {
	return fmt.Sprintf(" (generation %d, %ds)", ev.Order.Generation, seconds(ev.Expiry.Sub(now)))
}

// failed says what became of an exchange, and of the credential if that now waits for somebody.
func failed(ev broker.Event) string {
	what := cmp.Or(ev.Code, string(ev.Class))
	if ev.HTTPStatus == 429 || ev.HTTPStatus >= 500 {
		what = fmt.Sprintf("HTTP %d", ev.HTTPStatus)
	}
	switch ev.State {
	case tokenbroker.StateReauthorize, tokenbroker.StateMisconfigured, tokenbroker.StateUncertain:
		return fmt.Sprintf("%s → %s", what, ev.State)
	default:
		return what
	}
}

// failedState is the colour of a failure: never that of a good state.
func failedState(s tokenbroker.State) tokenbroker.State {
	if s == tokenbroker.StateReady || s == tokenbroker.StatePending {
		return tokenbroker.StateDegraded
	}
	return s
}

// again adds when something is tried again, if that is yet to come.
func again(text string, at, now time.Time) string {
	if left := seconds(at.Sub(now)); !at.IsZero() && left > 0 {
		return fmt.Sprintf("%s, again in %ds", text, left)
	}
	return text
}

// seconds rounds up, so that 0 means over.
func seconds(d time.Duration) int { return max(0, int(math.Ceil(d.Seconds()))) }

func becomes(ev broker.Event) string {
	text := "is " + string(ev.State)
	if ev.Code != "" {
		text += " (" + ev.Code + ")"
	}
	return text
}

func expiring(ev broker.Event, now time.Time) string {
	return fmt.Sprintf("its refresh token dies in %s: consent again in time", ev.Expiry.Sub(now).Round(time.Minute))
}

func reported(ev broker.Event) string {
	return fmt.Sprintf("a worker reported HTTP %d", ev.HTTPStatus)
}

func refused(u Use) string {
	return fmt.Sprintf("the API says %d to worker %d, which reports it", u.Status, u.Worker)
}

func reached(u Use) string {
	return fmt.Sprintf("generation %d reached the workers; the API says %d", u.Generation, u.Status)
}

func workerGoes(n int, back time.Duration) string {
	return fmt.Sprintf("worker %d was killed; it comes back in %ds", n, seconds(back))
}

func workerBack(n int) string {
	return fmt.Sprintf("worker %d is back: its first message is the present state", n)
}

// Line is an entry as a line of text.
func (e Entry) Line() string {
	if e.Credential == "" {
		return e.At.Format(time.TimeOnly) + " " + e.Text
	}
	return fmt.Sprintf("%s %-18s  %s", e.At.Format(time.TimeOnly), e.Credential, e.Text)
}

// Summary is what was seen since a time, in a few lines.
func (m *Model) Summary(since, now time.Time) []string {
	t := m.totals
	lines := []string{
		fmt.Sprintf("Seen in %s: %s (%d failed) for %s; %s pushed.", now.Sub(since).Round(time.Second),
			count(t.Exchanges, "exchange"), t.Failed, count(t.Served, "waiting caller"), count(t.Pushed, "message")),
	}
	if m.most > 1 {
		lines = append(lines, fmt.Sprintf("At the most, 1 exchange served %d waiters (%s).", m.most, m.herd))
	}
	if t.Used > 0 {
		lines = append(lines, fmt.Sprintf("The workers called the API %s; it refused %d.", times(t.Used), t.Refused))
	}
	return lines
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
