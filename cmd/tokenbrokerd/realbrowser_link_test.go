package main_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
	"github.com/tokenbroker/tokenbroker/web/browsertest"
)

const goOn = "Continue to Acme Reports"

// link has tokenctl make a link for a credential, and returns it with the id of the consent.
func (w *browserWorld) link(t *testing.T, name string, flags ...string) (link, id string) {
	t.Helper()
	if len(flags) == 0 {
		flags = []string{"--provider", "oidc", "--client", w.client(t, "web"), "--scope", "reports.read"}
	}
	p, link := w.connect(t, name, append(flags, "--link")...)
	ends(t, p, 0, "give this link to the owner of the account", "tokenctl consent accept")
	id, _, _ = strings.Cut(link[strings.LastIndex(link, "/")+1:], ".")
	return link, id
}

// wantConsent checks how a consent stands.
func (w *browserWorld) wantConsent(t *testing.T, id, state, account string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := tokenbrokerv1.NewConsentServiceClient(w.operator).GetConsent(ctx, &tokenbrokerv1.GetConsentRequest{ConsentId: id})
	if got := r.GetConsent(); err != nil || got.GetState().String() != "CONSENT_STATE_"+state || got.GetAccount() != account {
		t.Errorf("consent %s: got %s of %q (%v), want %s of %q", id, got.GetState(), got.GetAccount(), err, state, account)
	}
}

// giveConsent goes all the way from the page of a link.
func giveConsent(b *browsertest.Browser, link, who string) browsertest.Standing {
	b.Open(link)
	b.Click("button", goOn)
	b.Type(who)
	b.Press("Enter")
	return b.Click("button", "Allow")
}

func TestInARealBrowserAConsentByLink(t *testing.T) {
	t.Parallel()
	w := newBrowserWorld(t)
	t.Run("needs a keyboard and the width of a phone and ends with a token", w.testKeyboard)
	t.Run("is as good as before after scanners opened it", w.testScanners)
	t.Run("works once", func(t *testing.T) {
		link, id := w.link(t, "example/once")
		owner, other := w.browser(browsertest.Phone()), w.browser(browsertest.Phone())
		wantPage(t, giveConsent(owner, link, "alice"), "Thank you, that is all")
		for _, b := range []*browsertest.Browser{owner, other} {
			got := b.Open(link)
			wantPage(t, got, "This link was used")
			wantReadable(t, got)
			if got.Status != http.StatusGone {
				t.Errorf("got %d, want 410", got.Status)
			}
		}
		w.wantConsent(t, id, "AWAITING_ACCEPTANCE", "alice@example.org")
	})
	t.Run("on which the person says no is denied", func(t *testing.T) {
		link, id := w.link(t, "example/no")
		b := w.browser(browsertest.Phone())
		b.Open(link)
		b.Click("button", goOn)
		b.Type("alice")
		b.Press("Enter")
		got := b.Click("button", "Deny")
		wantPage(t, got, "You said no", "access_denied")
		wantReadable(t, got)
		w.wantConsent(t, id, "DENIED", "")
	})
	t.Run("takes no answer with another state and its own afterwards", w.testState)
	t.Run("is finished by no other browser", w.testOtherBrowser)
	t.Run("with another account is refused on reauthorize and the grant of before goes on", func(t *testing.T) {
		link, id := w.link(t, "example/keyboard", "--reauthorize")
		b := w.browser(browsertest.Phone())
		got := giveConsent(b, link, "bob")
		wantPage(t, got, "That was another account", "account_mismatch")
		wantReadable(t, got)
		w.wantConsent(t, id, "FAILED", "bob@example.org")
		w.wantLastGrantRevoked(t)
		w.wantRefresh(t, "example/keyboard")
	})
	t.Run("that is too old is refused", w.testExpired)
	w.wantNoLeak(t)
}

// testKeyboard touches no mouse.
func (w *browserWorld) testKeyboard(t *testing.T) {
	link, id := w.link(t, "example/keyboard")
	b := w.browser(browsertest.Size{Width: 320, Height: 568})
	got := b.Open(link)
	wantPage(t, got, "Connect Acme Reports", "See your reports", "reports.read", "See your e-mail address", "Keep the access while you are away", "example/keyboard", "spiffe://tokenbroker.local/operator/admin")
	wantReadable(t, got)
	if got = b.Press("Tab"); got.Focus != goOn {
		t.Errorf("the first that the keyboard comes to is %q", got.Focus)
	}
	shot(b, "real-consent-320")
	b.Press("Enter")
	b.Type("alice")
	b.Press("Enter")
	if got = b.Press("Tab"); got.Focus != "Allow" {
		t.Errorf("the keyboard comes to %q, want Allow", got.Focus)
	}
	got = b.Press("Enter")
	wantPage(t, got, "Thank you, that is all")
	wantReadable(t, got)
	shot(b, "real-done-320")
	if got.URL != w.public+"/consent/done" {
		t.Errorf("the address bar says %s", got.URL)
	}
	w.wantOwnRequests(t, got)
	w.wantConsent(t, id, "AWAITING_ACCEPTANCE", "alice@example.org")
	if _, err := get(t, w.operator, "example/keyboard"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("before it is accepted: got %v, want FailedPrecondition", err)
	}
	ends(t, w.tokenctl(t, "consent", "accept", id, "--account", "bob@example.org"), 7, "ACCOUNT_MISMATCH")
	ends(t, w.tokenctl(t, "consent", "accept", id, "--account", "alice@example.org"), 0, "Connected example/keyboard")
	w.wantToken(t, "example/keyboard")
}

// testScanners is mail software that looks at links before a person does.
func (w *browserWorld) testScanners(t *testing.T) {
	link, id := w.link(t, "example/scanned")
	scanner := w.scanner(t)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodGet, http.MethodHead, http.MethodPost} {
		resp := request(t, scanner, method, link)
		_ = resp.Body.Close()
		csp := resp.Header.Get("Content-Security-Policy")
		if resp.Header.Get("Referrer-Policy") != "no-referrer" || !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Referrer-Policy %q, policy %q", method, resp.Header.Get("Referrer-Policy"), csp)
		}
		if refused := resp.StatusCode == http.StatusForbidden; refused != (method == http.MethodPost) || !refused && resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d", method, resp.StatusCode)
		}
	}
	w.wantConsent(t, id, "PENDING", "")
	for name, size := range map[string]browsertest.Size{"phone": browsertest.Phone(), "desktop": browsertest.Desktop(), "dark": {Width: 390, Height: 844, Dark: true}} {
		b := w.browser(size)
		wantReadable(t, b.Open(link)) // somebody else looks, too
		shot(b, "real-consent-"+name)
	}
	b := w.browser(browsertest.Size{Width: 1280, Height: 900, NoScripts: true})
	got := giveConsent(b, link, "alice")
	wantPage(t, got, "Thank you, that is all")
	wantReadable(t, got)
	shot(b, "real-done-desktop")
	w.wantConsent(t, id, "AWAITING_ACCEPTANCE", "alice@example.org")
}

// scanner is a client without cookies.
func (w *browserWorld) scanner(t *testing.T) *http.Client {
	t.Helper()
	config, err := w.site.source("worker").ClientTLS("spiffe://tokenbroker.local/broker")
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates, config.GetClientCertificate, config.NextProtos = nil, nil, nil
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func request(t *testing.T, c *http.Client, method, target string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// leaves is the URL of the server that a browser was sent to last.
func (w *browserWorld) leaves(t *testing.T, got browsertest.Standing) string {
	t.Helper()
	last := ""
	for _, r := range got.Asked {
		if strings.HasPrefix(r.URL, w.issuer+"/auth?") {
			last = r.URL
		}
	}
	if last == "" {
		t.Fatal("the browser was not sent to the server")
	}
	return last
}

func (w *browserWorld) testState(t *testing.T) {
	link, id := w.link(t, "example/link-state")
	b := w.browser(browsertest.Phone())
	b.Open(link)
	target := w.leaves(t, b.Click("button", goOn))
	for _, state := range []string{"", "x", id + ".", id + ".forged", "n0ne.forged"} {
		got := b.Open(w.public + "/consent/callback?code=forged&state=" + state)
		wantPage(t, got, "This did not come from the provider")
		if got.URL != w.public+"/consent/stopped/not-from-provider" || got.Status != http.StatusBadRequest {
			t.Errorf("state %q: got %d at %s", state, got.Status, got.URL)
		}
	}
	w.wantConsent(t, id, "PENDING", "")
	w.signIn(b, target, "alice")
	wantPage(t, b.Click("button", "Allow"), "Thank you, that is all")
	w.wantConsent(t, id, "AWAITING_ACCEPTANCE", "alice@example.org")
}

// testOtherBrowser is somebody who has a person's browser answer a consent that was begun in another one.
func (w *browserWorld) testOtherBrowser(t *testing.T) {
	link, id := w.link(t, "example/other-browser")
	owner, other := w.browser(browsertest.Phone()), w.browser(browsertest.Phone())
	owner.Open(link)
	target := w.leaves(t, owner.Click("button", goOn))
	w.signIn(other, target, "bob")
	got := other.Click("button", "Allow")
	wantPage(t, got, "This was begun in another browser")
	wantReadable(t, got)
	if got.URL != w.public+"/consent/stopped/other-browser" || got.Status != http.StatusForbidden {
		t.Errorf("got %d at %s", got.Status, got.URL)
	}
	wantPage(t, other.Open(w.public+"/consent/done"), "There is nothing here")
	w.wantConsent(t, id, "PENDING", "")
	owner.Type("alice")
	owner.Press("Enter")
	wantPage(t, owner.Click("button", "Allow"), "Thank you, that is all")
	w.wantConsent(t, id, "AWAITING_ACCEPTANCE", "alice@example.org")
}

// testExpired makes a link older than it is, while the broker does not run.
func (w *browserWorld) testExpired(t *testing.T) {
	link, id := w.link(t, "example/expired")
	b := w.browser(browsertest.Phone())
	b.Open(link)
	w.site.stop()
	w.age(t, id, 31*time.Minute)
	w.brokers = append(w.brokers, w.site.start())
	wantPage(t, b.Click("button", goOn), "This link is too old") // the page was open all the while
	got := b.Open(link)
	wantPage(t, got, "This link is too old")
	wantReadable(t, got)
	if got.Status != http.StatusGone {
		t.Errorf("got %d, want 410", got.Status)
	}
	w.wantConsent(t, id, "EXPIRED", "")
}

// age changes the record of a consent.
func (w *browserWorld) age(t *testing.T, id string, by time.Duration) {
	t.Helper()
	kek, err := keyring.FileKEK(w.site.path("kek.key"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := bolt.Open(w.site.path("tokenbroker.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	s, err := store.Open(t.Context(), engine, store.Options{KEK: kek})
	if err != nil {
		t.Fatal(err)
	}
	var c tokenbroker.Consent
	if c, err = s.Consent(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.Created, c.Expiry = c.Created.Add(-by), c.Expiry.Add(-by)
	if _, err := s.PutConsent(t.Context(), c, c.Version); err != nil {
		t.Fatal(err)
	}
}
