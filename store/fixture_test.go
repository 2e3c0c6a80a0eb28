package store_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

func TestMain(m *testing.M) {
	resumeImagesIfAsked()
	goleak.VerifyTestMain(m)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// place is where a store lives, so that a test can close it, look at it and open it again.
type place struct {
	path    string
	kekPath string
	kek     keyring.KEK
	engine  *bolt.Engine
}

func newPlace(t testing.TB) *place {
	t.Helper()
	dir := t.TempDir()
	kekPath, kek := newKEKFile(t)
	return &place{path: filepath.Join(dir, "store.db"), kekPath: kekPath, kek: kek}
}

func newKEK(t testing.TB) keyring.KEK {
	t.Helper()
	_, kek := newKEKFile(t)
	return kek
}

func newKEKFile(t testing.TB) (string, keyring.KEK) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := keyring.GenerateFileKEK(path); err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, kek
}

// start opens the engine.
func (p *place) start(t testing.TB) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(p.path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	p.engine = e
	return e
}

// stop closes the engine and returns the bytes of the file.
func (p *place) stop(t testing.TB) []byte {
	t.Helper()
	if err := p.engine.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *place) open(t testing.TB) *store.Store {
	t.Helper()
	return openOn(t, p.start(t), p.kek)
}

func openOn(t testing.TB, e store.Engine, kek keyring.KEK) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), e, store.Options{KEK: kek})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func credential(name string) tokenbroker.Credential {
	return tokenbroker.Credential{
		Name: name, Provider: "example", Client: "example/app", Grant: tokenbroker.GrantRefreshToken,
		Scopes: []string{"read", "write"}, Labels: map[string]string{"team": "reports"}, Owner: "ops",
	}
}

// create adds a credential whose refresh token is "rt-1".
func create(t testing.TB, s *store.Store, name string) tokenbroker.Credential {
	t.Helper()
	c, err := s.CreateCredential(t.Context(), credential(name), tokenbroker.Grant{RefreshToken: tokenbroker.NewSecret("rt-1")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func begin(t testing.TB, s *store.Store, c tokenbroker.Credential, serial uint64, attempt string) tokenbroker.Grant {
	t.Helper()
	g, err := s.Begin(t.Context(), tokenbroker.Begin{Credential: c.Name, UID: c.UID, Serial: serial, Attempt: attempt, Time: noon})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// outcome is what an exchange brings: access token at, and refresh token rt if it is not "".
func outcome(c tokenbroker.Credential, serial uint64, attempt, at, rt string) tokenbroker.Outcome {
	return tokenbroker.Outcome{
		Credential: c.Name, UID: c.UID, Attempt: attempt, Serial: serial, Time: noon.Add(time.Second),
		Token: &tokenbroker.Token{
			AccessToken: tokenbroker.NewSecret(at), Type: "Bearer", Scopes: []string{"read"},
			Obtained: noon, Expiry: noon.Add(time.Hour), Metadata: map[string]string{"instance_url": "https://example.test"},
		},
		RefreshToken: tokenbroker.NewSecret(rt), SecretID: "secret-1", LastUse: noon,
	}
}

func commit(t testing.TB, s *store.Store, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token) {
	t.Helper()
	g, tok, err := s.Commit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return g, tok
}

func load(t testing.TB, s *store.Store, name string) (tokenbroker.Credential, tokenbroker.Grant) {
	t.Helper()
	c, g, err := s.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c, g
}

func orphans(t testing.TB, s *store.Store) []store.Orphan {
	t.Helper()
	var all []store.Orphan
	for o, err := range s.Orphans(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// faulty lets a test get between a store and its engine.
type faulty struct {
	store.Engine
	before func(store.Txn) error // before each transaction; an error takes its place
	after  func() error          // after each transaction that was written; an error takes the place of its success
}

func (f *faulty) Txn(ctx context.Context, t store.Txn) (uint64, error) {
	if f.before != nil {
		if err := f.before(t); err != nil {
			return 0, err
		}
	}
	rev, err := f.Engine.Txn(ctx, t)
	if err == nil && f.after != nil {
		err = f.after()
	}
	return rev, err
}
