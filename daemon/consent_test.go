package daemon_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/daemon"
)

func TestTheSettingsOfTheConsentListenerAreCheckedTogether(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*daemon.Consent)
		want   []string
	}{
		{"nothing but a listener", func(c *daemon.Consent) { c.Listen = "127.0.0.1:0" }, []string{"consent.public_url", "certificate file", "key file"}},
		{"no listener", func(c *daemon.Consent) { c.PublicURL = "https://x.example" }, []string{"without consent.listen"}},
		{"plain http", func(c *daemon.Consent) { c.Listen, c.PublicURL = "127.0.0.1:0", "http://x.example" }, []string{"consent.public_url"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cfg daemon.Config
			tt.change(&cfg.Consent)
			_, err := daemon.Check(cfg)
			for _, part := range tt.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want %q in it", err, part)
				}
			}
		})
	}
}
