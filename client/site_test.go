package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

// hit is a request as a site saw it.
type hit struct {
	path, body      string
	header, trailer http.Header
	length          int64
}

func (h hit) bearer() string { return strings.TrimPrefix(h.header.Get("Authorization"), "Bearer ") }

// site is an API on a real server. It reads each request whole before it answers, unless half is set.
type site struct {
	*httptest.Server
	answer func(w http.ResponseWriter, h hit)
	half   bool // answer when a little of the body has come

	mu   sync.Mutex
	seen []hit
}

// openSite starts one, with TLS unless it is to be plain.
func openSite(t *testing.T, plain bool, answer func(w http.ResponseWriter, h hit)) *site {
	t.Helper()
	s := &site{answer: answer}
	s.Server = httptest.NewUnstartedServer(s)
	if plain {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := hit{path: r.URL.Path, header: r.Header, length: r.ContentLength}
	if s.half {
		r.Body = io.NopCloser(io.LimitReader(r.Body, 1<<10))
	}
	body, _ := io.ReadAll(r.Body)
	h.body, h.trailer = string(body), r.Trailer
	s.mu.Lock()
	s.seen = append(s.seen, h)
	s.mu.Unlock()
	s.answer(w, h)
}

func (s *site) hits() []hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// ledger keeps what the engine tells of.
type ledger struct {
	mu     sync.Mutex
	events []broker.Event
}

func (l *ledger) observe(e broker.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *ledger) of(kind broker.Kind, credential string) []broker.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e broker.Event) bool { return e.Kind != kind || e.Credential != credential })
}

// world is a real broker with the credentials example/api and example/key, a client of it, and what the engine told.
type world struct {
	b *brokertest.Broker
	c *client.Client
	ledger
}

// newWorld starts one. The floor is how long after an exchange a report leads to the next.
func newWorld(t *testing.T, floor time.Duration) *world {
	t.Helper()
	return worldOf(t, floor, brokertest.DefaultPolicy)
}

func worldOf(t *testing.T, floor time.Duration, policy string) *world {
	t.Helper()
	w := &world{}
	w.b = brokertest.Start(t, brokertest.Config{TCP: true, Policy: policy, Observe: w.observe, Profile: func(_ string, p *provider.Profile) {
		p.APIKeyHeader, p.Floor = "X-Api-Key", new(provider.Duration(floor))
	}})
	w.b.AddClientCredentials("example/api", "files.read")
	w.b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/key", StaticToken: "key-1",
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "rotating", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_STATIC}})
	w.c = worker(t, w.b)
	return w
}

// valid answers 200 to a token that the sandbox knows, else 401 with a challenge.
func (w *world) valid(rw http.ResponseWriter, h hit) {
	if !w.b.Sandbox.Valid(h.bearer()) {
		rw.Header().Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token", error_description="it is over"`)
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(rw, "refused")
		return
	}
	_, _ = io.WriteString(rw, "fine")
}

// revoke ends the token that the client holds, and returns it.
func (w *world) revoke(t *testing.T) string {
	t.Helper()
	tok, err := w.c.Token(t.Context(), "example/api")
	if err != nil {
		t.Fatal(err)
	}
	w.b.Sandbox.RevokeToken(tok.AccessToken.Reveal())
	return tok.AccessToken.Reveal()
}

// to makes an http.Client that trusts the site.
func (w *world) to(s *site, credential string, opts ...client.TransportOption) *http.Client {
	patient := client.RetryWait(time.Minute) // on a machine that is slow, too
	return w.c.HTTPClient(credential, append([]client.TransportOption{client.Base(s.Client().Transport), client.LoopbackHTTP(), patient}, opts...)...)
}

// send sends a request and returns status and body.
func send(hc *http.Client, req *http.Request) (int, string, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
