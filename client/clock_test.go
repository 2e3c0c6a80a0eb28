package client_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

func TestATokenEndsByTheClockThatSaysSoFirst(t *testing.T) {
	for name, tc := range map[string]struct{ wall, monotonic, want time.Duration }{
		"the clocks agree":       {time.Hour, time.Hour, time.Hour},
		"the machine slept":      {time.Minute, time.Hour, time.Minute},
		"the clock was set back": {2 * time.Hour, time.Minute, time.Minute},
	} {
		if got := client.Left(tc.wall, tc.monotonic); got != tc.want {
			t.Errorf("%s: got %s left, want %s", name, got, tc.want)
		}
	}
}

func TestAMachineThatSleptNoticesTheEndOfATokenInTime(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.Sleep("example/api", 2*time.Hour) // its timers know nothing of that
		time.Sleep(30 * time.Second)
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		if gets, _, _ := p.counts(); gets != 2 {
			t.Errorf("got %d calls, want another one for a token that ended in the sleep", gets)
		}
	})
}
