package main_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

const oidcFolder = "testdata/oidc"

// oidcServer is the server of testdata/oidc: an implementation of OAuth 2.0 and OpenID Connect that we had no hand in.
type oidcServer struct {
	t       testing.TB
	issuer  string
	clients []oidcClient
	jobs    []oidcClient // of clients, those that a job would have: a secret that is sent as it is
	ca      string       // file
	log     string       // file
	http    *http.Client
}

type oidcClient struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
	Auth   string `json:"token_endpoint_auth_method"`
}

func (c oidcClient) withSecret() bool {
	return c.ID != "device" && c.ID != "web" && (c.Auth == "client_secret_basic" || c.Auth == "client_secret_post")
}

// oidcLine is a line that the server writes.
type oidcLine struct {
	Event        string       `json:"event"`
	Issuer       string       `json:"issuer"`
	Clients      []oidcClient `json:"clients"`
	GrantType    string       `json:"grant_type"`
	RefreshToken string       `json:"refresh_token_sha256"`
	Status       int          `json:"status"`
	Error        string       `json:"error"`
	Grant        string       `json:"grant_id"`
	Referer      string       `json:"referer"`
}

// startOIDC starts the server, which ends with the test. env is more of what server.mjs says.
func startOIDC(t testing.TB, life time.Duration, env ...string) *oidcServer {
	t.Helper()
	if _, err := os.Stat(oidcFolder + "/node_modules/oidc-provider"); err != nil {
		t.Fatalf("the OAuth server is not installed: %v: run make deps", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: install node 20 or newer, then run make deps", err)
	}
	dir := t.TempDir()
	o := &oidcServer{t: t, ca: filepath.Join(dir, "ca.pem"), log: filepath.Join(dir, "log")}
	o.certificate(dir)
	cmd := exec.Command(node, oidcFolder+"/server.mjs")
	cmd.Env = append(os.Environ(), "OIDC_CERT="+dir+"/server.pem", "OIDC_KEY="+dir+"/server.key", "OIDC_LOG="+o.log,
		fmt.Sprintf("OIDC_ACCESS_TOKEN_TTL=%d", int(life.Seconds())))
	cmd.Env = append(cmd.Env, env...)
	if _, err := cmd.StdinPipe(); err != nil { // it lives as long as this is open
		t.Fatal(err)
	}
	var ready oidcLine
	if err := json.Unmarshal([]byte(startProcess(t, cmd).line(`"ready"`)), &ready); err != nil {
		t.Fatal(err)
	}
	o.issuer, o.clients = ready.Issuer, ready.Clients
	o.jobs = slices.DeleteFunc(slices.Clone(o.clients), func(c oidcClient) bool { return !c.withSecret() })
	return o
}

// certificate makes a CA, a server certificate, and a client that trusts them.
func (o *oidcServer) certificate(dir string) {
	o.t.Helper()
	ca, err := mtls.NewCA("oidc test", time.Hour)
	if err != nil {
		o.t.Fatal(err)
	}
	cert, key, err := ca.Issue(mtls.Template{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		o.t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.pem": ca.CertPEM(), "server.pem": cert, "server.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	o.t.Cleanup(transport.CloseIdleConnections)
	o.http = &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// login is a person who consents in a browser: the authorization code flow with PKCE. It returns the refresh token.
func (o *oidcServer) login(c oidcClient, scope string) string {
	o.t.Helper()
	const callback = "http://127.0.0.1:1/callback"
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	browser := *o.http
	browser.Jar, _ = cookiejar.New(nil)
	resp, err := browser.Get(o.issuer + "/auth?" + url.Values{"client_id": {c.ID}, "response_type": {"code"}, "redirect_uri": {callback},
		"scope": {scope}, "state": {"s"}, "login_hint": {"alice"}, "code_challenge_method": {"S256"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}}.Encode())
	if err != nil {
		o.t.Fatal(err)
	}
	_ = resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		o.t.Fatalf("log in: HTTP %d without a redirect", resp.StatusCode)
	}
	return o.redeem(c, url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")},
		"redirect_uri": {callback}, "code_verifier": {verifier}})
}

// redeem brings an authorization code to the token endpoint.
func (o *oidcServer) redeem(c oidcClient, form url.Values) string {
	o.t.Helper()
	if c.Auth == "client_secret_post" {
		form.Set("client_id", c.ID)
		form.Set("client_secret", c.Secret)
	}
	r, err := http.NewRequestWithContext(o.t.Context(), http.MethodPost, o.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		o.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.Auth == "client_secret_basic" {
		r.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret))
	}
	resp, err := o.http.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var reply struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || reply.RefreshToken == "" {
		o.t.Fatalf("redeem the code: HTTP %d, %v, no refresh token", resp.StatusCode, err)
	}
	return reply.RefreshToken
}

// takes asks the server's own resource whether a token is good.
func (o *oidcServer) takes(accessToken string) bool {
	r, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, o.issuer+"/me", nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+accessToken)
	resp, err := o.http.Do(r)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode == http.StatusOK && bytes.Contains(body, []byte(`"alice"`))
}

// lines is the server's own record.
func (o *oidcServer) lines() []oidcLine {
	o.t.Helper()
	data, err := os.ReadFile(o.log)
	if err != nil {
		o.t.Fatal(err)
	}
	var list []oidcLine
	for text := range bytes.Lines(data) {
		var l oidcLine
		if err := json.Unmarshal(text, &l); err != nil {
			o.t.Fatalf("log line %q: %v", text, err)
		}
		list = append(list, l)
	}
	return list
}
