package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

// api is a resource server in memory that keeps the Authorization headers and bodies it saw.
type api struct {
	answer func(*http.Request) int
	mute   bool // does not say what a reply answers, which a RoundTripper need not

	mu     sync.Mutex
	seen   []string
	bodies []string
}

// RoundTrip implements http.RoundTripper. A redirect leads to another host.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.bodies = append(a.seen, r.Header.Get("Authorization")), append(a.bodies, string(body))
	w := httptest.NewRecorder()
	w.Header().Set("Location", "https://elsewhere.example/")
	w.WriteHeader(a.answer(r))
	resp := w.Result()
	if !a.mute {
		resp.Request = r
	}
	return resp, nil
}

// takes answers 200 to a token that the sandbox knows.
func takes(b *brokertest.Broker) func(*http.Request) int {
	return func(r *http.Request) int {
		if tok, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && b.Sandbox.Valid(tok) {
			return http.StatusOK
		}
		return http.StatusUnauthorized
	}
}

const home = "https://api.example/reports"

// do sends a request and returns the status, 0 with an error.
func do(t *testing.T, rt http.RoundTripper, url string, body io.Reader) (int, error) {
	t.Helper()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// refused runs a test in fake time with an API that refuses the token which the client holds; the broker may fetch a newer one.
func refused(t *testing.T, run func(*testing.T, *api, http.RoundTripper)) {
	t.Helper()
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		tok, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Sandbox.RevokeToken(tok.AccessToken.Reveal())
		a := &api{answer: takes(b)}
		run(t, a, c.Transport("example/api", client.Base(a)))
	})
}

func TestATransportGetsPastARefusedToken(t *testing.T) {
	refused(t, func(t *testing.T, a *api, rt http.RoundTripper) {
		if got, err := do(t, rt, home, nil); err != nil || got != http.StatusUnauthorized || len(a.seen) != 1 {
			t.Errorf("right after the last exchange: got %d, %v after %d requests, want the API's 401 after one", got, err, len(a.seen))
		}
		time.Sleep(time.Minute) // the floor interval of reports
		if got, err := do(t, rt, home, nil); err != nil || got != http.StatusOK || len(a.seen) != 3 || a.seen[1] == a.seen[2] {
			t.Errorf("got %d, %v after %d requests, want 200 by a newer token after two more", got, err, len(a.seen))
		}
	})
}

func TestATransportSendsABodyAgainOnlyIfItCan(t *testing.T) {
	refused(t, func(t *testing.T, a *api, rt http.RoundTripper) {
		time.Sleep(time.Minute)
		if got, err := do(t, rt, home, bytes.NewBufferString("again")); err != nil || got != http.StatusOK || !slices.Equal(a.bodies, []string{"again", "again"}) {
			t.Errorf("got %d, %v with bodies %q, want 200 and the body whole, twice", got, err, a.bodies)
		}
	})
	refused(t, func(t *testing.T, a *api, rt http.RoundTripper) {
		time.Sleep(time.Minute)
		if got, err := do(t, rt, home, io.NopCloser(strings.NewReader("once"))); err != nil || got != http.StatusUnauthorized || len(a.seen) != 1 {
			t.Errorf("a stream: got %d, %v after %d requests, want the API's 401 after one", got, err, len(a.seen))
		}
		if got, err := do(t, rt, home, io.NopCloser(strings.NewReader("next"))); err != nil || got != http.StatusOK {
			t.Errorf("the next: got %d, %v, want 200 by the token that the report brought", got, err)
		}
	})
}

func TestATransportKeepsTheTokenFromStrangers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		a := &api{answer: func(r *http.Request) int {
			if r.URL.Host == "elsewhere.example" {
				return http.StatusOK
			}
			return http.StatusTemporaryRedirect
		}}
		rt := c.Transport("example/api", client.Base(a))
		mute := &api{answer: a.answer, mute: true}
		if _, err := do(t, c.Transport("example/api", client.Base(mute)), home, nil); err != nil || len(mute.seen) != 2 || mute.seen[1] != "" {
			t.Errorf("a redirect of nobody knows whom: got %v after %d requests, want no token at the second", err, len(mute.seen))
		}
		if got, err := do(t, rt, home, nil); err != nil || got != http.StatusOK || len(a.seen) != 2 || a.seen[0] == "" || a.seen[1] != "" {
			t.Errorf("a redirect: got %d, %v, headers at %d hosts, want 200 and a token at the first only", got, err, len(a.seen))
		}
	})
}

func TestATransportSaysWhyThereIsNoToken(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *brokertest.Broker, c *client.Client) {
		a := &api{answer: func(*http.Request) int { return http.StatusOK }}
		_, err := do(t, c.Transport("example/none", client.Base(a)), home, strings.NewReader("x"))
		if !errors.Is(err, tokenbroker.ErrNotFound) || len(a.seen) != 0 {
			t.Errorf("got %v after %d requests, want ErrNotFound before any", err, len(a.seen))
		}
	})
}
