package web_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/web/browsertest"
)

// browserSite is a site at whose provider a real browser can sign in, over HTTPS, and a Chromium that trusts its CA.
func browserSite(t *testing.T) (*site, *browsertest.Driver) {
	return browserSiteVia(t, func(_ string, pages http.Handler) http.Handler { return pages })
}

// browserSiteVia is browserSite with a handler before the provider's pages, which is told another origin that leads to it.
func browserSiteVia(t *testing.T, before func(elsewhere string, pages http.Handler) http.Handler) (*site, *browsertest.Driver) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(p *provider.Profile) {
		p.AuthorizationEndpoint, p.AllowPrivate = "https://"+l.Addr().String()+"/people/authorize", true
	})
	cert, key, err := s.CA().Issue(mtls.Template{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	handler := before("https://"+other.Addr().String(), s.Sandbox)
	for _, l := range []net.Listener{l, other} {
		front := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
		front.StartTLS()
		t.Cleanup(front.Close)
	}
	own, err := os.ReadFile(filepath.Join(s.Dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return s, browsertest.Start(t, browsertest.Config{Dir: "testdata/browser", Trust: [][]byte{own, cert}})
}

// wantReadable checks what holds of a page at any size.
func wantReadable(t *testing.T, got browsertest.Standing) {
	t.Helper()
	complaints := slices.DeleteFunc(got.Complaints, func(c string) bool { return strings.Contains(c, "the server responded with a status of 4") })
	if got.Wide || got.Smallest < 16 || len(complaints) != 0 {
		t.Errorf("%s: scrolls sideways: %v, smallest font %v px, complaints %v", got.Title, got.Wide, got.Smallest, complaints)
	}
}

// shot keeps a picture where the environment asks for one.
func shot(b *browsertest.Browser, name string) {
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		b.Shot(filepath.Join(dir, name+".png"))
	}
}

func TestInABrowserALinkLeadsToAConnectedAccount(t *testing.T) {
	s, d := browserSite(t)
	for name, size := range map[string]browsertest.Size{"phone": browsertest.Phone(), "desktop": browsertest.Desktop(),
		"dark": {Width: 390, Height: 844, Dark: true}, "noscript": {Width: 1280, Height: 900, NoScripts: true}} {
		begun, owner := s.link(), d.Browser(size)
		got := owner.Open(begun.GetLink())
		wantReadable(t, got)
		shot(owner, name+"-consent")
		if !strings.Contains(got.Text, "See your files") {
			t.Errorf("%s: the page: %s", name, got.Text)
		}
		got = owner.Press("Tab")
		if !strings.HasPrefix(got.Focus, "Continue to") {
			t.Errorf("%s: the first that the keyboard comes to is %q", name, got.Focus)
		}
		shot(owner, name+"-focus")
		owner.Press("Enter")
		owner.Select("Account", ann)
		got = owner.Click("button", "Allow")
		wantReadable(t, got)
		shot(owner, name+"-done")
		if got.URL != s.WebURL+"/consent/done" || !strings.Contains(got.Text, "Thank you") {
			t.Fatalf("%s: ended at %s: %s", name, got.URL, got.Text)
		}
		wantCleanHistory(t, s, got)
		if c := s.state(begun.GetConsent().GetConsentId()); c.GetAccount() != ann || c.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE {
			t.Errorf("%s: %s of %q", name, c.GetState(), c.GetAccount())
		}
	}
}

// wantCleanHistory checks that no code and no state stays in the browser, and that the pages tell nobody where they were.
func wantCleanHistory(t *testing.T, s *site, got browsertest.Standing) {
	t.Helper()
	for _, entry := range got.History {
		if strings.HasPrefix(entry, s.WebURL) && strings.Contains(entry, "?") {
			t.Errorf("the history has %.60s", entry)
		}
	}
	for _, r := range got.Asked {
		if strings.HasPrefix(r.Referer, s.WebURL) {
			t.Errorf("%.60s was told that it comes from %.60s", r.URL, r.Referer)
		}
	}
}

func TestInABrowserEveryWrongTurnHasAPage(t *testing.T) {
	s, d := browserSite(t)
	begun, owner, other := s.link(), d.Browser(browsertest.Phone()), d.Browser(browsertest.Phone())
	owner.Open(begun.GetLink())
	owner.Click("button", "Continue to People & Files")
	got := other.Open(begun.GetLink())
	wantPage(t, got, http.StatusGone, "used")
	shot(other, "used")
	wantReadable(t, got)
	got = owner.Click("button", "Deny")
	wantPage(t, got, http.StatusOK, "said no")
	wantReadable(t, got)
	shot(owner, "denied")
	got = other.Open(s.WebURL + "/consent/callback?code=x&state=y.z")
	wantPage(t, got, http.StatusBadRequest, "did not come from the provider")
	wantCleanHistory(t, s, got)
	shot(other, "callback")
	wantPage(t, other.Open(s.WebURL+"/consent/stopped/other-browser"), http.StatusForbidden, "another browser")
	shot(other, "other-browser")
	wantPage(t, other.Open(s.WebURL+"/consent/stopped/expired"), http.StatusGone, "too old")
	shot(other, "expired")
	wantPage(t, other.Open(s.WebURL+"/consent/l/x.y"), http.StatusNotFound, "nothing here")
	shot(other, "notfound")
}

func wantPage(t *testing.T, got browsertest.Standing, status int, says string) {
	t.Helper()
	if got.Status != status || !strings.Contains(got.Text, says) {
		t.Errorf("%s: got %d %q, want %d and %q in it", got.URL, got.Status, got.Text, status, says)
	}
}

func TestInABrowserAConsentByLoopbackIsCaught(t *testing.T) {
	s, d := browserSite(t)
	caught := make(chan string, 1)
	catcher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			caught <- r.URL.String()
		}
		_, _ = w.Write([]byte("caught"))
	}))
	defer catcher.Close()
	begun, err := s.consents.BeginConsent(s.ctx(), &tokenbrokerv1.BeginConsentRequest{Credential: "people/files",
		Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK, RedirectUri: catcher.URL + "/callback"})
	if err != nil {
		t.Fatal(err)
	}
	browser := d.Browser(browsertest.Desktop())
	browser.Open(begun.GetAuthorizationUrl())
	browser.Select("Account", bob)
	browser.Click("button", "Allow")
	done, err := s.consents.CompleteConsent(s.ctx(), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(), CallbackUrl: catcher.URL + <-caught})
	if err != nil || done.GetConsent().GetAccount() != bob || done.GetConsent().GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DONE {
		t.Errorf("got %s of %q (%v)", done.GetConsent().GetState(), done.GetConsent().GetAccount(), err)
	}
}

func TestInABrowserAProviderMaySendThePersonToSignInElsewhere(t *testing.T) {
	s, d := browserSiteVia(t, func(elsewhere string, pages http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			back := r.URL.Query().Get("back")
			switch {
			case r.URL.Path == "/signin": // at the other host, where the person is signed in already
				http.Redirect(w, r, back+"&signed=in", http.StatusFound)
			case r.Method == http.MethodGet && r.URL.Path == "/people/authorize" && r.URL.Query().Get("signed") == "":
				http.Redirect(w, r, elsewhere+"/signin?"+url.Values{"back": {"https://" + r.Host + r.URL.String()}}.Encode(), http.StatusFound)
			default:
				pages.ServeHTTP(w, r)
			}
		})
	})
	begun, owner := s.link(), d.Browser(browsertest.Phone())
	owner.Open(begun.GetLink())
	owner.Click("button", "Continue to People & Files")
	owner.Select("Account", ann)
	wantPage(t, owner.Click("button", "Allow"), http.StatusOK, "Thank you")
}
