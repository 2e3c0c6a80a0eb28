package web_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	ann = "ann@people.test"
	bob = "bob@people.test"
)

// site is a whole broker with its consent listener, and a provider at which Ann and Bob can consent.
type site struct {
	*brokertest.Broker
	t        *testing.T
	log      *buffer
	consents tokenbrokerv1.ConsentServiceClient
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newSite makes a site. profile may change that of the provider; nil leaves it.
func newSite(t *testing.T, profile func(*provider.Profile)) *site {
	t.Helper()
	s := &site{t: t, log: &buffer{}}
	s.Broker = brokertest.Start(t, brokertest.Config{Web: true, Log: s.log, Issuers: []sandbox.Issuer{{Name: "people", Rotation: sandbox.RotateStrict,
		Clients:  []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}, RedirectURIs: []string{"http://127.0.0.1/callback"}}},
		Accounts: []sandbox.Account{{ID: "1", Email: ann}, {ID: "2", Email: bob}}}},
		Profile: func(_ string, p *provider.Profile) {
			p.Title = "People & Files"
			p.Scopes = []provider.ScopeInfo{{Name: "files.read", Meaning: "See your files"}, {Name: "files.write", Meaning: "Change and delete your files"}}
			if profile != nil {
				profile(p)
			}
		}})
	s.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "people/files", Spec: &tokenbrokerv1.CredentialSpec{Provider: "people",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"files.read", "files.write"}}})
	s.consents = tokenbrokerv1.NewConsentServiceClient(s.Operator())
	return s
}

func (s *site) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	s.t.Cleanup(cancel)
	return ctx
}

// link begins a consent by link.
func (s *site) link() *tokenbrokerv1.BeginConsentResponse {
	s.t.Helper()
	begun, err := s.consents.BeginConsent(s.ctx(), &tokenbrokerv1.BeginConsentRequest{Credential: "people/files", Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK})
	if err != nil {
		s.t.Fatal(err)
	}
	return begun
}

func (s *site) state(id string) *tokenbrokerv1.Consent {
	s.t.Helper()
	got, err := s.consents.GetConsent(s.ctx(), &tokenbrokerv1.GetConsentRequest{ConsentId: id})
	if err != nil {
		s.t.Fatal(err)
	}
	return got.GetConsent()
}

// browser is a browser that follows no redirect by itself.
func (s *site) browser() *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA().CertPEM())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// open opens a page; where it redirects to is returned, too.
func (s *site) open(c *http.Client, target string) (status int, body, location string) {
	s.t.Helper()
	r, err := c.Get(target)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(text), r.Header.Get("Location")
}

// press opens a link, presses its button, and returns where that leads.
func (s *site) press(c *http.Client, link string) string {
	s.t.Helper()
	_, body, _ := s.open(c, link)
	m := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(body)
	if m == nil {
		s.t.Fatalf("no form: %s", body)
	}
	r, err := c.PostForm(link, url.Values{"token": {m[1]}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	wantStatus(s.t, "the button", r.StatusCode, http.StatusSeeOther)
	return r.Header.Get("Location")
}

// signIn consents at the provider, and returns the callback.
func (s *site) signIn(target, account string) string {
	s.t.Helper()
	callback, err := s.Sandbox.Authorize("people", target, account)
	if err != nil {
		s.t.Fatal(err)
	}
	return callback
}

func TestAnAccountOwnerConnectsByALinkAndAnOperatorAccepts(t *testing.T) {
	s := newSite(t, nil)
	begun := s.link()
	scanner := s.browser()
	for range 3 {
		if status, body, _ := s.open(scanner, begun.GetLink()); status != http.StatusOK || !strings.Contains(body, "Change and delete your files") {
			t.Fatalf("the link: %d", status)
		}
	}
	owner := s.browser()
	callback := s.signIn(s.press(owner, begun.GetLink()), ann)
	if !strings.HasPrefix(callback, s.WebURL+"/consent/callback?") {
		t.Errorf("sent back to %.40s", callback)
	}
	status, _, to := s.open(owner, callback)
	if status != http.StatusSeeOther || to != "/consent/done" {
		t.Fatalf("the callback: %d to %q", status, to)
	}
	if status, body, _ := s.open(owner, s.WebURL+to); status != http.StatusOK || !strings.Contains(body, "Thank you") {
		t.Errorf("the result: %d", status)
	}
	id := begun.GetConsent().GetConsentId()
	got := s.state(id)
	if got.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE || got.GetAccount() != ann {
		t.Fatalf("%s of %q", got.GetState(), got.GetAccount())
	}
	s.Restart()
	_, err := s.consents.AcceptConsent(s.ctx(), &tokenbrokerv1.AcceptConsentRequest{ConsentId: id, Account: bob})
	if code := grpcstatus.Code(err); code != codes.FailedPrecondition {
		t.Errorf("another account was accepted: %v", code)
	}
	done, err := s.consents.AcceptConsent(s.ctx(), &tokenbrokerv1.AcceptConsentRequest{ConsentId: id, Account: ann})
	if err != nil || done.GetCredential().GetStatus().GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY {
		t.Fatalf("accept: %v", err)
	}
	if status, body, _ := s.open(owner, s.WebURL+"/consent/done"); status != http.StatusOK || !strings.Contains(body, "<h1>Connected</h1>") {
		t.Errorf("the result afterwards: %d", status)
	}
	if _, err := tokenbrokerv1.NewTokenServiceClient(s.Operator()).GetToken(s.ctx(), &tokenbrokerv1.GetTokenRequest{Credential: "people/files"}); err != nil {
		t.Errorf("no token: %v", err)
	}
	s.wantNothingLogged(begun.GetLink(), callback)
}

// wantNothingLogged looks for what a link and a callback carry in the log and in the audit trail.
func (s *site) wantNothingLogged(link, callback string) {
	s.t.Helper()
	trail, err := os.ReadFile(filepath.Join(s.Dir, "audit.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	u, err := url.Parse(callback)
	if err != nil {
		s.t.Fatal(err)
	}
	_, state, _ := strings.Cut(u.Query().Get("state"), ".")
	_, secret, _ := strings.Cut(link[strings.LastIndex(link, "/"):], ".")
	for name, value := range map[string]string{"code": u.Query().Get("code"), "state": state, "link": secret, "access token": sandbox.AccessPrefix, "refresh token": sandbox.RefreshPrefix} {
		if value == "" || strings.Contains(s.log.String(), value) || bytes.Contains(trail, []byte(value)) {
			s.t.Errorf("the %s is logged, or there was none", name)
		}
	}
	for _, action := range []string{"consent.opened", "consent.returned"} {
		if !bytes.Contains(trail, []byte(action)) {
			s.t.Errorf("no audit record of %s", action)
		}
	}
}

func TestACallbackIsOfTheBrowserThatPressedTheButton(t *testing.T) {
	s := newSite(t, nil)
	begun, owner, other := s.link(), s.browser(), s.browser()
	callback := s.signIn(s.press(owner, begun.GetLink()), ann)
	status, _, to := s.open(other, callback)
	if status != http.StatusSeeOther || to != "/consent/stopped/other-browser" {
		t.Errorf("in another browser: %d to %q", status, to)
	}
	if status, _, _ := s.open(other, s.WebURL+to); status != http.StatusForbidden {
		t.Errorf("its page: %d", status)
	}
	if status, _, _ := s.open(other, begun.GetLink()); status != http.StatusGone {
		t.Errorf("the link in another browser: %d", status)
	}
	if status, _, _ := s.open(other, s.WebURL+"/consent/done"); status != http.StatusNotFound {
		t.Errorf("the result in another browser: %d", status)
	}
	if _, _, to := s.open(owner, strings.Replace(callback, "state=", "state=x", 1)); to != "/consent/stopped/not-from-provider" {
		t.Errorf("another state: %q", to)
	}
	if _, _, to := s.open(owner, callback); to != "/consent/done" {
		t.Errorf("in the right browser: %q", to)
	}
	if _, _, to := s.open(owner, callback); to != "/consent/stopped/used" {
		t.Errorf("once more: %q", to)
	}
	if status, _, _ := s.open(owner, begun.GetLink()); status != http.StatusGone {
		t.Errorf("the link once more: %d", status)
	}
}

func TestSayingNoIsShown(t *testing.T) {
	s := newSite(t, nil)
	begun, owner := s.link(), s.browser()
	no, err := s.Sandbox.RefuseAuthorization("people", s.press(owner, begun.GetLink()))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, to := s.open(owner, no); to != "/consent/done" {
		t.Errorf("goes on to %q", to)
	}
	if _, body, _ := s.open(owner, s.WebURL+"/consent/done"); !strings.Contains(body, "You said no") {
		t.Error("the page does not say so")
	}
	if got := s.state(begun.GetConsent().GetConsentId()); got.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DENIED {
		t.Errorf("got %s", got.GetState())
	}
}
