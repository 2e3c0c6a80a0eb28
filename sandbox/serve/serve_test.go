package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/sandbox/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running starts a server and ends it with the test.
func running(t *testing.T, cfg serve.Config) (*serve.Server, *http.Client) {
	t.Helper()
	if cfg.Scenario.Issuers == nil {
		cfg.Scenario = scenario(t)
	}
	s, err := serve.Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := s.Client()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
	return s, client
}

func scenario(t *testing.T) sandbox.Scenario {
	t.Helper()
	s, err := sandbox.ParseScenario(serve.Demo())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASandboxListensOverTLS(t *testing.T) {
	s, client := running(t, serve.Config{})
	if !strings.HasPrefix(s.URL, "https://127.0.0.1:") || len(s.CA) == 0 {
		t.Fatalf("got %s", s.URL)
	}
	if got := token(t, client, s.URL); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
	if _, err := http.Get(s.URL + "/acme/jwks"); err == nil { //nolint:bodyclose // there is none
		t.Error("got an answer for a client that does not trust the CA")
	}
	if n := s.Count(sandbox.Filter{ClientID: "web", Status: 200}); n != 1 {
		t.Errorf("got %d requests, want 1", n)
	}
}

func token(t *testing.T, client *http.Client, base string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/acme/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web", "sandbox_secret")
	return status(t, client, r)
}

func status(t *testing.T, client *http.Client, r *http.Request) int {
	t.Helper()
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

func TestPlainHTTPIsForThoseWhoAsk(t *testing.T) {
	s, client := running(t, serve.Config{PlainHTTP: true})
	if !strings.HasPrefix(s.URL, "http://127.0.0.1:") || s.CA != nil {
		t.Fatalf("got %s", s.URL)
	}
	if got := token(t, client, s.URL); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
}

func TestASandboxStaysOnLoopback(t *testing.T) {
	for name, cfg := range map[string]serve.Config{
		"all addresses":          {Listen: "0.0.0.0:0"},
		"no host":                {Listen: ":0"},
		"a name":                 {Listen: "localhost:0"},
		"no port":                {Listen: "127.0.0.1"},
		"plain, on purpose":      {Listen: "0.0.0.0:0", AllowRemote: true, PlainHTTP: true},
		"control":                {Control: "0.0.0.0:0"},
		"control, on purpose":    {Control: "0.0.0.0:0", AllowRemote: true},
		"a port that is no port": {Listen: "127.0.0.1:x"},
		"a control port as such": {Control: "127.0.0.1:x"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Scenario = scenario(t)
			s, err := serve.Listen(t.Context(), cfg)
			if err == nil {
				t.Errorf("got %s, want an error", s.URL)
				_ = s.Close()
			}
			if remote := name == "all addresses" || name == "no host"; remote && !errors.Is(err, serve.ErrRemote) {
				t.Errorf("got %v, want %v", err, serve.ErrRemote)
			}
		})
	}
	s, err := serve.Listen(t.Context(), serve.Config{Scenario: scenario(t), Listen: "0.0.0.0:0", AllowRemote: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := serve.Listen(t.Context(), serve.Config{}); err == nil || !strings.Contains(err.Error(), "no issuer") {
		t.Errorf("got %v, want the scenario refused", err)
	}
}

func TestTheControlEndpointAnswersOnlyItsLoopbackName(t *testing.T) {
	s, client := running(t, serve.Config{})
	for host, want := range map[string]int{"": 200, "localhost:1": 200, "127.0.0.1:1": 200, "[::1]:1": 200, "evil.test:1": 403, "evil.test": 403, "127.0.0.1": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ControlURL+"/control/journal", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if got := status(t, client, r); got != want {
			t.Errorf("%q: got %d, want %d", host, got, want)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/control/journal", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, client, r); got != 404 {
		t.Errorf("got %d at the sandbox itself, want 404", got)
	}
}

func TestTheEndOfAServerEndsWhatHangs(t *testing.T) {
	s, err := serve.Listen(t.Context(), serve.Config{Scenario: scenario(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, answered := make(chan error, 1), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.Fail("acme", sandbox.Fault{Endpoint: sandbox.EndpointJWKS, Hang: true})
	client := s.Client()
	defer client.CloseIdleConnections()
	go func() {
		res, err := client.Get(s.URL + "/acme/jwks")
		if err == nil {
			err = res.Body.Close()
		}
		answered <- err
	}()
	for s.Count(sandbox.Filter{Unanswered: true}) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-answered; err == nil {
		t.Error("got an answer, want the connection broken")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAClientCertificateReachesTheSandbox(t *testing.T) {
	pair := selfSigned(t)
	cfg := scenario(t)
	cfg.Issuers[0].Clients = append(cfg.Issuers[0].Clients, sandbox.Client{ID: "mtls", Auth: sandbox.AuthSelfSignedTLS, TLSThumbprint: sandbox.SPKIThumbprint(pair.Leaf)})
	s, client := running(t, serve.Config{Scenario: cfg})
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme/token", strings.NewReader("grant_type=client_credentials&client_id=mtls"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := status(t, client, r); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestTheSnippetIsABrokersConfiguration(t *testing.T) {
	cfg := scenario(t)
	cfg.Issuers = append(cfg.Issuers,
		sandbox.Issuer{Name: "still", Rotation: sandbox.RotateNone, KillsOld: true, Downscope: true, RefreshLife: 90e9},
		sandbox.Issuer{Name: "graceful", Rotation: sandbox.RotateGrace, Grace: 30e9, URL: "https://login.test"})
	for _, plain := range []bool{false, true} {
		s, err := serve.Listen(t.Context(), serve.Config{Scenario: cfg, PlainHTTP: plain})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := strings.Join(s.Issuers(), " "); got != "acme still graceful" {
			t.Errorf("got %s", got)
		}
		caFile := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(caFile, s.CA, 0o600); err != nil {
			t.Fatal(err)
		}
		if plain {
			caFile = ""
		}
		text := strings.TrimPrefix(s.Providers(caFile), "providers:\n")
		profiles, err := provider.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if _, err := provider.New(profiles); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		for name, p := range profiles {
			if p.TokenEndpoint != s.URL+"/"+name+"/token" || p.AllowPrivate == plain || p.InsecureLoopback != plain || p.CAFile != caFile || p.TestEndpoint != s.URL+"/"+name+"/resource" {
				t.Errorf("%s: got %+v", name, p)
			}
		}
		still, graceful := profiles["still"], profiles["graceful"]
		if *still.Rotates || !*still.KillsOld || !*still.Downscopes || still.IdleLife.String() != "1m30s" || graceful.Grace.String() != "30s" || graceful.Issuer != "https://login.test" {
			t.Errorf("got %s", text)
		}
	}
}
