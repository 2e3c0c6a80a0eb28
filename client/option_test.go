package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

func TestWhatIsWantedIsAskedForAndNothingElse(t *testing.T) {
	if opts := client.Wanted(nil, "", "", 0); opts != nil {
		t.Errorf("got %d options for nothing, want none", len(opts))
	}
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read", "files.write")
		tok, err := c.Token(t.Context(), "example/api", client.Wanted([]string{"files.read"}, "", "", time.Minute)...)
		if err != nil || strings.Join(tok.Scopes, " ") != "files.read" {
			t.Errorf("got scopes %v, %v, want files.read", tok.Scopes, err)
		}
		if _, err := c.Token(t.Context(), "example/api", client.Wanted(nil, "", "", 20*time.Hour)...); !errors.Is(err, tokenbroker.ErrMinValidity) {
			t.Errorf("for longer than a token lives: got %v, want ErrMinValidity", err)
		}
		for field, opts := range map[string][]client.Option{"subject": client.Wanted(nil, strings.Repeat("x", 5000), "", 0),
			"audience": client.Wanted(nil, "", strings.Repeat("x", 5000), 0)} {
			if _, err := c.Token(t.Context(), "example/api", opts...); !errors.Is(err, tokenbroker.ErrInvalidArgument) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: got %v, want it to get as far as the broker, which does not take it", field, err)
			}
		}
	})
}
