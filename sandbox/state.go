package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"
)

// issuer is an Issuer at work.
type issuer struct {
	Issuer  // read-only
	mu      sync.Mutex
	clients map[string]*client  // id → client; the map itself never changes
	access  map[string]*access  // access token → what it is worth
	refresh map[string]*refresh // refresh token → where it stands; spent ones stay
	sweepAt int                 // number of access tokens at which expired ones are thrown out
	script  []*scripted         // faults still to come, in order
	hanging map[*taken]struct{} // requests that Release lets go
}

type client struct {
	Client  // but Secrets, read-only
	secrets [][sha256.Size]byte
}

// family is everything that came of one consent (RFC 9700 §4.14.2).
type family struct {
	client  *client
	scopes  []string
	newest  *refresh
	revoked bool
	access  map[string]*access // access token → the issuer's record of it
}

type access struct {
	client *client
	scopes []string
	expiry time.Time
	family *family // nil: came of client_credentials
}

type refresh struct {
	family     *family
	generation int       // how many rotations there were before it
	idleSince  time.Time // when it was issued or, without rotation, last used
	spent      time.Time // when it was first used; zero = not yet
	replaced   bool      // a forgiven replay of its predecessor took its place
	revoked    bool      // by itself, without its family
	presented  int
	redeemed   int
}

func newIssuer(cfg Issuer) *issuer {
	i := &issuer{
		Issuer:  cfg,
		clients: map[string]*client{},
		access:  map[string]*access{},
		refresh: map[string]*refresh{},
		hanging: map[*taken]struct{}{},
	}
	for _, c := range cfg.Clients {
		secrets := digests(c.Secrets)
		c.Secrets = nil
		i.clients[c.ID] = &client{Client: c, secrets: secrets}
	}
	return i
}

func digests(secrets []string) [][sha256.Size]byte {
	sums := make([][sha256.Size]byte, 0, len(secrets))
	for _, s := range secrets {
		sums = append(sums, sha256.Sum256([]byte(s)))
	}
	return sums
}

// newFamily begins a family with its first refresh token.
func (i *issuer) newFamily(c *client, scopes []string, now time.Time) string {
	f := &family{client: c, scopes: slices.Clone(scopes), access: map[string]*access{}}
	return i.newRefresh(f, 0, now)
}

func (i *issuer) newRefresh(f *family, generation int, now time.Time) string {
	token := RefreshPrefix + rand.Text()
	f.newest = &refresh{family: f, generation: generation, idleSince: now}
	i.refresh[token] = f.newest
	return token
}

func (i *issuer) newAccess(c *client, f *family, scopes []string, now time.Time) string {
	i.sweep(now)
	token := AccessPrefix + rand.Text()
	a := &access{client: c, scopes: scopes, expiry: now.Add(i.AccessLife), family: f}
	i.access[token] = a
	if f != nil {
		f.access[token] = a
	}
	return token
}

// sweep throws out expired access tokens each time their number has doubled, which keeps it cheap.
func (i *issuer) sweep(now time.Time) {
	if len(i.access) < i.sweepAt {
		return
	}
	for token, a := range i.access {
		if !now.Before(a.expiry) {
			i.endAccess(token, a)
		}
	}
	i.sweepAt = max(1024, 2*len(i.access))
}

func (i *issuer) endAccess(token string, a *access) {
	delete(i.access, token)
	if a.family != nil {
		delete(a.family.access, token)
	}
}

// endFamily revokes a family: all its refresh tokens and all its access tokens.
func (i *issuer) endFamily(f *family) {
	f.revoked = true
	i.endAccessOf(f)
}

func (i *issuer) endAccessOf(f *family) {
	for token, a := range f.access {
		i.endAccess(token, a)
	}
}

// present looks at a refresh token that a client brought. If it was spent and is not forgiven, its family is dead when
// present returns. Nothing else changes: a request that fails later leaves the token as it was.
func (i *issuer) present(c *client, token string, now time.Time) (*refresh, bool) {
	r := i.refresh[token]
	if r == nil {
		return nil, false
	}
	r.presented++
	switch {
	case r.family.client != c, r.family.revoked, r.revoked:
		return nil, false
	case !r.spent.IsZero() || r.replaced:
		if i.forgives(r, now) {
			return r, true
		}
		i.endFamily(r.family)
		return nil, false
	case i.RefreshLife > 0 && now.Sub(r.idleSince) >= i.RefreshLife:
		return nil, false
	}
	return r, true
}

// forgives reports whether a spent refresh token may be used again.
func (i *issuer) forgives(r *refresh, now time.Time) bool {
	previous := r.generation+1 == r.family.newest.generation && r.family.newest.spent.IsZero()
	return i.Rotation == RotateGrace && previous && !r.replaced && now.Sub(r.spent) < i.Grace
}

// redeem spends a refresh token that present approved and returns the one that takes its place, "" without rotation.
func (i *issuer) redeem(r *refresh, now time.Time) string {
	r.redeemed++
	if i.KillsOld {
		i.endAccessOf(r.family)
	}
	if i.Rotation == RotateNone {
		r.idleSince = now
		return ""
	}
	if r.spent.IsZero() {
		r.spent = now
	} else {
		r.family.newest.replaced = true
	}
	return i.newRefresh(r.family, r.generation+1, now)
}

// SeedRefreshToken begins a new family, as if a user had just consented, and returns its first refresh token.
func (s *Server) SeedRefreshToken(issuer, clientID string, scopes ...string) string {
	i := s.mustIssuer(issuer)
	c := i.mustClient(clientID)
	if !wellFormed(scopes) || !i.supports(scopes) {
		panic(fmt.Sprintf("sandbox: issuer %q does not support the scopes %q", issuer, scopes))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.newFamily(c, scopes, time.Now())
}

// RotateSecret makes exactly the given secrets of a client work from now on. Name the old and the new one for an overlap.
func (s *Server) RotateSecret(issuer, clientID string, live ...string) {
	i := s.mustIssuer(issuer)
	c := i.mustClient(clientID)
	if c.Auth == AuthNone || slices.Contains(live, "") {
		panic(fmt.Sprintf("sandbox: client %q is public, or a secret is empty", clientID))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	c.secrets = digests(live)
}

// RevokeToken ends one access or refresh token and nothing else. It reports whether the token was known.
func (s *Server) RevokeToken(token string) bool {
	return s.revoke(token, func(i *issuer, a *access, r *refresh) {
		if a != nil {
			i.endAccess(token, a)
			return
		}
		r.revoked = true
	})
}

// RevokeFamily ends every token that came of the same consent as the given access or refresh token, as when a user
// withdraws it. It reports whether the token was known. A token of client_credentials has no family and goes alone.
func (s *Server) RevokeFamily(token string) bool {
	return s.revoke(token, func(i *issuer, a *access, r *refresh) {
		switch {
		case r != nil:
			i.endFamily(r.family)
		case a.family != nil:
			i.endFamily(a.family)
		default:
			i.endAccess(token, a)
		}
	})
}

func (s *Server) revoke(token string, end func(*issuer, *access, *refresh)) bool {
	for _, i := range s.issuers {
		i.mu.Lock()
		a, r := i.access[token], i.refresh[token]
		if a != nil || r != nil {
			end(i, a, r)
			i.mu.Unlock()
			return true
		}
		i.mu.Unlock()
	}
	return false
}

// Valid reports whether an access token of any issuer is live now.
func (s *Server) Valid(accessToken string) bool {
	for _, i := range s.issuers {
		i.mu.Lock()
		a := i.live(accessToken, time.Now())
		i.mu.Unlock()
		if a != nil {
			return true
		}
	}
	return false
}

func (i *issuer) live(token string, now time.Time) *access {
	a := i.access[token]
	if a == nil || !now.Before(a.expiry) {
		return nil
	}
	return a
}

func (i *issuer) mustClient(id string) *client {
	c := i.clients[id]
	if c == nil {
		panic(fmt.Sprintf("sandbox: issuer %q has no client %q", i.Name, id))
	}
	return c
}

// Redemption says how often a refresh token was brought and how often that brought a token.
type Redemption struct {
	Presented int // with the token endpoint's client authenticated
	Redeemed  int // 2 or more only without rotation or within the grace
}

// Redemptions returns the counts of every refresh token that was ever issued, by [Fingerprint]. They are exact.
func (s *Server) Redemptions() map[string]Redemption {
	all := map[string]Redemption{}
	for _, i := range s.issuers {
		i.mu.Lock()
		for token, r := range i.refresh {
			all[Fingerprint(token)] = Redemption{Presented: r.presented, Redeemed: r.redeemed}
		}
		i.mu.Unlock()
	}
	return all
}

// Fingerprint is what stands for a token in the journal: the first 16 hex digits of its SHA-256.
func Fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}
