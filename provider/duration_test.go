package provider_test

import (
	"strings"
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

// FuzzDuration: what is read is written so that it reads the same, and nothing is read as another sign or size than it says.
func FuzzDuration(f *testing.F) {
	for _, text := range []string{"90s", "0", "180d", "1d12h", "65535d2500000h", "7000000000s", "1d9223372036854775807ns", "-5s", "1.5h", "1d-5h", "0d", "d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again provider.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			if d != 0 {
				t.Errorf("%q: got %v beside the error %v", text, d, err)
			}
			return
		}
		if d < 0 && !strings.Contains(text, "-") || d > 0 && strings.Contains(text, "-") {
			t.Errorf("%q: got %v, of the other sign", text, d)
		}
		written := d.String()
		if err := again.UnmarshalText([]byte(written)); err != nil || again != d {
			t.Errorf("%q: written as %q and read again as %v, %v", text, written, again, err)
		}
	})
}
