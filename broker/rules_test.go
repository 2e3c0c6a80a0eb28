package broker_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestGuardAndLead(t *testing.T) {
	kills := tokenbroker.Traits{KillsOld: true}
	for _, c := range []struct {
		name        string
		life        time.Duration
		traits      tokenbroker.Traits
		guard, lead time.Duration
	}{
		{"negative", -time.Second, tokenbroker.Traits{}, 0, 0},
		{"none", 0, tokenbroker.Traits{}, 0, 0},
		{"one second", time.Second, tokenbroker.Traits{}, 50 * time.Millisecond, 500 * time.Millisecond},
		{"five seconds", 5 * time.Second, tokenbroker.Traits{}, 250 * time.Millisecond, 2500 * time.Millisecond},
		{"a minute", time.Minute, tokenbroker.Traits{}, 3 * time.Second, 30 * time.Second},
		{"five minutes", 5 * time.Minute, tokenbroker.Traits{}, 10 * time.Second, time.Minute},
		{"an hour", time.Hour, tokenbroker.Traits{}, 10 * time.Second, 12 * time.Minute},
		{"a day", 24 * time.Hour, tokenbroker.Traits{}, 10 * time.Second, 15 * time.Minute},
		{"an hour, kills the old one", time.Hour, kills, 10 * time.Second, 3 * time.Minute},
		{"a minute, kills the old one", time.Minute, kills, 3 * time.Second, 7500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.Guard(c.life); got != c.guard {
				t.Errorf("guard: got %s, want %s", got, c.guard)
			}
			if got := broker.Lead(c.life, c.traits); got != c.lead {
				t.Errorf("lead: got %s, want %s", got, c.lead)
			}
		})
	}
}

func TestRefreshIsInTheSecondHalfAndBeforeTheGuard(t *testing.T) {
	for _, traits := range []tokenbroker.Traits{{}, {KillsOld: true}} {
		for _, life := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, time.Minute, time.Hour, 365 * 24 * time.Hour} {
			tok := tokenbroker.Token{Obtained: noon, Expiry: noon.Add(life)}
			for _, jitter := range []float64{0, 0.5, 0.999999} {
				at := broker.RefreshAt(tok, traits, jitter)
				if at.Sub(noon) < life/2 {
					t.Errorf("life %s, jitter %f: refreshed after %s, want not in the first half", life, jitter, at.Sub(noon))
				}
				if end := tok.Expiry.Add(-broker.Guard(life)); !at.Before(end) {
					t.Errorf("life %s, jitter %f: refreshed at %s, want before %s", life, jitter, at, end)
				}
			}
			if one, two := broker.RefreshAt(tok, traits, 0), broker.RefreshAt(tok, traits, 0.9); !two.After(one) {
				t.Errorf("life %s: jitter does not spread refreshes", life)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	const five = 5 * time.Minute
	for _, c := range []struct {
		name       string
		n          int
		most       time.Duration
		retryAfter time.Duration
		jitter     float64
		want       time.Duration
	}{
		{"first, no jitter", 0, five, 0, 0, 500 * time.Millisecond},
		{"first, full jitter", 0, five, 0, 1, time.Second},
		{"fifth", 4, five, 0, 1, 16 * time.Second},
		{"capped", 9, five, 0, 1, five},
		{"far on", 1 << 30, five, 0, 1, five},
		{"capped sooner", 9, time.Second, 0, 1, time.Second},
		{"half", 1 << 30, five, 0, 0.5, 150 * time.Second},
		{"as the provider asks", 0, five, time.Minute, 0, time.Minute},
		{"and a little more", 0, five, time.Minute, 1, 66 * time.Second},
		{"but not for ever", 0, five, 10 * 365 * 24 * time.Hour, 0, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.Backoff(c.n, c.most, c.retryAfter, c.jitter); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestFloor(t *testing.T) {
	for _, c := range []struct {
		name      string
		floor     time.Duration
		life      time.Duration
		doublings int
		want      time.Duration
	}{
		{"default", 0, time.Hour, 0, 30 * time.Second},
		{"of the provider", time.Minute, time.Hour, 0, time.Minute},
		{"half of a short life", 0, 10 * time.Second, 0, 5 * time.Second},
		{"doubled", 0, time.Hour, 3, 4 * time.Minute},
		{"capped", 0, time.Hour, 1 << 20, time.Hour},
		{"a longer one stays", 12 * time.Hour, 7 * 24 * time.Hour, 1 << 20, 12 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.Floor(tokenbroker.Traits{Floor: c.floor}, c.life, c.doublings); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestUnchangedAtIsNeverALoop(t *testing.T) {
	for _, left := range []time.Duration{-time.Minute, 0, time.Second, time.Hour} {
		got := broker.UnchangedAt(noon, noon.Add(left), tokenbroker.Traits{}, time.Hour).Sub(noon)
		if want := max(left/2, 30*time.Second); got != want {
			t.Errorf("%s left: got %s, want %s", left, got, want)
		}
	}
}

func TestProbeDelay(t *testing.T) {
	for _, c := range []struct {
		n      int
		jitter float64
		want   time.Duration
	}{{1, 0, 15 * time.Minute}, {1, 1, 30 * time.Minute}, {3, 1, 2 * time.Hour}, {100, 1, 6 * time.Hour}, {100, 0, 15 * time.Minute}} {
		if got := broker.ProbeDelay(c.n, c.jitter); got != c.want {
			t.Errorf("probe %d with jitter %f: got %s, want %s", c.n, c.jitter, got, c.want)
		}
	}
}

func TestInGrace(t *testing.T) {
	minute := tokenbroker.Traits{Grace: time.Minute}
	for _, c := range []struct {
		name   string
		traits tokenbroker.Traits
		since  time.Duration
		want   bool
	}{
		{"none", tokenbroker.Traits{}, 0, false},
		{"at once", minute, 0, true},
		{"within four fifths", minute, 47 * time.Second, true},
		{"too close to its end", minute, 48 * time.Second, false},
		{"a minute before the end of a long one", tokenbroker.Traits{Grace: 30 * time.Minute}, 29*time.Minute - time.Second, true},
		{"within the last minute of a long one", tokenbroker.Traits{Grace: 30 * time.Minute}, 29 * time.Minute, false},
		{"passed", minute, time.Hour, false},
		{"the clock went back", minute, -time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.InGrace(c.traits, noon, noon.Add(c.since)); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

func TestGrantEndAndExercise(t *testing.T) {
	day := 24 * time.Hour
	g := tokenbroker.Grant{Serial: 1, Consented: noon, Exercised: noon.Add(10 * day)}
	ended := g
	ended.RefreshEnd = noon.Add(12 * day)
	for _, c := range []struct {
		name          string
		grant         tokenbroker.Grant
		traits        tokenbroker.Traits
		end, exercise time.Time
	}{
		{"no refresh token", tokenbroker.Grant{}, tokenbroker.Traits{IdleLife: day, AbsoluteLife: day}, time.Time{}, time.Time{}},
		{"nothing known", g, tokenbroker.Traits{}, time.Time{}, time.Time{}},
		{"idle", g, tokenbroker.Traits{IdleLife: 10 * day}, noon.Add(20 * day), noon.Add(18 * day)},
		{"absolute", g, tokenbroker.Traits{AbsoluteLife: 90 * day}, noon.Add(90 * day), time.Time{}},
		{"the earliest counts", ended, tokenbroker.Traits{IdleLife: 10 * day, AbsoluteLife: 90 * day}, noon.Add(12 * day), noon.Add(10*day + 2*day*4/5)},
		{"an end that the provider named", ended, tokenbroker.Traits{}, noon.Add(12 * day), noon.Add(10*day + 2*day*4/5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.GrantEnd(c.grant, c.traits); !got.Equal(c.end) {
				t.Errorf("end: got %s, want %s", got, c.end)
			}
			if got := broker.ExerciseBy(c.grant, c.traits); !got.Equal(c.exercise) {
				t.Errorf("exercise: got %s, want %s", got, c.exercise)
			}
		})
	}
}

func TestWarningsOfTheEndOfARefreshToken(t *testing.T) {
	day := 24 * time.Hour
	at := func(days int) time.Time { return noon.Add(time.Duration(days) * day) }
	var never time.Time
	for _, c := range []struct {
		name   string
		grant  tokenbroker.Grant
		traits tokenbroker.Traits
		want   [3]time.Time
	}{
		{"no refresh token", tokenbroker.Grant{}, tokenbroker.Traits{AbsoluteLife: 90 * day}, [3]time.Time{}},
		{"no end known", tokenbroker.Grant{Serial: 1, Consented: noon}, tokenbroker.Traits{}, [3]time.Time{}},
		{"an absolute one", tokenbroker.Grant{Serial: 1, Consented: noon}, tokenbroker.Traits{AbsoluteLife: 90 * day}, [3]time.Time{at(60), at(83), at(89)}},
		{"an absolute one that is short", tokenbroker.Grant{Serial: 1, Consented: noon}, tokenbroker.Traits{AbsoluteLife: 20 * day}, [3]time.Time{never, at(13), at(19)}},
		{"idle: exercised before", tokenbroker.Grant{Serial: 1, Exercised: noon}, tokenbroker.Traits{IdleLife: 50 * day}, [3]time.Time{never, at(43), at(49)}},
		{"idle and short: its use is enough", tokenbroker.Grant{Serial: 1, Exercised: noon}, tokenbroker.Traits{IdleLife: 4 * day}, [3]time.Time{}},
		{"named once, for good", tokenbroker.Grant{Serial: 1, Exercised: at(150), Prolonged: noon, RefreshEnd: at(180)}, tokenbroker.Traits{}, [3]time.Time{at(150), at(173), at(179)}},
		{"named anew with each use", tokenbroker.Grant{Serial: 9, Exercised: at(150), Prolonged: at(150), RefreshEnd: at(164)}, tokenbroker.Traits{}, [3]time.Time{never, never, at(163)}},
		{"the earliest of both", tokenbroker.Grant{Serial: 1, Consented: noon, Exercised: noon}, tokenbroker.Traits{IdleLife: 50 * day, AbsoluteLife: 48 * day}, [3]time.Time{never, at(41), at(47)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := broker.Warnings(c.grant, c.traits); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
