package sandbox_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestContradictoryFaultsPanic(t *testing.T) {
	for name, f := range map[string]sandbox.Fault{
		"drop with an answer":      {Drop: true, Status: 500},
		"drop and refuse":          {Drop: true, Refuse: true},
		"refuse after commit":      {Refuse: true, Stage: sandbox.AfterCommit},
		"two Retry-After":          {Status: 503, RetryAfter: 1, RetryDate: 1},
		"replace and edit":         {Status: 500, Omit: []string{"x"}},
		"values that are not made": {Body: "{access_token}"},
		"negative delay":           {Delay: -1},
		"times":                    {Times: -2},
		"stage":                    {Stage: 7},
		"status":                   {Status: 99},
		"endpoint":                 {Endpoint: "nowhere"},
		"grant":                    {GrantType: "magic"},
		"client":                   {ClientID: "nobody"},
		"grant of a resource":      {Endpoint: sandbox.EndpointResource, GrantType: sandbox.GrantRefreshToken},
		"member without JSON":      {Set: map[string]any{"x": make(chan int)}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			wantPanic(t, func() { w.srv.Fail("acme", f) })
		})
	}
}

func wantPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("got no panic, want one")
		}
	}()
	f()
}

func TestFaultsDescribeThemselves(t *testing.T) {
	for want, f := range map[string]sandbox.Fault{
		"none":                              {},
		"delay 2s, hang, drop after commit": {Delay: 2 * time.Second, Hang: true, Drop: true, Stage: sandbox.AfterCommit},
		"status 503, body, headers":         {Status: 503, Body: "x", RetryAfter: 1},
		"redirect, drip 1s, truncate":       {Redirect: "https://x.test", Drip: time.Second, Truncate: 3},
		"edit":                              {Omit: []string{"scope"}},
		"refuse":                            {Refuse: true},
	} {
		if got := f.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
