package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// One refresh of a rotating refresh token, as the engine does it: the intent is durable before anything is sent, the new refresh token
// before anyone sees the access token that it came with.
func Example() {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "store")
	check(err)
	defer os.RemoveAll(dir)
	check(keyring.GenerateFileKEK(filepath.Join(dir, "kek")))
	kek, err := keyring.FileKEK(filepath.Join(dir, "kek"))
	check(err)
	engine, err := bolt.Open(filepath.Join(dir, "store.db"), bolt.Options{})
	check(err)
	defer func() { check(engine.Close()) }()
	s, err := store.Open(ctx, engine, store.Options{KEK: kek})
	check(err)

	c, err := s.CreateCredential(ctx, tokenbroker.Credential{
		Name: "google/reports", Provider: "google", Client: "google/app", Grant: tokenbroker.GrantRefreshToken, Scopes: []string{"read"},
	}, tokenbroker.Grant{RefreshToken: tokenbroker.NewSecret("first")})
	check(err)
	g, err := s.Begin(ctx, tokenbroker.Begin{Credential: c.Name, UID: c.UID, Serial: 1, Attempt: "try-1", Time: time.Now()})
	check(err)
	fmt.Println("send", g.RefreshToken.Reveal(), "of serial", g.Serial, "which prints as", g.RefreshToken)

	outcome := tokenbroker.Outcome{
		Credential: c.Name, UID: c.UID, Attempt: "try-1", Serial: 1, Time: time.Now(), RefreshToken: tokenbroker.NewSecret("second"),
		Token: &tokenbroker.Token{AccessToken: tokenbroker.NewSecret("token"), Obtained: time.Now(), Expiry: time.Now().Add(time.Hour)},
	}
	g, token, err := s.Commit(ctx, outcome)
	check(err)
	fmt.Println("serial", g.Serial, g.State, "and a newer generation:", token.Generation > c.Generation)

	_, _, err = s.Commit(ctx, outcome) // a second result of the same refresh token
	fmt.Println("superseded:", errors.Is(err, tokenbroker.ErrSuperseded))
	for o, err := range s.Orphans(ctx) {
		check(err)
		fmt.Println("kept apart:", o.Outcome.RefreshToken.Reveal())
	}
	// Output:
	// send first of serial 1 which prints as [redacted]
	// serial 2 READY and a newer generation: true
	// superseded: true
	// kept apart: second
}
