package server

import (
	"net"
	"testing"
)

// enters has so many connections come in, and returns those that found a place.
func enters(t *testing.T, a *admission, admin bool, n int) (in []*arrival) {
	t.Helper()
	for range n {
		here, there := net.Pipe()
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		switch reason := a.enter(here, admin); reason {
		case "":
			in = append(in, a.handshake(here))
		case RefusedConnections:
		default:
			t.Errorf("refused for %s", reason)
		}
	}
	return in
}

func TestWorkersThatTakeAllPlacesKeepNoOperatorOut(t *testing.T) {
	a := newAdmission(Limits{Conns: 10, Handshakes: 1000}.filled(), Edge{}, &shedder{})
	workers := enters(t, a, false, 20)
	if len(workers) != 10 {
		t.Errorf("%d workers came in, want 10", len(workers))
	}
	operators := enters(t, a, true, 300)
	if len(operators) != adminConns {
		t.Errorf("%d operators came in, want %d", len(operators), adminConns)
	}
	for _, gone := range []*arrival{workers[0], operators[0], operators[0]} {
		a.leave(gone)
	}
	if n := len(enters(t, a, false, 2)); n != 1 {
		t.Errorf("%d workers came in after one left, want 1", n)
	}
	if n := len(enters(t, a, true, 2)); n != 1 {
		t.Errorf("%d operators came in after one left, want 1", n)
	}
}
