package provider_test

import (
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/provider"
)

func TestDurationText(t *testing.T) {
	for _, tt := range []struct {
		text, back string
		want       time.Duration
	}{
		{"90s", "1m30s", 90 * time.Second},
		{"0", "0s", 0},
		{"0s", "0s", 0},
		{"180d", "180d", 180 * 24 * time.Hour},
		{"1d12h", "1d12h0m0s", 36 * time.Hour},
		{"36h", "1d12h0m0s", 36 * time.Hour},
		{"-5s", "-5s", -5 * time.Second},
	} {
		var d provider.Duration
		if err := d.UnmarshalText([]byte(tt.text)); err != nil || time.Duration(d) != tt.want {
			t.Errorf("%q: got %v, %v, want %v", tt.text, time.Duration(d), err, tt.want)
		}
		if back, _ := d.MarshalText(); string(back) != tt.back {
			t.Errorf("%q: written as %q, want %q", tt.text, back, tt.back)
		}
	}
	for _, text := range []string{"", "d", "5", "1.5", "-1d", "1d-5h", "99999999d", "1d1d", "1e3", "never", "1 h"} {
		var d provider.Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, d)
		}
	}
}
