package grant_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// Canaries: none of them may ever show up in an error.
const (
	secretCanary  = "s3cr3t-Canary/+ of:client"
	refreshCanary = "r3fresh-Canary-of-the-grant"
	replyCanary   = "c4nary.in-the.reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is what a server read of one request.
type seen struct {
	header http.Header
	form   url.Values
	remote string
}

// server is a token endpoint on loopback that counts what reaches it.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

// serve starts a TLS server. The handler is called after the request was read and counted.
func serve(t *testing.T, handler http.HandlerFunc, configure ...func(*httptest.Server)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		s.mu.Lock()
		s.seen = append(s.seen, seen{r.Header.Clone(), form, r.RemoteAddr})
		s.mu.Unlock()
		handler(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the tests cause faults
	for _, change := range configure {
		change(s.Server)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.seen...)
}

// caFile writes the server's certificate to a file.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// trusting returns a profile for a server on loopback.
func trusting(t *testing.T, s *server) provider.Profile {
	t.Helper()
	return provider.Profile{TokenEndpoint: s.URL + "/token", AllowPrivate: true, CAFile: caFile(t, s.Server)}
}

// nobody listens there, and the system gives that port to nobody who asks for any.
const nobody = "127.0.0.1:1"

// newClient returns a client for one provider, "acme".
func newClient(t *testing.T, p provider.Profile, change ...func(*grant.Config)) *grant.Client {
	t.Helper()
	cat, err := provider.New(map[string]provider.Profile{"acme": p})
	if err != nil {
		t.Fatal(err)
	}
	cfg := grant.Config{Catalogue: cat, Timeout: 2 * time.Minute}
	for _, f := range change {
		f(&cfg)
	}
	c, err := grant.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// refreshRequest spends a refresh token; the client posts its secret.
func refreshRequest(scopes ...string) tokenbroker.ExchangeRequest {
	r := ccRequest(scopes...)
	r.Credential.Grant = tokenbroker.GrantRefreshToken
	r.RefreshToken = tokenbroker.NewSecret(refreshCanary)
	return r
}

// ccRequest asks by client_credentials.
func ccRequest(scopes ...string) tokenbroker.ExchangeRequest {
	return tokenbroker.ExchangeRequest{
		Credential: tokenbroker.Credential{Name: "acme/jobs", Provider: "acme", Client: "acme/app", Grant: tokenbroker.GrantClientCredentials, Scopes: scopes},
		Client:     tokenbroker.OAuthClient{Name: "acme/app", Provider: "acme", ClientID: "the client:1", Auth: tokenbroker.AuthClientSecretPost},
		Secret:     tokenbroker.ClientSecret{ID: "1", Secret: tokenbroker.NewSecret(secretCanary)},
	}
}

// failureOf takes the Failure out of an error, and checks that it says nothing that it must not.
func failureOf(t *testing.T, err error) *tokenbroker.Failure {
	t.Helper()
	var f *tokenbroker.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a Failure", err)
	}
	text := strings.ToLower(fmt.Sprintf("%v %+v %#v %s %+v", err, err, err, err.Error(), *f))
	for _, canary := range []string{secretCanary, refreshCanary, replyCanary} {
		if strings.Contains(text, strings.ToLower(canary)) {
			t.Errorf("error tells %q: %s", canary, text)
		}
	}
	return f
}

// reply answers with a body.
func reply(status int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// roundTrip is a transport in place of the network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// canned is a transport that reads the request and answers with a body.
func canned(status int, body string, header http.Header) func(*grant.Config) {
	return func(cfg *grant.Config) {
		cfg.Transport = func(string) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				_, err := io.Copy(io.Discard, r.Body)
				return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, err
			})
		}
	}
}

// basicAuth takes user and password out of a header, without undoing the form encoding.
func basicAuth(h http.Header) (user, password string, ok bool) {
	return (&http.Request{Header: h}).BasicAuth()
}
