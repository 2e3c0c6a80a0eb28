package subject

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// Seed says what a store holds before the broker opens it.
type Seed struct {
	Credentials int
	Rotating    bool          // with refresh tokens that rotate; otherwise client credentials
	Token       bool          // each with a token of an hour
	Age         time.Duration // that was obtained this long ago
}

// writers is how many credentials are written at once, so that they share the syncs.
const writers = 512

// CredentialName names a seeded credential.
func CredentialName(i int) string { return fmt.Sprintf("bench/c%06d", i) }

// CredentialIndex undoes CredentialName.
func CredentialIndex(name string) (int, error) {
	digits, ok := strings.CutPrefix(name, "bench/c")
	if !ok {
		return 0, fmt.Errorf("credential %q is not of this benchmark", name)
	}
	return strconv.Atoi(digits)
}

// StorePath is the database file in a server's folder.
func StorePath(dir string) string { return filepath.Join(dir, "tokenbroker.db") }

// Fill makes a store and its credentials. refreshToken gives one for each that rotates.
func Fill(ctx context.Context, site Site, dir string, seed Seed, refreshToken func() string) error {
	return withStore(ctx, site, dir, func(s *store.Store) error {
		for _, issuer := range []string{issuerSteady, issuerRotating} {
			_, err := s.PutClient(ctx, tokenbroker.OAuthClient{Name: issuer, Provider: issuer, ClientID: clientID, Auth: tokenbroker.AuthClientSecretBasic,
				Secrets: []tokenbroker.ClientSecret{{ID: "first", Secret: tokenbroker.NewSecret(clientSecret), Added: time.Now()}}}, 0)
			if err != nil {
				return err
			}
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(writers)
		for i := range seed.Credentials {
			g.Go(func() error { return seed.write(ctx, s, CredentialName(i), refreshToken) })
		}
		return g.Wait()
	})
}

func withStore(ctx context.Context, site Site, dir string, do func(*store.Store) error) error {
	kek, err := keyring.FileKEK(site.path("kek.key"))
	if err != nil {
		return err
	}
	engine, err := bolt.Open(StorePath(dir), bolt.Options{})
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, engine, store.Options{KEK: kek})
	if err == nil {
		err = do(s)
	}
	return errors.Join(err, engine.Close())
}

func (seed Seed) write(ctx context.Context, s *store.Store, name string, refreshToken func() string) error {
	c := tokenbroker.Credential{Name: name, Provider: issuerSteady, Client: issuerSteady, Grant: tokenbroker.GrantClientCredentials,
		Scopes: []string{scope}, Owner: "bench"}
	var g tokenbroker.Grant
	if seed.Rotating {
		c.Provider, c.Client, c.Grant = issuerRotating, issuerRotating, tokenbroker.GrantRefreshToken
		g.RefreshToken = tokenbroker.NewSecret(refreshToken())
	}
	c, err := s.CreateCredential(ctx, c, g)
	if err != nil || !seed.Token {
		return err
	}
	now := time.Now().Add(-seed.Age)
	o := tokenbroker.Outcome{Credential: c.Name, UID: c.UID, Time: now, Variant: c.Variant(nil, "", ""), SecretID: "first",
		Token: &tokenbroker.Token{AccessToken: tokenbroker.NewSecret(strings.Repeat("s", TokenBytes)), Type: "Bearer", Scopes: c.Scopes,
			Obtained: now, Expiry: now.Add(time.Hour)}}
	if seed.Rotating {
		o.Serial = 1
	}
	_, _, err = s.Commit(ctx, o)
	return err
}

// Generations reads which token each credential has in the store: 0 for none. No server may have the store open.
func Generations(ctx context.Context, site Site, dir string, credentials int) ([]uint64, error) {
	list := make([]uint64, credentials)
	err := withStore(ctx, site, dir, func(s *store.Store) error {
		for i := range list {
			c, err := s.Credential(ctx, CredentialName(i))
			if err != nil {
				return err
			}
			t, _, err := s.Token(ctx, c.Name, c.UID, c.Variant(nil, "", "").Key())
			if err != nil {
				return err
			}
			list[i] = uint64(t.Generation)
		}
		return nil
	})
	return list, err
}
