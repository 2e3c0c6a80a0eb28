package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
)

// How often what is not recorded one by one is summed up, and how many sums there may be at once: what is beyond goes into one of its kind.
const (
	tallyEvery = 5 * time.Second
	tallyMost  = 1024
)

// Reasons of records that sum up.
const (
	summedDenials   = "denied_summary"         // denied calls of an identity, beyond what is recorded one by one
	summedTooMany   = "too_many_summary"       // calls of an identity beyond its rate
	summedUnknown   = "unknown_method_summary" // calls of methods that there are not
	actionHandshake = "handshake"              // of connections that were refused before anybody was known
)

// sum is what is counted together.
type sum struct {
	identity, action, reason, code string
}

// tally counts what is too much to be recorded one by one, and records the counts.
type tally struct {
	write func(context.Context, audit.Record) error

	mu     sync.Mutex
	counts map[sum]*since
	timer  *time.Timer // nil = nothing is counted
	shut   bool

	writing sync.WaitGroup
}

// since is a count, and since when.
type since struct {
	n     uint64
	first time.Time
}

func newTally(write func(context.Context, audit.Record) error) *tally {
	return &tally{write: write, counts: map[sum]*since{}}
}

// add counts one.
func (t *tally) add(s sum) { t.addN(s, 1, time.Now()) }

func (t *tally) addN(s sum, n uint64, first time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[s] == nil && len(t.counts) >= tallyMost {
		s.identity, s.action = "", ""
	}
	c := t.counts[s]
	if c == nil {
		c = &since{first: first}
		t.counts[s] = c
	}
	c.n += n
	if t.timer == nil && !t.shut {
		t.writing.Add(1)
		t.timer = time.AfterFunc(tallyEvery, func() {
			defer t.writing.Done()
			t.flush()
		})
	}
}

// flush records what was counted. What can't be recorded is counted on.
func (t *tally) flush() {
	t.mu.Lock()
	counts := t.counts
	t.counts, t.timer = map[sum]*since{}, nil
	t.mu.Unlock()
	var err error
	for s, c := range counts {
		if err == nil { // a log that hangs would hold up the rest
			err = t.write(context.Background(), s.record(c))
		}
		if err != nil {
			t.addN(s, c.n, c.first)
		}
	}
}

// close records what is left, and waits. What is counted from then on is recorded by nobody: call it when nobody is served any more.
func (t *tally) close() {
	t.mu.Lock()
	t.shut = true
	if t.timer != nil && t.timer.Stop() {
		t.writing.Done()
	}
	t.mu.Unlock()
	t.writing.Wait()
	t.flush()
}

func (s sum) record(c *since) audit.Record {
	r := audit.Record{Kind: audit.KindCall, Identity: s.identity, Action: s.action, Decision: audit.Deny, Reason: s.reason, Code: s.code,
		Count: c.n, Latency: time.Since(c.first)}
	if s.action == actionHandshake {
		r.Kind = audit.KindSystem
	}
	return r
}

// handshakes counts refused connections, too.
func (t *tally) handshakes(tell func(string, error)) func(string, error) {
	return func(addr string, err error) {
		t.add(sum{action: actionHandshake, reason: refusal(err)})
		tell(addr, err)
	}
}

// refusal is why a handshake was refused, in a word: what a stranger sends must not become a record's text.
func refusal(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var notTLS tls.RecordHeaderError
	var network net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
		return "broken_off"
	case errors.As(err, &authority):
		return "unknown_authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired"
	case errors.As(err, &invalid):
		return "invalid_certificate"
	case errors.As(err, &notTLS):
		return "not_tls"
	case errors.As(err, &network):
		return "broken_off"
	}
	return "refused" // no certificate, no identity in it, or one that is denied: the log has some of them in words
}
