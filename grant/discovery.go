package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const (
	discoverEvery = 24 * time.Hour
	discoverAgain = 15 * time.Minute // after a failure, with a copy to go on with
	discoverFirst = 30 * time.Second // after a failure, without one
)

// MetadataCache keeps the last good metadata document of each provider across restarts. Documents are no secrets, but who can write them
// says where secrets are sent: the cache has to be as trustworthy as the configuration. Its methods may be called from many goroutines.
type MetadataCache interface {
	// Metadata returns the document that was put last; nil if there is none.
	Metadata(ctx context.Context, provider string) ([]byte, error)
	PutMetadata(ctx context.Context, provider string, document []byte) error
}

// MetadataReport says what a look at one provider's metadata brought.
type MetadataReport struct {
	Provider string
	Taken    bool    // what the document says is in use from now on
	Refused  []error // members that were not taken, each with the reason, e.g. that an endpoint is on a host nobody named
	Err      error   // why there is no new document, or why it was not kept; what was known before stays in use
}

// discovery is the metadata of one provider that discovers.
type discovery struct {
	base *endpoint                // as the profile has it
	now  atomic.Pointer[endpoint] // as it is used: base, with what is known of the metadata

	mu      sync.Mutex // guards the rest; never held while a request is under way
	fetched time.Time  // when the document in use was fetched; zero = there is none
	tried   time.Time
	busy    bool
}

// copied is a document as it is cached.
type copied struct {
	Fetched  time.Time       `json:"fetched"`
	Document json.RawMessage `json:"document"`
}

// discover makes an endpoint's missing parts discoverable, if the profile wants that.
func discover(e *endpoint) *discovery {
	if e.profile.Discover == nil || !*e.profile.Discover {
		return nil
	}
	e.pending = true
	d := &discovery{base: e}
	d.now.Store(e)
	return d
}

// at returns a provider as it is known now.
func (c *Client) at(name string) (*endpoint, bool) {
	if d, ok := c.discoveries[name]; ok {
		return d.now.Load(), true
	}
	e, ok := c.endpoints[name]
	return e, ok
}

// LoadMetadata takes up what the cache holds, so that a start needs no network. Call it before the first request. Where the cache has
// nothing for a provider that discovers, requests to endpoints that its profile leaves open fail with the code discovery_pending, until
// [Client.RefreshMetadata] had success. The error joins what could not be read; the rest is in use.
func (c *Client) LoadMetadata(ctx context.Context, cache MetadataCache) error {
	var problems []error
	for _, name := range c.discovering() {
		if err := c.discoveries[name].load(ctx, cache); err != nil {
			problems = append(problems, fmt.Errorf("metadata of provider %q: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

// discovering are the names of the providers that discover, sorted.
func (c *Client) discovering() []string {
	var names []string
	for name := range c.discoveries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *discovery) load(ctx context.Context, cache MetadataCache) error {
	data, err := cache.Metadata(ctx, d.base.name)
	if err != nil || data == nil {
		return err
	}
	var kept copied
	if err := json.Unmarshal(data, &kept); err != nil {
		return errors.New("the copy can't be read")
	}
	m, ok := metadataOf(kept.Document)
	if !ok {
		return errors.New("the copy can't be read")
	}
	d.take(m, kept.Fetched) // of another issuer: the profile was changed, so it is of no use
	return nil
}

// take puts metadata to use, unless it is another issuer's.
func (d *discovery) take(m provider.Metadata, fetched time.Time) ([]error, bool) {
	filled, refused, ok := d.base.profile.Discovered(m)
	if !ok {
		return refused, false
	}
	e := *d.base
	e.profile, e.pending = filled, false
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.Store(&e)
	d.fetched = fetched
	return refused, true
}

// RefreshMetadata looks at the metadata of each provider that discovers and was not looked at for a day; after a failure sooner. What it
// finds is put to use and into the cache. It reports on those that it looked at: call it in the background, as often as you like. A
// failure disturbs nothing: what is known stays in use.
func (c *Client) RefreshMetadata(ctx context.Context, cache MetadataCache) []MetadataReport {
	var reports []MetadataReport
	for _, name := range c.discovering() {
		d := c.discoveries[name]
		if !d.begin(time.Now()) {
			continue
		}
		report := c.refreshMetadata(ctx, d, cache)
		d.end()
		reports = append(reports, report)
	}
	return reports
}

// begin reports whether it is time to look, and nobody else is at it.
func (d *discovery) begin(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := discoverAgain
	if d.fetched.IsZero() {
		wait = discoverFirst
	}
	fresh := !d.fetched.IsZero() && now.Sub(d.fetched) < discoverEvery && !d.fetched.After(now)
	if d.busy || fresh || !d.tried.IsZero() && now.Sub(d.tried) < wait {
		return false
	}
	d.busy, d.tried = true, now
	return true
}

func (d *discovery) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
}

func (c *Client) refreshMetadata(ctx context.Context, d *discovery, cache MetadataCache) MetadataReport {
	report := MetadataReport{Provider: d.base.name}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	document, m, err := d.base.fetchMetadata(ctx)
	if err != nil {
		report.Err = err
		return report
	}
	now := time.Now()
	report.Refused, report.Taken = d.take(m, now)
	if !report.Taken {
		report.Err = &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "wrong_issuer", HTTPStatus: http.StatusOK, Sent: true}
		return report
	}
	data, err := json.Marshal(copied{now.UTC(), document})
	if err == nil {
		err = cache.PutMetadata(ctx, d.base.name, data)
	}
	if err != nil {
		report.Err = fmt.Errorf("keep a copy: %w", err)
	}
	return report
}

// fetchMetadata asks at the place of RFC 8414 §3.1, then at that of OpenID Connect Discovery §4. The failure is the last one.
func (e *endpoint) fetchMetadata(ctx context.Context) (json.RawMessage, provider.Metadata, error) {
	var last error
	for _, place := range wellKnown(e.profile.Issuer) {
		a, err := e.get(ctx, place, tokenbroker.Secret{}, maxBody)
		if err != nil {
			last = err
			continue
		}
		if m, ok := metadataOf(a.body); ok && a.status == http.StatusOK && a.fault == "" {
			return a.body, m, nil
		}
		last = metadataFailure(a)
	}
	return nil, provider.Metadata{}, last
}

func metadataFailure(a answer) *tokenbroker.Failure {
	f := &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "bad_metadata", HTTPStatus: a.status, Sent: true}
	switch {
	case a.status != http.StatusOK:
		f.Code = httpCode(a.status)
	case a.fault != "":
		f.Code = a.fault
	}
	return f
}

// wellKnown are the places where an issuer's metadata may be.
func wellKnown(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return nil
	}
	root := u.Scheme + "://" + u.Host
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	return []string{
		root + "/.well-known/oauth-authorization-server" + path,
		root + path + "/.well-known/openid-configuration",
	}
}

// metadataOf reads a document. A member that is there twice counts as not there; a document whose issuer is not clear is none.
func metadataOf(document []byte) (provider.Metadata, bool) {
	top := parseObject(document)
	if !top.whole || top.text("issuer") == "" || !json.Valid(document) {
		return provider.Metadata{}, false
	}
	m := provider.Metadata{
		Issuer:       top.text("issuer"),
		Endpoints:    map[string]string{},
		IssParameter: top.scalar("authorization_response_iss_parameter_supported") == "true",
	}
	for _, field := range provider.DiscoverableFields() {
		m.Endpoints[field] = top.text(field)
	}
	return m, true
}
