package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// AuthMethod is how a client authenticates at the token endpoint, in the words of RFC 7591 §2.
type AuthMethod string

// The client authentication methods.
const (
	AuthBasic AuthMethod = "client_secret_basic" // id and secret form-encoded, then Basic (RFC 6749 §2.3.1)
	AuthPost  AuthMethod = "client_secret_post"  // client_id and client_secret in the body
	AuthNone  AuthMethod = "none"                // a public client: client_id in the body
)

// Rotation says what becomes of a refresh token when it is used.
type Rotation string

// The kinds of rotation.
const (
	RotateStrict Rotation = "strict" // each use brings a new one; any replay revokes the family
	RotateGrace  Rotation = "grace"  // as strict, but the previous one is forgiven for Issuer.Grace
	RotateNone   Rotation = "none"   // it stays as it is, replies name none
)

// The grants of the token endpoint.
const (
	GrantClientCredentials = "client_credentials" // RFC 6749 §4.4
	GrantRefreshToken      = "refresh_token"      // RFC 6749 §6
)

const (
	defaultAccessLife  = time.Hour
	defaultJournalSize = 10_000
)

var issuerPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Config is what a server is made of.
type Config struct {
	Issuers     []Issuer // at least one
	JournalSize int      // entries that Journal keeps, the newest ones; 0 = 10,000. Counts are exact regardless
	AllowHTTP   bool     // also answer requests that did not come over TLS
}

// Issuer is one authorization server with its policy.
type Issuer struct {
	Name    string   // path segment, [a-z0-9][a-z0-9-]*
	Clients []Client // who may ask

	AccessLife  time.Duration // life of access tokens, whole seconds; 0 = one hour
	RefreshLife time.Duration // a refresh token not used for this long dies; 0 = never
	Rotation    Rotation      // "" = RotateStrict

	// Grace is for how long after its first use a refresh token is forgiven under RotateGrace. Only the immediately
	// previous one is: as soon as its successor was used, a replay revokes the family. A forgiven replay brings a new
	// token in place of the successor, which a client that lost the answer can't hold; if that one is used all the same,
	// the family is revoked. The window counts from the first use, replays do not prolong it.
	Grace time.Duration

	KillsOld        bool     // a refresh ends the access tokens that the family had before
	Downscope       bool     // a refresh may ask for fewer scopes than were granted; otherwise only for all of them or none
	ScopesSupported []string // any other is refused; empty = every well-formed scope
}

// Client is a registered OAuth client.
type Client struct {
	ID      string
	Secrets []string   // all of them work; none for a public client
	Auth    AuthMethod // enforced exactly; "" = AuthBasic
	Grants  []string   // grants it may use; nil = all that its kind of client may
	Scopes  []string   // scopes that client_credentials may ask for and gets by default; nil = those of the issuer
}

func (c Config) withDefaults() Config {
	c.JournalSize = cmp.Or(c.JournalSize, defaultJournalSize)
	c.Issuers = slices.Clone(c.Issuers)
	for i := range c.Issuers {
		iss := &c.Issuers[i]
		iss.AccessLife = cmp.Or(iss.AccessLife, defaultAccessLife)
		iss.Rotation = cmp.Or(iss.Rotation, RotateStrict)
		iss.Clients = slices.Clone(iss.Clients)
		for j := range iss.Clients {
			iss.Clients[j].Auth = cmp.Or(iss.Clients[j].Auth, AuthBasic)
		}
	}
	return c
}

// validate reports everything that is wrong at once.
func (c Config) validate() error {
	var errs []error
	if len(c.Issuers) == 0 {
		errs = append(errs, errors.New("no issuer: configure at least one"))
	}
	if c.JournalSize < 0 {
		errs = append(errs, fmt.Errorf("journal size %d is negative", c.JournalSize))
	}
	seen := map[string]bool{}
	for _, iss := range c.Issuers {
		if seen[iss.Name] {
			errs = append(errs, fmt.Errorf("issuer %q: configured twice", iss.Name))
		}
		seen[iss.Name] = true
		if err := iss.validate(); err != nil {
			errs = append(errs, fmt.Errorf("issuer %q: %w", iss.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (i Issuer) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(!issuerPattern.MatchString(i.Name), "name must match %s", issuerPattern)
	check(i.AccessLife < time.Second || i.AccessLife%time.Second != 0, "access life %s must be whole seconds", i.AccessLife)
	check(i.RefreshLife < 0, "refresh life %s is negative", i.RefreshLife)
	check(!slices.Contains([]Rotation{RotateStrict, RotateGrace, RotateNone}, i.Rotation), "unknown rotation %q", i.Rotation)
	check((i.Rotation == RotateGrace) != (i.Grace > 0), "grace %s with rotation %q: give one with the other", i.Grace, i.Rotation)
	check(!wellFormed(i.ScopesSupported), "a supported scope is not a scope-token of RFC 6749 §3.3")
	seen := map[string]bool{}
	for _, c := range i.Clients {
		check(seen[c.ID], "client %q: configured twice", c.ID)
		seen[c.ID] = true
		if err := c.validate(i); err != nil {
			errs = append(errs, fmt.Errorf("client %q: %w", c.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (c Client) validate(i Issuer) error {
	switch {
	case c.ID == "":
		return errors.New("id is empty")
	case c.Auth != AuthBasic && c.Auth != AuthPost && c.Auth != AuthNone:
		return fmt.Errorf("unknown auth method %q", c.Auth)
	case c.Auth == AuthNone && len(c.Secrets) > 0:
		return errors.New("a public client has no secret")
	case c.Auth != AuthNone && (len(c.Secrets) == 0 || slices.Contains(c.Secrets, "")):
		return errors.New("needs at least one secret, and none that is empty")
	case !wellFormed(c.Scopes) || !i.supports(c.Scopes):
		return errors.New("a scope is malformed or not supported by the issuer")
	}
	for _, g := range c.Grants {
		rule, ok := grants()[g]
		if !ok || rule.confidential && c.Auth == AuthNone {
			return fmt.Errorf("grant %q is unknown, or not for a public client", g)
		}
	}
	return nil
}

func (i Issuer) supports(scopes []string) bool {
	return len(i.ScopesSupported) == 0 || subset(scopes, i.ScopesSupported)
}

// subset reports whether every scope of a is in b.
func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}
