package table_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/table"
)

func at(seconds float64) time.Time {
	return time.Date(2026, 11, 28, 12, 15, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// exchange is one that brought a token.
func exchange(name string, g tokenbroker.Generation, expiry time.Time, waiters int) broker.Event {
	return broker.Event{Kind: broker.EventExchange, Credential: name, Provider: "acme", Own: true, State: tokenbroker.StateReady,
		Order: tokenbroker.Order{Generation: g}, Expiry: expiry, Waiters: waiters}
}

func state(name string, s tokenbroker.State, code string, expiry time.Time) broker.Event {
	return broker.Event{Kind: broker.EventState, Credential: name, Provider: "acme", Own: true, State: s, Code: code, Expiry: expiry}
}

func failed(name string, s tokenbroker.State, class tokenbroker.Class, code string, status int, next time.Time) broker.Event {
	return broker.Event{Kind: broker.EventExchange, Credential: name, Provider: "acme", Own: true, State: s, Class: class, Code: code,
		HTTPStatus: status, Next: next}
}

func status(name string, s tokenbroker.State, g tokenbroker.Generation, expiry time.Time, subscribers int) broker.Status {
	snap := &broker.Snapshot{State: s, Order: tokenbroker.Order{Generation: g}}
	if !expiry.IsZero() {
		snap.Token = &tokenbroker.Token{Expiry: expiry}
	}
	return broker.Status{Credential: tokenbroker.Credential{Name: name, Provider: "acme"}, Snapshot: snap, Subscribers: subscribers}
}

// rows are the lines of a view that speak of credentials, without colours, with single blanks.
func rows(m *table.Model, now time.Time) []string {
	var out []string
	for _, l := range m.View(160, 40, now, false) {
		if f := strings.Fields(l); len(f) > 1 && (strings.HasPrefix(f[0], "›") || strings.HasPrefix(l, " 1 ") || strings.HasPrefix(l, " 2 ")) {
			out = append(out, strings.Join(f, " "))
		}
	}
	return out
}

func TestEventsMakeRows(t *testing.T) {
	end := at(15)
	for _, tc := range []struct {
		name   string
		events []broker.Event
		want   string // the row at second 5
	}{
		{"a credential that never had a token", []broker.Event{state("a", tokenbroker.StatePending, "", time.Time{})},
			"›1 a PENDING 0 ░░░░░░░░░░░░░░░░░░░ – 0"},
		{"a herd", []broker.Event{state("a", tokenbroker.StateReady, "", end), exchange("a", 4, end, 50)},
			"›1 a READY 4 ████████████▋░░░░░░ 10s 0 1 exchange served 50 waiters"},
		{"one caller", []broker.Event{exchange("a", 4, end, 1)},
			"›1 a PENDING 4 ████████████▋░░░░░░ 10s 0 1 exchange served 1 waiter"},
		{"a first token that nobody waits for", []broker.Event{exchange("a", 4, end, 0)},
			"›1 a PENDING 4 ████████████▋░░░░░░ 10s 0 got a token"},
		{"a refresh", []broker.Event{exchange("a", 4, at(9), 1), exchange("a", 7, end, 0)},
			"›1 a PENDING 7 ████████████▋░░░░░░ 10s 0 refreshed ahead of expiry"},
		{"an outage", []broker.Event{exchange("a", 4, end, 1), state("a", tokenbroker.StateDegraded, "http_500", end),
			failed("a", tokenbroker.StateDegraded, tokenbroker.ClassTransient, "http_500", 500, at(7))},
			"›1 a DEGRADED 4 ████████████▋░░░░░░ 10s 0 HTTP 500, again in 2s"},
		{"throttling", []broker.Event{failed("a", tokenbroker.StateDegraded, tokenbroker.ClassThrottled, "http_429", 429, at(10))},
			"›1 a PENDING 0 ░░░░░░░░░░░░░░░░░░░ – 0 HTTP 429, again in 5s"},
		{"a wait that is over", []broker.Event{failed("a", tokenbroker.StateDegraded, tokenbroker.ClassThrottled, "http_429", 429, at(4))},
			"›1 a PENDING 0 ░░░░░░░░░░░░░░░░░░░ – 0 HTTP 429"},
		{"a dead grant", []broker.Event{state("a", tokenbroker.StateReauthorize, "invalid_grant", end),
			failed("a", tokenbroker.StateReauthorize, tokenbroker.ClassDeadGrant, "invalid_grant", 400, time.Time{})},
			"›1 a REAUTHORIZE 0 ░░░░░░░░░░░░░░░░░░░ – 0 invalid_grant → REAUTHORIZE"},
		{"a failure without a code", []broker.Event{failed("a", tokenbroker.StateUncertain, tokenbroker.ClassAmbiguous, "", 0, time.Time{})},
			"›1 a PENDING 0 ░░░░░░░░░░░░░░░░░░░ – 0 ambiguous → UNCERTAIN"},
		{"a recovery", []broker.Event{failed("a", tokenbroker.StateDegraded, tokenbroker.ClassTransient, "connection_refused", 0, at(1)),
			exchange("a", 4, end, 0)}, "›1 a PENDING 4 ████████████▋░░░░░░ 10s 0 recovered"},
		{"an exchange under way", []broker.Event{exchange("a", 4, end, 1), {Kind: broker.EventIntent, Credential: "a"}},
			"›1 a PENDING 4 ████████████▋░░░░░░ 10s 0 asking the provider, 5s"},
		{"an operator's hand", []broker.Event{exchange("a", 4, end, 1), state("a", tokenbroker.StateDisabled, "", time.Time{})},
			"›1 a DISABLED 4 ░░░░░░░░░░░░░░░░░░░ – 0 by an operator's hand"},
		{"a result kept apart", []broker.Event{{Kind: broker.EventOrphan, Credential: "a"}}, "›1 a PENDING 0 ░░░░░░░░░░░░░░░░░░░ – 0 orphan"},
		{"another variant", []broker.Event{exchange("a", 4, end, 1), {Kind: broker.EventExchange, Credential: "a",
			Order: tokenbroker.Order{Generation: 9}, Expiry: at(99), Waiters: 2}},
			"›1 a PENDING 4 ████████████▋░░░░░░ 10s 0 1 exchange served 2 waiters"},
		{"a credential that was deleted", []broker.Event{exchange("a", 4, end, 1), {Kind: broker.EventForgotten, Credential: "a"}}, ""},
		{"an event of no credential", []broker.Event{{Kind: broker.EventReport}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m table.Model
			for _, ev := range tc.events {
				m.Event(at(0), ev)
			}
			if got := strings.Join(rows(&m, at(5)), "\n"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestLinesTellWhatHappens(t *testing.T) {
	var m table.Model
	var got []string
	say := func(e *table.Entry) {
		if e != nil {
			got = append(got, e.Line())
		}
	}
	say(m.Event(at(0), state("a", tokenbroker.StatePending, "", time.Time{}))) // says nothing that is news
	say(m.Event(at(0), state("a", tokenbroker.StateReady, "", at(15))))
	say(m.Event(at(0), exchange("a", 4, at(15), 50)))
	say(m.Used(at(1), table.Use{Worker: 1, Credential: "a", Generation: 4, Status: 200}))
	say(m.Used(at(1), table.Use{Worker: 2, Credential: "a", Generation: 4, Status: 200})) // one voice is enough
	say(m.Used(at(2), table.Use{Worker: 2, Credential: "a", Generation: 4, Status: 401}))
	say(m.Used(at(2), table.Use{Worker: 3, Credential: "a", Generation: 4, Status: 401}))
	report := broker.Event{Kind: broker.EventReport, Credential: "a", HTTPStatus: 401, Order: tokenbroker.Order{Generation: 4}}
	say(m.Event(at(2), report))  // it was told already
	say(m.Event(at(60), report)) // somebody else's
	say(m.Event(at(60), report)) // of the same token
	say(m.Event(at(61), state("a", tokenbroker.StateReauthorize, "invalid_grant", at(15))))
	say(m.Event(at(61), failed("a", tokenbroker.StateReauthorize, tokenbroker.ClassDeadGrant, "invalid_grant", 400, time.Time{})))
	say(m.Event(at(62), broker.Event{Kind: broker.EventDeliver, Credential: "a", Streams: []uint64{1, 2}}))
	say(m.Event(at(62), broker.Event{Kind: broker.EventExpiring, Credential: "a", Expiry: at(62 + 7*24*3600)}))
	say(m.Worker(at(63), 2, at(68)))
	say(m.Worker(at(68), 2, time.Time{}))
	say(m.Worker(at(68), 2, time.Time{}))
	say(m.Away(at(70), "drained, back in 3 s"))
	say(m.Away(at(73), ""))
	say(m.Note(at(74), "a", "you: revoked the grant"))
	say(m.Remark(at(75), "", "there is nothing to kill"))
	want := []string{
		"12:15:00 a                   is READY",
		"12:15:00 a                   1 exchange served 50 waiters (generation 4, 15s)",
		"12:15:01 a                   generation 4 reached the workers; the API says 200",
		"12:15:02 a                   the API says 401 to worker 2, which reports it",
		"12:16:00 a                   a worker reported HTTP 401",
		"12:16:01 a                   is REAUTHORIZE (invalid_grant)",
		"12:16:01 a                   refresh failed: invalid_grant → REAUTHORIZE",
		"12:16:02 a                   its refresh token dies in 168h0m0s: consent again in time",
		"12:16:03 worker 2 was killed; it comes back in 5s",
		"12:16:08 worker 2 is back: its first message is the present state",
		"12:16:10 drained, back in 3 s",
		"12:16:13 the broker is back: it took up where it was, from the store",
		"12:16:14 a                   you: revoked the grant",
		"12:16:15 there is nothing to kill",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	totals := table.Totals{Exchanges: 2, Failed: 1, Served: 50, Pushed: 2, Used: 4, Refused: 2}
	if diff := cmp.Diff(totals, m.Totals()); diff != "" {
		t.Errorf("totals (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"Seen in 1m20s: 2 exchanges (1 failed) for 50 waiting callers; 2 messages pushed.",
		"At the most, 1 exchange served 50 waiters (a).",
		"The workers called the API 4 times; it refused 2.",
	}, m.Summary(at(0), at(80))); diff != "" {
		t.Errorf("summary (-want +got)\n%s", diff)
	}
}

func TestASurveyMakesUpForEventsThatWereMissed(t *testing.T) {
	var m table.Model
	m.Event(at(0), exchange("gone", 1, at(10), 0))
	m.Survey(at(0), []broker.Status{status("b", tokenbroker.StateReady, 3, at(10), 2)})
	if got, want := rows(&m, at(5)), []string{"›1 b READY 3 █████████▌░░░░░░░░░ 5s 2", "2 gone PENDING 1 █████████▌░░░░░░░░░ 5s 0 got a token"}; !cmp.Equal(got, want) {
		t.Errorf("after one survey: got %q, want %q", got, want) // it may have come while the survey was made
	}
	m.Survey(at(1), []broker.Status{status("b", tokenbroker.StateReauthorize, 3, at(10), 1)})
	if got, want := rows(&m, at(5)), []string{"›1 b REAUTHORIZE 3 █████████▌░░░░░░░░░ 5s 1"}; !cmp.Equal(got, want) {
		t.Errorf("after two: got %q, want %q", got, want)
	}
	if e := m.Event(at(2), state("b", tokenbroker.StateReauthorize, "invalid_grant", at(10))); e == nil {
		t.Error("an event that came after the survey is not told")
	}
	m.Survey(at(3), []broker.Status{{Credential: tokenbroker.Credential{Name: "b"}}}) // one without a snapshot
	m.Away(at(4), "drained")
	if got, want := rows(&m, at(5)), []string{"›1 b REAUTHORIZE 3 █████████▌░░░░░░░░░ 5s 0"}; !cmp.Equal(got, want) {
		t.Errorf("while the broker is away: got %q, want %q", got, want)
	}
}

func TestTheChosenCredentialStaysChosen(t *testing.T) {
	var m table.Model
	chosen := func(want string) {
		t.Helper()
		if got, _ := m.Chosen(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	chosen("")
	m.Move(1)
	m.Select(3)
	chosen("")
	for _, name := range []string{"b", "c", "d"} {
		m.Event(at(0), exchange(name, 1, at(10), 0))
	}
	chosen("b")
	m.Move(-1)
	chosen("b")
	m.Move(1)
	chosen("c")
	m.Event(at(0), exchange("a", 1, at(10), 0)) // comes before it
	chosen("c")
	m.Move(5)
	chosen("d")
	m.Select(9)
	chosen("d")
	m.Select(1)
	chosen("a")
	m.Event(at(0), broker.Event{Kind: broker.EventForgotten, Credential: "a"})
	chosen("b")
	if _, provider := m.Chosen(); provider != "acme" {
		t.Errorf("provider: got %q", provider)
	}
}

func TestAModelForgetsWhatNoScreenShows(t *testing.T) {
	var m table.Model
	for i := range 1000 {
		m.Remark(at(0), "", fmt.Sprint("remark ", i))
	}
	view := strings.Join(m.View(80, 500, at(0), false), "\n")
	if n := strings.Count(view, "remark"); n < 100 || n > 250 || !strings.Contains(view, "remark 999") {
		t.Errorf("got %d remarks, want some 100 to 200 with the newest", n)
	}
}
