package sandbox_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server with one issuer "acme", its clients, and a way to talk to it.
type world struct {
	t      *testing.T
	srv    *sandbox.Server
	client *http.Client
	base   string
}

// newWorld takes the policy and adds what most tests need: a confidential client per method and a public one.
func newWorld(t *testing.T, iss sandbox.Issuer) *world {
	t.Helper()
	iss.Name = "acme"
	iss.Clients = append(iss.Clients,
		sandbox.Client{ID: "basic", Secrets: []string{"s3cret", "a+b/c %:é"}},
		sandbox.Client{ID: "post", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost},
		sandbox.Client{ID: "public", Auth: sandbox.AuthNone},
		sandbox.Client{ID: "a:b c", Secrets: []string{"s3cret"}},
	)
	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{iss, {Name: "other"}}})
	if err != nil {
		t.Fatal(err)
	}
	// Redirects are left to the tests that are about them.
	client := &http.Client{Transport: srv, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &world{t: t, srv: srv, client: client, base: "https://sandbox.test"}
}

// overTLS puts the world behind a real listener.
func (w *world) overTLS() *world {
	w.t.Helper()
	ts := httptest.NewTLSServer(w.srv)
	w.t.Cleanup(ts.Close)
	w.client.Transport, w.base = ts.Client().Transport, ts.URL
	return w
}

// inBothForms runs a test against the round tripper and against the handler behind a TLS listener.
func inBothForms(t *testing.T, iss sandbox.Issuer, test func(*testing.T, *world)) {
	t.Run("round tripper", func(t *testing.T) { test(t, newWorld(t, iss)) })
	t.Run("handler", func(t *testing.T) { test(t, newWorld(t, iss).overTLS()) })
}

type reply struct {
	status int
	header http.Header
	text   string
	json   map[string]any
}

func (r reply) str(name string) string { s, _ := r.json[name].(string); return s }

// want checks status and error code.
func (r reply) want(t *testing.T, status int, code string) reply {
	t.Helper()
	if r.status != status || r.str("error") != code {
		t.Fatalf("got %d %q, want %d %q (body %s)", r.status, r.str("error"), status, code, r.text)
	}
	return r
}

func (w *world) request(method, path, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func (w *world) try(r *http.Request) (reply, error) {
	res, err := w.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	out := reply{status: res.StatusCode, header: res.Header, text: string(b)}
	_ = json.Unmarshal(b, &out.json) // not every answer is JSON
	return out, err
}

func (w *world) do(r *http.Request) reply {
	w.t.Helper()
	out, err := w.try(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// refreshing is a refresh by the client "post" with further parameters as pairs.
func (w *world) refreshing(token string, more ...string) *http.Request {
	w.t.Helper()
	f := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"post"}, "client_secret": {"s3cret"}}
	for i := 0; i < len(more); i += 2 {
		f.Set(more[i], more[i+1])
	}
	return w.request("POST", "/acme/token", f.Encode())
}

func (w *world) refresh(token string, more ...string) reply {
	w.t.Helper()
	return w.do(w.refreshing(token, more...))
}

func (w *world) seed(scopes ...string) string {
	return w.srv.SeedRefreshToken("acme", "post", scopes...)
}

func (w *world) wantValid(token string, want bool) {
	w.t.Helper()
	if got := w.srv.Valid(token); got != want {
		w.t.Errorf("got valid %t, want %t", got, want)
	}
	r := w.request("GET", "/acme/resource", "")
	r.Header.Set("Authorization", "Bearer "+token)
	if got := w.do(r).status == 200; got != want {
		w.t.Errorf("got resource open %t, want %t", got, want)
	}
}
