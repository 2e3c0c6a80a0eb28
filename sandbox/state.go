package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"
)

// issuer is an Issuer at work.
type issuer struct {
	Issuer   // read-only, but Rotation, Grace, AutoApprove and the keys of ServiceAccounts
	clock    *clock
	mu       sync.Mutex
	clients  map[string]*client        // id → client; the map itself never changes
	services map[string]*client        // e-mail → service account as a client; the map itself never changes
	access   map[string]*access        // access token → what it is worth
	refresh  map[string]*refresh       // refresh token → where it stands; spent ones stay
	requests map[string]*authorization // what the consent page holds → what was asked for
	codes    map[string]*code          // authorization code → what it is worth; spent ones stay until they expire
	devices  map[string]*device        // device code → where it stands
	used     map[*client]seen          // whose jti were used
	keys     []signingKey              // the newest signs
	sweepAt  int                       // number of access tokens at which expired ones are thrown out
	script   []*scripted               // faults still to come, in order
	hanging  map[*taken]struct{}       // requests that Release lets go
}

type client struct {
	Client  // but Secrets, read-only
	secrets [][sha256.Size]byte
	hmac    [][]byte // the secrets themselves, for AuthSecretJWT alone
}

// grantee is whom a token is for and what it is good for.
type grantee struct {
	client   *client
	account  *Account // who consented; nil = nobody, the client acts for itself
	scopes   []string
	audience []string
}

func (g grantee) subject() string {
	if g.account == nil {
		return g.client.ID
	}
	return g.account.subject()
}

// family is everything that came of one consent (RFC 9700 §4.14.2).
type family struct {
	grantee
	newest  *refresh
	revoked bool
	access  map[string]*access // access token → the issuer's record of it
}

type access struct {
	grantee
	issued time.Time
	expiry time.Time
	family *family // nil: came without a refresh token
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

func newIssuer(cfg Issuer, c *clock) *issuer {
	i := &issuer{
		Issuer:   cfg,
		clock:    c,
		clients:  map[string]*client{},
		services: map[string]*client{},
		access:   map[string]*access{},
		refresh:  map[string]*refresh{},
		requests: map[string]*authorization{},
		codes:    map[string]*code{},
		devices:  map[string]*device{},
		used:     map[*client]seen{},
		hanging:  map[*taken]struct{}{},
	}
	for _, c := range cfg.Clients {
		known := &client{Client: c}
		known.setSecrets(c.Secrets)
		i.clients[c.ID] = known
	}
	for _, a := range cfg.ServiceAccounts {
		i.services[a.Email] = &client{Client: Client{ID: a.Email, Auth: AuthNone, Scopes: a.Scopes}}
	}
	return i
}

// setSecrets keeps digests, and the secrets themselves only where an HMAC needs them.
func (c *client) setSecrets(live []string) {
	c.Secrets, c.secrets, c.hmac = nil, nil, nil
	for _, s := range live {
		c.secrets = append(c.secrets, sha256.Sum256([]byte(s)))
		if c.Auth == AuthSecretJWT {
			c.hmac = append(c.hmac, []byte(s))
		}
	}
}

// newFamily begins a family with its first refresh token.
func (i *issuer) newFamily(g grantee, now time.Time) (*family, string) {
	f := childless(g)
	return f, i.newRefresh(f, 0, now)
}

// childless is a family without a refresh token.
func childless(g grantee) *family {
	g.scopes = slices.Clone(g.scopes)
	return &family{grantee: g, access: map[string]*access{}}
}

func (i *issuer) newRefresh(f *family, generation int, now time.Time) string {
	token := RefreshPrefix + rand.Text()
	f.newest = &refresh{family: f, generation: generation, idleSince: now}
	i.refresh[token] = f.newest
	return token
}

// newAccess makes an access token, in a family or alone.
func (v *visit) newAccess(g grantee, f *family) string {
	i := v.issuer
	i.sweep(v.now)
	a := &access{grantee: g, issued: v.now, expiry: v.now.Add(v.life()), family: f}
	token := AccessPrefix + rand.Text()
	if i.JWTAccess {
		token = v.signAccess(g, token, a.expiry)
	}
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

// usable reports whether a refresh token would bring a token now, and changes nothing.
func (i *issuer) usable(r *refresh, now time.Time) bool {
	switch {
	case r.family.revoked || r.revoked:
		return false
	case !r.spent.IsZero() || r.replaced:
		return i.forgives(r, now)
	}
	return i.RefreshLife <= 0 || now.Sub(r.idleSince) < i.RefreshLife
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
