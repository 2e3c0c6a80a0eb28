package server_test

import (
	"math"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

func TestConnectionsOfOneIdentityShareItsTurnsAlsoAfterItWasForgotten(t *testing.T) {
	refused := 0
	connect := server.Turns(0.001, 3, func(string) { refused++ })
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	turns := func(now time.Time, connections ...func(time.Time) error) (had int) {
		for range 10 {
			for _, c := range connections {
				if c(now) == nil {
					had++
				}
			}
		}
		return had
	}
	one, two := connect("spiffe://brokertest.local/a"), connect("spiffe://brokertest.local/a")
	other := connect("spiffe://brokertest.local/b")
	if had := turns(noon, one, two); had != 3 || refused != 17 {
		t.Errorf("got %d turns and %d refusals, want 3 and 17", had, refused)
	}
	if had := turns(noon, other); had != 3 {
		t.Errorf("another identity got %d turns, want 3", had)
	}
	later := noon.Add(2 * time.Hour)
	third := connect("spiffe://brokertest.local/a")
	if err := third(later); err != nil { // all were forgotten, and this one makes its bucket anew
		t.Error(err)
	}
	if had := turns(later, one, two, third); had != 2 {
		t.Errorf("got %d turns after the bucket was made anew, want the 2 that are left", had)
	}
}

// A limit that is to be none must not become one by what a number can hold.
func TestARateBeyondAllCallsRefusesNone(t *testing.T) {
	for _, rate := range []float64{1e10, 1e20, math.MaxFloat64} {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{CallsPerSecond: rate, ResetsPerSecond: rate}})
		b.AddClientCredentials("example/api", "files.read")
		conn := b.Worker()
		for range 3 {
			if _, err := tokensOf(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
				t.Errorf("%g calls per second: got %v, want a token", rate, err)
			}
		}
		b.Stop()
	}
}
