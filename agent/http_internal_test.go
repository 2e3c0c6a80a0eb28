package agent

import (
	"testing"

	"github.com/tokenbroker/tokenbroker"
)

// TestATokenThatWouldDoSomethingToAHeaderOrATerminalIsNotSendable has what a token could bring along.
func TestATokenThatWouldDoSomethingToAHeaderOrATerminalIsNotSendable(t *testing.T) {
	for value, want := range map[string]bool{"ya29.a0-_~+/=": true, "two words": true, "a\r\nX-Admin: 1": false, "a\x1b[2J": false, "a\x00": false, "ä": false} {
		if got := sendable(tokenbroker.Token{AccessToken: tokenbroker.NewSecret(value), Type: "Bearer"}); got != want {
			t.Errorf("%q: got %t, want %t", value, got, want)
		}
	}
}
