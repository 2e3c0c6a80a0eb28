package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// soakFor is how long the soak tests run: TOKENBROKER_SOAK, or as short as may be.
func soakFor(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("TOKENBROKER_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TOKENBROKER_SOAK: %v", err)
	}
	return d
}

// TestSoakCrash kills the broker at random moments while it refreshes rotating credentials. Whatever was shown to anybody before
// must be there afterwards, and the authorization server must never see a refresh token that its rules do not forgive.
func TestSoakCrash(t *testing.T) {
	t.Parallel()
	const credentials, leastKills, leastSpent, mostKills = 16, 30, 50, 1000
	// A token that was spent before a kill may be sent once more as long as the grace lasts, and many kills may follow one another
	// before a slow machine gets to it.
	up := newUpstream(t, sandbox.Issuer{Name: "graceful", Rotation: sandbox.RotateGrace, Grace: time.Hour, AccessLife: time.Second})
	s := newSite(t, up.provider("graceful", "rotates: true", "grace: 1h"))
	s.start()
	operator := s.conn("operator")
	addJob(t, operator, "graceful")
	var names []string
	for i := range credentials {
		names = append(names, fmt.Sprintf("example/drive-%d", i))
		add(t, operator, names[i], "graceful", "graceful", up.SeedRefreshToken("graceful", "job", "reports.read"), "reports.read")
	}
	l := newLedger()
	watchers, conns := fleet(t, s, l, 2, 3, names, credentials)
	settled(t, watchers, 1)

	kills := 0
	// A slow machine gets less done between two kills, so it takes more of them, further apart, until there is enough to judge.
	unfinished := func() bool { return kills < leastKills || spent(up) < leastSpent }
	for end := time.Now().Add(soakFor(t)); (unfinished() && kills < mostKills) || time.Now().Before(end); kills++ {
		slowly(up)
		time.Sleep(rand.N(time.Duration(1+kills/leastKills) * 250 * time.Millisecond)) // the moment is the input, nothing is waited for
		s.proc.kill()
		s.start()
	}
	up.Clear("graceful")
	for _, name := range names { // it recovers by itself, and every token that it gives is live
		eventually(t, "a live token of "+name, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			tok, err := l.get(ctx, conns[0], name)
			return err == nil && up.Valid(tok.GetAccessToken())
		})
	}
	s.stop()
	l.check(t)
	if unfinished() {
		t.Errorf("got %d refresh tokens redeemed around %d kills, too few to say anything", spent(up), kills)
	}
	checkRedemptions(t, up, kills*credentials)
	t.Logf("%d kills, %d tokens seen, %d token requests", kills, l.tokens, up.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}))
}

// slowly has the next requests take a while, before or after they count, so that a kill meets them at either side.
func slowly(up *upstream) {
	up.Clear("graceful")
	var faults []sandbox.Fault
	for range 40 {
		faults = append(faults, sandbox.Fault{Delay: rand.N(40 * time.Millisecond), Stage: sandbox.Stage(rand.N(2))})
	}
	up.Fail("graceful", faults...)
}

// spent counts the refresh tokens that were redeemed at least once.
func spent(up *upstream) int {
	n := 0
	for _, r := range up.Redemptions() {
		if r.Redeemed > 0 {
			n++
		}
	}
	return n
}

// checkRedemptions wants that no refresh token came that the server had to refuse, and that no more of them came twice than
// crashes can explain.
func checkRedemptions(t *testing.T, up *upstream, explained int) {
	t.Helper()
	if got := up.Count(sandbox.Filter{Code: "invalid_grant"}); got != 0 {
		t.Errorf("got %d invalid_grant, want none", got)
	}
	replays := 0
	for _, r := range up.Redemptions() {
		replays += max(0, r.Redeemed-1)
	}
	if replays > explained {
		t.Errorf("got %d replays, want at most %d", replays, explained)
	}
	t.Logf("%d refresh tokens redeemed, %d replays within the grace", spent(up), replays)
}
