package grant

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const defaultTimeout = 30 * time.Second

// Config is what a Client needs.
type Config struct {
	Catalogue *provider.Catalogue                     // the providers; required
	Transport func(provider string) http.RoundTripper // in place of the network, where it returns one; nil = the network
	Timeout   time.Duration                           // of one exchange, from dialling to the last byte; 0 = 30 s
	Ambient   Ambient                                 // the machine's own Google credentials, for google_adc; zero = it has none
	Resolver  *net.Resolver                           // finds the addresses of providers; nil = the system's
}

// Client sends token requests. Any number of goroutines may use it.
type Client struct {
	endpoints   map[string]*endpoint  // provider name → endpoint
	discoveries map[string]*discovery // provider name → what is found out about it, where its profile discovers
	timeout     time.Duration
	ambient     Ambient
	metadata    *metadata // nil = none
}

// endpoint is one provider as the client sees it.
type endpoint struct {
	name    string
	profile provider.Profile
	traits  tokenbroker.Traits
	shared  http.RoundTripper // keeps connections, for requests that may be repeated
	single  http.RoundTripper // one connection per request, for those that may not
	keys    *keyCache

	resolver *net.Resolver // nil = the system's
	pending  bool          // its profile discovers, and there is no metadata yet
}

// New prepares a client for each provider of the catalogue. It reads the profiles' CA files; the error joins what is wrong
// with any of them.
func New(cfg Config) (*Client, error) {
	if cfg.Catalogue == nil {
		return nil, errors.New("grant: no catalogue")
	}
	c := &Client{endpoints: map[string]*endpoint{}, discoveries: map[string]*discovery{}, timeout: cfg.Timeout, ambient: cfg.Ambient}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	var problems []error
	var err error
	if c.metadata, err = cfg.Ambient.newMetadata(); err != nil {
		problems = append(problems, err)
	}
	for _, name := range cfg.Catalogue.Names() {
		e, err := newEndpoint(cfg, name)
		if err != nil {
			problems = append(problems, fmt.Errorf("provider %q: %w", name, err))
			continue
		}
		c.endpoints[name] = e
		if d := discover(e); d != nil {
			c.discoveries[name] = d
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

func newEndpoint(cfg Config, name string) (*endpoint, error) {
	p, _ := cfg.Catalogue.Profile(name)
	e := &endpoint{name: name, profile: p, traits: p.Traits(), keys: &keyCache{}, resolver: cfg.Resolver}
	if cfg.Transport != nil {
		if rt := cfg.Transport(name); rt != nil {
			e.shared, e.single = rt, rt
			return e, nil
		}
	}
	roots, err := readRoots(p.CAFile)
	if err != nil {
		return nil, err
	}
	e.shared, e.single = newTransport(p, roots, cfg.Resolver, false), newTransport(p, roots, cfg.Resolver, true)
	return e, nil
}

// readRoots reads a CA file; no file means the system's roots.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", file)
	}
	return pool, nil
}

// Close closes the connections that are kept. Exchanges under way are not disturbed.
func (c *Client) Close() {
	for _, e := range c.endpoints {
		for _, rt := range []http.RoundTripper{e.shared, e.single} {
			if t, ok := rt.(*http.Transport); ok {
				t.CloseIdleConnections()
			}
		}
	}
}

// Exchange sends one token request, at most once, and waits for the reply until ctx ends or the time-out of the Config is over.
// An error is always a *tokenbroker.Failure, for errors.As. The reply may hold a refresh token together with an error: store it first.
func (c *Client) Exchange(ctx context.Context, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
	q, failure := c.prepare(r)
	if failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	if q.grant.mint != nil {
		return q.grant.mint(ctx, c, q, r)
	}
	raw, err := c.ask(ctx, &q.call)
	if err != nil {
		return tokenbroker.ExchangeReply{Sent: raw.sent}, err
	}
	return q.conclude(raw)
}

// conclude is interpret with an error that is nil if there is none.
func (q *query) conclude(raw answer) (tokenbroker.ExchangeReply, error) {
	out, failure := q.interpret(raw, raw.sent)
	if failure != nil {
		return out, failure
	}
	return out, nil
}

// query is a token request ready to be sent, with what is needed to judge its reply.
type query struct {
	call
	grant    grantKind
	asked    tokenbroker.Variant
	narrower bool     // fewer scopes are asked for than the grant has
	exact    bool     // the token has the scopes that were asked for and no other
	besides  []string // scopes that the profile asks people for, and nobody else did
}

// prepare builds a query. What can't be asked is a configuration failure, unsent.
func (c *Client) prepare(r tokenbroker.ExchangeRequest) (*query, *tokenbroker.Failure) {
	e, ok := c.at(r.Credential.Provider)
	if !ok {
		return nil, refuse("unknown_provider")
	}
	kind, ok := kindOf(r.Credential.Grant)
	switch {
	case !ok || !e.profile.Knows(r.Credential.Grant):
		return nil, refuse("unsupported_grant_type")
	case r.Client.Provider != e.name && !r.Credential.Grant.Clientless():
		return nil, refuse("client_of_another_provider")
	}
	if failure := e.need(e.profile.TokenEndpoint, "token_endpoint_missing"); failure != nil && kind.mint == nil {
		return nil, failure
	}
	q := &query{call: e.newCall(e.profile.TokenEndpoint), grant: kind}
	q.form, q.format = e.newForm(), e.profile.BodyFormat
	q.asked = r.Credential.Variant(r.Variant.Scopes, r.Variant.Subject, r.Variant.Audience)
	q.narrower = narrower(q.asked.Scopes, r.Credential.Scopes)
	q.besides = e.besides(r.Credential.Scopes)
	q.exact = kind.exact != nil && kind.exact(pair{at: e, cred: r.Credential, client: &r.Client})
	steps := []func(tokenbroker.ExchangeRequest) *tokenbroker.Failure{q.askVariant, q.askGrant, q.authenticate}
	if kind.mint != nil {
		steps = steps[:1]
	}
	for _, step := range steps {
		if failure := step(r); failure != nil {
			return nil, failure
		}
	}
	return q, nil
}

// narrower reports whether asked leaves out a scope of the grant. Any scope is less than a grant whose scopes are not known.
func narrower(asked, granted []string) bool {
	if len(granted) == 0 {
		return len(asked) > 0
	}
	return slices.ContainsFunc(granted, func(s string) bool { return !slices.Contains(asked, s) })
}

// refuse is a failure of our own, before anything was sent.
func refuse(code string) *tokenbroker.Failure {
	return &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: code}
}
