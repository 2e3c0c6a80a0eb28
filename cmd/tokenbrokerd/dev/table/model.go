// Package table is what "tokenbrokerd dev" shows: a model of the broker, folded from its events and from what the workers say, and views
// of that model as lines of text.
//
// Nothing here does anything: a [Model] changes only when it is told something, and [Model.View] depends on its arguments alone. No token
// and no secret gets here, since [broker.Event] holds none.
package table

import (
	"cmp"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

// recently is how long what a worker was refused explains reports.
const recently = 10 * time.Second

// kept is how many entries a model remembers: more than any screen is high.
const kept = 200

// Model is what is known. It is for one goroutine.
type Model struct {
	Title string   // what runs where
	Join  []string // how to join in from another terminal, a line each

	rows     []row
	workers  []worker
	entries  []Entry
	selected string
	away     string // why the broker does not answer; "" while it does
	totals   Totals
	herd     string // the exchange that served the most
	most     int
}

// Totals counts what happened.
type Totals struct {
	Exchanges, Failed int // token requests
	Served            int // callers that waited for one
	Pushed            int // tokens and states sent to subscribers
	Used, Refused     int // calls of the workers to the API
}

// row is a credential.
type row struct {
	name, provider string
	state          tokenbroker.State
	told           tokenbroker.State // the last one that an event told of
	missing        int               // surveys in a row that did not find it
	generation     tokenbroker.Generation
	since, expiry  time.Time // of its token, as far as is known
	subscribers    int
	last           string                 // what happened last
	lastState      tokenbroker.State      // for its colour
	next           time.Time              // when a failed exchange is tried again
	asking         time.Time              // when the exchange under way began
	failing        bool                   // the last exchange failed
	reported       tokenbroker.Generation // newest one that was told to be reported
	refused        tokenbroker.Generation // newest one that a worker was refused with
	refusedAt      time.Time              // when a worker was refused last
	used           tokenbroker.Generation // newest one that a worker used with success
}

// Entry is something that happened, in a line.
type Entry struct {
	At         time.Time
	Credential string // "" if it is about none
	Text       string
	State      tokenbroker.State // for its colour; "" = none
	Quiet      bool              // everyday: for plain lines, not for the few of a screen
}

// worker is one of the sample workers.
type worker struct {
	number    int
	back      time.Time // when it comes back; zero = it is there
	called    bool
	refusedAt time.Time // when the API refused its token last
	status    int       // with which it did
}

// row finds or makes a credential's row.
func (m *Model) row(name string) *row {
	i, ok := slices.BinarySearchFunc(m.rows, name, func(r row, n string) int { return cmp.Compare(r.name, n) })
	if !ok {
		m.rows = slices.Insert(m.rows, i, row{name: name, state: tokenbroker.StatePending})
	}
	return &m.rows[i]
}

func (m *Model) worker(number int) *worker {
	i, ok := slices.BinarySearchFunc(m.workers, number, func(w worker, n int) int { return cmp.Compare(w.number, n) })
	if !ok {
		m.workers = slices.Insert(m.workers, i, worker{number: number})
	}
	return &m.workers[i]
}

// add remembers an entry and returns it.
func (m *Model) add(e Entry) *Entry {
	m.entries = append(m.entries, e)
	if len(m.entries) > kept {
		m.entries = slices.Clone(m.entries[len(m.entries)-kept/2:])
	}
	return &e
}

// Event takes up an event of the engine, and tells it in a line; nil if it is only noise.
func (m *Model) Event(now time.Time, ev broker.Event) *Entry {
	if ev.Credential == "" {
		return nil
	}
	switch ev.Kind {
	case broker.EventIntent:
		m.row(ev.Credential).asking = now
	case broker.EventExchange:
		return m.exchange(now, ev)
	case broker.EventState:
		return m.state(now, ev)
	case broker.EventReport:
		return m.report(now, ev)
	case broker.EventDeliver:
		m.totals.Pushed += len(ev.Streams)
	case broker.EventForgotten:
		m.forget(ev.Credential)
		return m.add(Entry{At: now, Credential: ev.Credential, Text: "was deleted"})
	case broker.EventExpiring:
		return m.add(Entry{At: now, Credential: ev.Credential, Text: expiring(ev, now), State: tokenbroker.StateDegraded})
	case broker.EventRevoked:
		return m.add(Entry{At: now, Credential: ev.Credential, Text: "revocation: " + cmp.Or(ev.Code, "done"), State: tokenbroker.StateReauthorize})
	case broker.EventSecret, broker.EventClockSkew: // of an OAuth client, of a provider: no row is theirs
	case broker.EventAdopted: // its state tells
	case broker.EventOrphan, broker.EventCommitErr, broker.EventTampered:
		r := m.row(ev.Credential)
		r.last, r.lastState, r.next = string(ev.Kind), tokenbroker.StateUncertain, time.Time{}
		return m.add(Entry{At: now, Credential: ev.Credential, Text: r.last, State: r.lastState})
	}
	return nil
}

func (m *Model) exchange(now time.Time, ev broker.Event) *Entry {
	r := m.row(ev.Credential)
	r.provider, r.asking, r.next, r.lastState = ev.Provider, time.Time{}, time.Time{}, tokenbroker.StateReady
	m.totals.Exchanges++
	m.totals.Served += ev.Waiters
	e := Entry{At: now, Credential: ev.Credential}
	if ev.Class != "" {
		m.totals.Failed++
		r.failing, r.next, r.last, r.lastState = true, ev.Next, failed(ev), failedState(ev.State)
		e.Text, e.State = again("refresh failed: "+r.last, ev.Next, now), r.lastState
		return m.add(e)
	}
	r.last = r.served(ev.Waiters, now)
	e.Text = r.last + fresh(ev, now)
	r.failing = false
	if ev.Own {
		r.take(now, ev.Order.Generation, ev.Expiry)
	} else {
		e.Text += ", for other scopes, subject or audience"
	}
	if ev.Waiters > m.most {
		m.most, m.herd = ev.Waiters, ev.Credential
	}
	if ev.Waiters > 1 {
		e.State = tokenbroker.StateReady
	}
	return m.add(e)
}

// take notes a token.
func (r *row) take(now time.Time, g tokenbroker.Generation, expiry time.Time) {
	if g != r.generation || !expiry.Equal(r.expiry) {
		r.generation, r.since, r.expiry = g, now, expiry
	}
}

func (m *Model) state(now time.Time, ev broker.Event) *Entry {
	if !ev.Own {
		return nil
	}
	r := m.row(ev.Credential)
	r.provider = cmp.Or(ev.Provider, r.provider)
	before := r.told
	r.state, r.told = ev.State, ev.State
	if ev.Expiry.IsZero() {
		r.since, r.expiry = time.Time{}, time.Time{}
	}
	if before == ev.State || before == "" && ev.State == tokenbroker.StatePending {
		return nil
	}
	switch ev.State {
	case tokenbroker.StateDisabled, tokenbroker.StateQuarantined:
		r.last, r.lastState, r.next = "by an operator's hand", ev.State, time.Time{}
	default:
	}
	return m.add(Entry{At: now, Credential: ev.Credential, Text: becomes(ev), State: ev.State, Quiet: !byHand(before) && !byHand(ev.State)})
}

// byHand reports whether a state comes of an operator, not of an exchange, which has a line of its own.
func byHand(s tokenbroker.State) bool {
	return s == tokenbroker.StateDisabled || s == tokenbroker.StateQuarantined
}

// report tells of the first report of a token, not of the whole fleet's; what the sample workers report is told before.
func (m *Model) report(now time.Time, ev broker.Event) *Entry {
	r := m.row(ev.Credential)
	if ev.Order.Generation == r.reported || now.Sub(r.refusedAt) < recently {
		return nil
	}
	r.reported = ev.Order.Generation
	return m.add(Entry{At: now, Credential: ev.Credential, Text: reported(ev), State: tokenbroker.StateDegraded})
}

func (m *Model) forget(name string) {
	m.rows = slices.DeleteFunc(m.rows, func(r row) bool { return r.name == name })
}

// Survey takes up how all credentials stand: what events do not say, or said before anybody listened.
func (m *Model) Survey(now time.Time, all []broker.Status) {
	there := map[string]bool{}
	for _, st := range all {
		there[st.Credential.Name] = true
		r := m.row(st.Credential.Name)
		r.provider, r.subscribers, r.missing = st.Credential.Provider, st.Subscribers, 0
		if s := st.Snapshot; s != nil {
			r.state = s.State
			if s.Token != nil {
				r.take(now, s.Order.Generation, s.Token.Expiry)
			}
		}
	}
	for i := range m.rows {
		if !there[m.rows[i].name] {
			m.rows[i].missing++
		}
	}
	m.rows = slices.DeleteFunc(m.rows, func(r row) bool { return r.missing > 1 }) // once: it may have come since
}

// Away says why the broker does not answer; "" when it does again.
func (m *Model) Away(now time.Time, why string) *Entry {
	m.away = why
	for i := range m.rows {
		m.rows[i].asking = time.Time{}
		if why != "" {
			m.rows[i].subscribers = 0
		}
	}
	text := cmp.Or(why, "the broker is back: it took up where it was, from the store")
	return m.add(Entry{At: now, Text: text, State: tokenbroker.StateDegraded})
}

// Worker says that a worker goes, and when it comes back; the zero time says that it is there.
func (m *Model) Worker(now time.Time, number int, back time.Time) *Entry {
	w := m.worker(number)
	was := w.back
	w.back = back
	switch {
	case !back.IsZero():
		return m.add(Entry{At: now, Text: workerGoes(number, back.Sub(now)), State: tokenbroker.StateDegraded})
	case !was.IsZero():
		return m.add(Entry{At: now, Text: workerBack(number), State: tokenbroker.StateReady})
	}
	return nil
}

// Use is a call of a worker to the API, with its token.
type Use struct {
	Worker     int
	Credential string
	Generation tokenbroker.Generation
	Status     int // HTTP status; 0 = no answer
}

// Used takes up a call to the API. The first good one and the first refused one of a token are told in a line.
func (m *Model) Used(now time.Time, u Use) *Entry {
	w, r := m.worker(u.Worker), m.row(u.Credential)
	m.totals.Used++
	w.called = true
	if u.Status != 200 {
		m.totals.Refused++
		w.refusedAt, w.status, r.refusedAt = now, u.Status, now
		if u.Generation <= r.refused {
			return nil
		}
		r.refused = u.Generation
		return m.add(Entry{At: now, Credential: u.Credential, Text: refused(u), State: tokenbroker.StateDegraded})
	}
	if u.Generation <= r.used {
		return nil
	}
	r.used = u.Generation
	return m.add(Entry{At: now, Credential: u.Credential, Text: reached(u), Quiet: true})
}

// Note says what somebody did to a credential, or "" for something else.
func (m *Model) Note(now time.Time, credential, text string) *Entry {
	if credential != "" {
		r := m.row(credential)
		r.last, r.lastState, r.next = text, tokenbroker.StatePending, time.Time{}
	}
	return m.Remark(now, credential, text)
}

// Remark says something of a credential, or of "", that is not worth to stay.
func (m *Model) Remark(now time.Time, credential, text string) *Entry {
	return m.add(Entry{At: now, Credential: credential, Text: text, State: tokenbroker.StatePending})
}

// Select chooses the n-th credential, counted from 1.
func (m *Model) Select(n int) {
	if n >= 1 && n <= len(m.rows) {
		m.selected = m.rows[n-1].name
	}
}

// Move chooses the credential that is by places further down.
func (m *Model) Move(by int) { m.Select(min(max(m.index()+1+by, 1), len(m.rows))) }

// index is where the chosen row is; the first one if none was chosen, or it is gone.
func (m *Model) index() int {
	return max(0, slices.IndexFunc(m.rows, func(r row) bool { return r.name == m.selected }))
}

// Chosen is the credential that keys act on, with its provider; "" if there is none.
func (m *Model) Chosen() (credential, provider string) {
	if len(m.rows) == 0 {
		return "", ""
	}
	r := m.rows[m.index()]
	return r.name, r.provider
}

// Totals is what was counted.
func (m *Model) Totals() Totals { return m.totals }
