package sandbox_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// line is one consent as RFC 9700 §4.14.2 has it, written down apart from the server: the chain of its refresh tokens.
type line struct {
	chain []*link
	dead  bool
	live  map[string]time.Time // access token → its end; the zero time once it was revoked
}

func (l *line) revokeAccess() {
	for token := range l.live {
		l.live[token] = time.Time{}
	}
}

type link struct {
	token       string
	issued      time.Time // without rotation, last used
	spent       time.Time
	overwritten bool // lost to a forgiven replay of the one before it
}

// ask says whether the token of a link brings tokens now, and kills the line where it has to.
func (l *line) ask(at int, iss sandbox.Issuer, now time.Time) bool {
	k := l.chain[at]
	newest := l.newest()
	used := !k.spent.IsZero() || k.overwritten
	previous := iss.Rotation == sandbox.RotateGrace && !k.overwritten && newest == l.after(at) && newest.spent.IsZero()
	switch {
	case l.dead:
		return false
	case used && previous && now.Sub(k.spent) < iss.Grace:
		return true
	case used:
		l.dead = true
		l.revokeAccess()
		return false
	}
	return iss.RefreshLife == 0 || now.Sub(k.issued) < iss.RefreshLife
}

func (l *line) newest() *link { return l.chain[len(l.chain)-1] }

// after is the successor of a link that counts: the last one that was made for it.
func (l *line) after(at int) *link {
	next := at + 1
	for next < len(l.chain)-1 && l.chain[next].overwritten {
		next++
	}
	if next >= len(l.chain) {
		return nil
	}
	return l.chain[next]
}

// bring enters what a refresh brought.
func (l *line) bring(at int, iss sandbox.Issuer, access, refresh string, now time.Time) {
	if iss.KillsOld {
		l.revokeAccess()
	}
	l.live[access] = now.Add(iss.AccessLife)
	k := l.chain[at]
	if iss.Rotation == sandbox.RotateNone {
		k.issued = now
		return
	}
	if k.spent.IsZero() {
		k.spent = now
	} else {
		l.newest().overwritten = true
	}
	l.chain = append(l.chain, &link{token: refresh, issued: now})
}

// TestRotationAgreesWithASecondReading runs random refreshes, replays and pauses, with answers lost and dropped, and compares each
// answer and the life of every access token with the reading above.
func TestRotationAgreesWithASecondReading(t *testing.T) {
	for name, iss := range map[string]sandbox.Issuer{
		"strict":                 {Rotation: sandbox.RotateStrict},
		"strict, kills the old":  {Rotation: sandbox.RotateStrict, KillsOld: true},
		"strict, dies when idle": {Rotation: sandbox.RotateStrict, RefreshLife: 2 * time.Minute},
		"grace":                  {Rotation: sandbox.RotateGrace, Grace: 20 * time.Second},
		"grace, kills the old":   {Rotation: sandbox.RotateGrace, Grace: 40 * time.Second, KillsOld: true, RefreshLife: 2 * time.Minute},
		"none":                   {Rotation: sandbox.RotateNone},
		"none, dies when idle":   {Rotation: sandbox.RotateNone, RefreshLife: time.Minute, KillsOld: true},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { rotate(t, iss, rand.New(rand.NewPCG(seed, 0))) })
			})
		}
	}
}

func rotate(t *testing.T, iss sandbox.Issuer, r *rand.Rand) {
	t.Helper()
	iss.AccessLife = time.Minute
	w := newWorld(t, iss)
	var lines []*line
	for step := range 400 {
		if len(lines) == 0 || r.IntN(40) == 0 {
			lines = append(lines, &line{chain: []*link{{token: w.seed("read"), issued: time.Now()}}, live: map[string]time.Time{}})
		}
		l := lines[len(lines)-1-r.IntN(min(3, len(lines)))]
		at := len(l.chain) - 1 // the newest mostly, and now and then one that was used before
		if r.IntN(3) == 0 {
			at -= r.IntN(min(3, len(l.chain)))
		}
		switch r.IntN(6) {
		case 0:
			w.srv.Fail("acme", sandbox.Fault{Drop: true, Stage: sandbox.BeforeProcessing})
			if _, err := w.try(w.refreshing(l.chain[at].token)); err == nil {
				t.Fatalf("step %d: got an answer, want the connection dropped", step)
			}
		default:
			want := l.ask(at, iss, time.Now())
			got := w.refresh(l.chain[at].token)
			if (got.status == 200) != want || !want && got.str("error") != "invalid_grant" {
				t.Fatalf("step %d, token %d of %d: got %d %q, want success %t", step, at+1, len(l.chain), got.status, got.str("error"), want)
			}
			if want {
				l.bring(at, iss, got.str("access_token"), got.str("refresh_token"), time.Now())
			}
		}
		for n, l := range lines {
			for token, end := range l.live {
				if got, want := w.srv.Valid(token), time.Now().Before(end); got != want {
					t.Fatalf("step %d, consent %d: got an access token valid %t, want %t", step, n, got, want)
				}
			}
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Second)
	}
}
