package agent

import (
	"testing"
	"time"
)

func TestACertificateThatIsRenewedInTimeIsNoReasonToWarn(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var c certificateWatch
	for hour := range 100 { // of one hour each, renewed at half time
		first := start.Add(time.Duration(hour) * time.Hour / 2)
		for minute := range 30 {
			if now := first.Add(time.Duration(minute) * time.Minute); c.due(first.Add(time.Hour), now) {
				t.Fatalf("it warns at %s", now)
			}
		}
	}
	last := start.AddDate(1, 0, 0)
	if c.due(last, last.AddDate(0, 0, -300)) || c.due(last, last.Add(-25*time.Hour)) {
		t.Error("it warns sooner than a day ahead")
	}
	if !c.due(last, last.Add(-23*time.Hour)) || c.due(last, last.Add(-22*time.Hour)) {
		t.Error("it does not warn once, a day ahead")
	}
	if c.due(time.Time{}, last) {
		t.Error("it warns of no certificate")
	}
}
