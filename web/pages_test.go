package web_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const public = "https://consent.example.org"

// faulty is a service that answers what a test wants.
type faulty struct {
	invitation consent.Invitation
	outcome    tokenbroker.Consent
	err        error
	departs    int
}

// Invitation implements web.Consents.
func (f *faulty) Invitation(context.Context, string, func(string) tokenbroker.Secret) (consent.Invitation, error) {
	return f.invitation, f.err
}

// Depart implements web.Consents.
func (f *faulty) Depart(context.Context, string, func(string) tokenbroker.Secret) (consent.Departure, error) {
	f.departs++
	return consent.Departure{ConsentID: "abc", URL: "https://acme.example/authorize?state=x", Browser: tokenbroker.NewSecret("browser")}, f.err
}

// Return implements web.Consents.
func (f *faulty) Return(context.Context, string, func(string) tokenbroker.Secret) (tokenbroker.Consent, error) {
	return f.outcome, f.err
}

// Outcome implements web.Consents.
func (f *faulty) Outcome(context.Context, string, tokenbroker.Secret) (tokenbroker.Consent, error) {
	return f.outcome, f.err
}

func sample() consent.Invitation {
	return consent.Invitation{Provider: "Acme Files", App: "reports", Origin: "https://acme.example", Account: "ann@acme.example",
		Consent: tokenbroker.Consent{Credential: "acme/reports", BegunBy: "spiffe://example.org/operator/ann", Expiry: time.Date(2026, 11, 28, 15, 4, 0, 0, time.UTC)},
		Scopes:  []consent.Scope{{Name: "files.read", Meaning: "See your files"}, {Name: "files.write"}}}
}

func pages(t *testing.T, f *faulty, log io.Writer) *web.Handler {
	t.Helper()
	h, err := web.New(web.Config{Consents: f, PublicURL: public, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask makes one request of a browser that has the cookies given.
func ask(h http.Handler, method, target, body string, cookies ...*http.Cookie) answer {
	r := httptest.NewRequest(method, public+target, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return serve(h, r)
}

// answer is what a browser is answered.
type answer struct {
	status  int
	header  http.Header
	cookies []*http.Cookie
	body    string
}

func serve(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	result := w.Result()
	defer result.Body.Close()
	return answer{result.StatusCode, result.Header, result.Cookies(), w.Body.String()}
}

func wantStatus(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %d, want %d", what, got, want)
	}
}

func TestEveryAnswerIsHardened(t *testing.T) {
	f := &faulty{invitation: sample()}
	h := pages(t, f, io.Discard)
	for _, target := range []string{"/consent/l/x.y", "/consent/done", "/consent/callback?code=c&state=s", "/consent/stopped/used", "/consent/style.css", "/", "/none", "/consent/l/"} {
		r := ask(h, http.MethodGet, target, "")
		csp := r.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: policy %q lacks %s", target, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: policy %q", target, csp)
		}
		for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "DENY"} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s: got %q, want %q", target, name, got, want)
			}
		}
		if onPage := strings.Contains(csp, "form-action 'self' https:;"); onPage != (target == "/consent/l/x.y") {
			t.Errorf("%s: where a form may lead: %q", target, csp)
		}
	}
}

func TestAProviderOfDevelopmentMayBeReachedByPlainHTTP(t *testing.T) {
	i := sample()
	i.Origin = "http://127.0.0.1:9999"
	csp := ask(pages(t, &faulty{invitation: i}, io.Discard), http.MethodGet, "/consent/l/x.y", "").header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "form-action 'self' http://127.0.0.1:9999;") {
		t.Errorf("policy %q", csp)
	}
}

func TestNoRuleForAllOfLocalhostIsMade(t *testing.T) {
	for _, public := range []string{"https://localhost:8444", "https://127.0.0.1:8444", "https://[::1]:8444"} {
		h, err := web.New(web.Config{Consents: &faulty{}, PublicURL: public})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, public+"/", nil)
		w := serve(h, r)
		if got := w.header.Get("Strict-Transport-Security"); got != "" || w.status != http.StatusNotFound {
			t.Errorf("%s: %d, %q", public, w.status, got)
		}
	}
}

var titlePattern = regexp.MustCompile(`<title>[^<]+</title>`)

var tag = regexp.MustCompile(`<[a-zA-Z]+`)

// wantGoodPage checks what holds of all pages.
func wantGoodPage(t *testing.T, what, body string) {
	t.Helper()
	if strings.Count(body, "<h1>") != 1 {
		t.Errorf("%s: %d h1", what, strings.Count(body, "<h1>"))
	}
	for _, part := range []string{`<html lang="en">`, `<meta name="viewport" content="width=device-width, initial-scale=1">`, "<title>", "<main>"} {
		if !strings.Contains(body, part) {
			t.Errorf("%s: lacks %s", what, part)
		}
	}
	for _, name := range tag.FindAllString(body, -1) {
		if name == "<script" || name == "<img" || name == "<iframe" || name == "<style" {
			t.Errorf("%s: has a %s", what, name)
		}
	}
	if strings.Contains(body, " style=") || strings.Contains(body, " onclick=") || strings.Contains(body, "http://") || strings.Contains(body, `="https://`) {
		t.Errorf("%s: has something inline or from elsewhere", what)
	}
}

func TestThePageSaysWhatIsAskedFor(t *testing.T) {
	body := ask(pages(t, &faulty{invitation: sample()}, io.Discard), http.MethodGet, "/consent/l/x.y", "").body
	wantGoodPage(t, "the page", body)
	for _, part := range []string{"Connect Acme Files", "ann@acme.example", "reports", "acme/reports", "spiffe://example.org/operator/ann", "See your files", "files.read",
		"files.write", "https://acme.example", "15:04 UTC", `<button type="submit">`} {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

func TestWhatOthersWroteIsShownAndNotDone(t *testing.T) {
	i := sample()
	i.Provider, i.App, i.Account = `<script>alert(1)</script>`, `"><img src=x>`, `' onclick='x`
	i.Scopes = []consent.Scope{{Name: "</code><script>", Meaning: "<b>all</b>"}}
	body := ask(pages(t, &faulty{invitation: i}, io.Discard), http.MethodGet, "/consent/l/x.y", "").body
	wantGoodPage(t, "the page", strings.ReplaceAll(body, "&#39; onclick=", ""))
	if strings.Contains(body, "<b>all") || !strings.Contains(body, "&lt;b&gt;all") {
		t.Error("a meaning is taken for HTML")
	}
}

// form opens a link and returns what the browser has then: the cookie, and the token of the form.
func form(t *testing.T, h http.Handler, link string) (*http.Cookie, string) {
	t.Helper()
	r := ask(h, http.MethodGet, link, "")
	m := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(r.body)
	if len(r.cookies) != 1 || m == nil {
		t.Fatalf("%d cookies, token %v", len(r.cookies), m)
	}
	return r.cookies[0], m[1]
}

func TestTheButtonNeedsThePageItIsOn(t *testing.T) {
	f := &faulty{invitation: sample()}
	h := pages(t, f, io.Discard)
	cookie, token := form(t, h, "/consent/l/x.y")
	_, otherToken := form(t, h, "/consent/l/x.y")
	_, otherLink := form(t, h, "/consent/l/x.z")
	for name, r := range map[string]answer{
		"no cookie":            ask(h, http.MethodPost, "/consent/l/x.y", "token="+token),
		"no token":             ask(h, http.MethodPost, "/consent/l/x.y", "", cookie),
		"a token in the URL":   ask(h, http.MethodPost, "/consent/l/x.y?token="+token, "", cookie),
		"another's token":      ask(h, http.MethodPost, "/consent/l/x.y", "token="+otherToken, cookie),
		"another link's token": ask(h, http.MethodPost, "/consent/l/x.y", "token="+otherLink, cookie),
		"far too much":         ask(h, http.MethodPost, "/consent/l/x.y", "token="+token+"&x="+strings.Repeat("x", 20<<10), cookie),
	} {
		wantStatus(t, name, r.status, http.StatusForbidden)
	}
	from := httptest.NewRequest(http.MethodPost, public+"/consent/l/x.y", strings.NewReader("token="+token))
	from.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	from.Header.Set("Sec-Fetch-Site", "cross-site")
	from.AddCookie(cookie)
	wantStatus(t, "from another site", serve(h, from).status, http.StatusForbidden)
	if f.departs != 0 {
		t.Fatalf("the button was pressed %d times", f.departs)
	}
	r := ask(h, http.MethodPost, "/consent/l/x.y", "token="+token, cookie)
	wantStatus(t, "from the page", r.status, http.StatusSeeOther)
	if to := r.header.Get("Location"); to != "https://acme.example/authorize?state=x" {
		t.Errorf("goes to %q", to)
	}
	c := r.cookies[0]
	if c.Name != "__Host-consent-abc" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
}

func TestEachErrorHasAPageOfItsOwn(t *testing.T) {
	titles := map[string]bool{}
	for _, tt := range []struct {
		err    error
		status int
	}{
		{consent.ErrNoLink, http.StatusNotFound}, {consent.ErrLinkExpired, http.StatusGone}, {consent.ErrLinkUsed, http.StatusGone},
		{consent.ErrOtherBrowser, http.StatusForbidden}, {consent.ErrBadCallback, http.StatusBadRequest},
		{errors.New("open /var/lib/secret-path"), http.StatusServiceUnavailable},
	} {
		var log bytes.Buffer
		h := pages(t, &faulty{err: tt.err}, &log)
		r := ask(h, http.MethodGet, "/consent/l/link-secret", "")
		wantStatus(t, tt.err.Error(), r.status, tt.status)
		body := r.body
		wantGoodPage(t, tt.err.Error(), body)
		title := titlePattern.FindString(body)
		if titles[title] || strings.Contains(body, "secret-path") {
			t.Errorf("%v: %s is shown, or says too much", tt.err, title)
		}
		titles[title] = true
		back := ask(h, http.MethodGet, "/consent/callback?code=code-secret&state=state-secret", "")
		wantStatus(t, "the callback", back.status, http.StatusSeeOther)
		to := back.header.Get("Location")
		if !strings.HasPrefix(to, "/consent/stopped/") || strings.Contains(to, "secret") {
			t.Errorf("the callback goes on to %q", to)
		}
		wantStatus(t, to, ask(h, http.MethodGet, to, "").status, tt.status)
		if strings.Contains(log.String(), "code-secret") || strings.Contains(log.String(), "state-secret") || strings.Contains(log.String(), "link-secret") {
			t.Errorf("logged: %s", log.String())
		}
	}
}

func TestHowItWentIsSaidWithoutNamesOfAccounts(t *testing.T) {
	titles := map[string]bool{}
	for _, c := range []tokenbroker.Consent{
		{State: tokenbroker.ConsentPending}, {State: tokenbroker.ConsentAwaiting}, {State: tokenbroker.ConsentDone}, {State: tokenbroker.ConsentDenied, Code: "access_denied"},
		{State: tokenbroker.ConsentExpired}, {State: tokenbroker.ConsentCancelled}, {State: tokenbroker.ConsentFailed, Code: "invalid_grant"},
		{State: tokenbroker.ConsentFailed, Code: "account_mismatch"},
	} {
		c.Account, c.Credential = "ann@acme.example", "acme/reports"
		r := ask(pages(t, &faulty{outcome: c}, io.Discard), http.MethodGet, "/consent/done", "")
		wantStatus(t, string(c.State), r.status, http.StatusOK)
		body := r.body
		wantGoodPage(t, string(c.State), body)
		title := titlePattern.FindString(body)
		if titles[title] || strings.Contains(body, c.Account) {
			t.Errorf("%s %s: %s", c.State, c.Code, title)
		}
		titles[title] = true
	}
}

func TestWhatIsNotAskedForProperlyIsRefused(t *testing.T) {
	h := pages(t, &faulty{invitation: sample()}, io.Discard)
	for target, method := range map[string]string{"/consent/callback": http.MethodPost, "/consent/done": http.MethodPost, "/consent/l/x.y": http.MethodPut, "/consent/style.css": http.MethodDelete} {
		r := ask(h, method, target, "")
		wantStatus(t, method+" "+target, r.status, http.StatusMethodNotAllowed)
		if r.header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", target)
		}
	}
	wantStatus(t, "HEAD of the callback", ask(h, http.MethodHead, "/consent/callback?code=c&state=s", "").status, http.StatusMethodNotAllowed)
	for _, target := range []string{"/", "/consent", "/consent/", "/consent/l/", "/consent/l/a/b", "/consent/stopped/none", "/consent/static", "/consent/../etc", "/favicon.ico"} {
		if r := ask(h, http.MethodGet, target, ""); r.status != http.StatusNotFound && r.status != http.StatusTemporaryRedirect {
			t.Errorf("%s: %d", target, r.status)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "https://evil.example/consent/l/x.y", nil)
	wantStatus(t, "another host", serve(h, r).status, http.StatusMisdirectedRequest)
}

func TestARemoteAddressHasARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := pages(t, &faulty{}, io.Discard)
		from := func(addr string) int {
			r := httptest.NewRequest(http.MethodGet, public+"/consent/style.css", nil)
			r.RemoteAddr = addr
			return serve(h, r).status
		}
		for range 60 {
			if code := from("192.0.2.1:1000"); code != http.StatusOK {
				t.Fatalf("within the burst: %d", code)
			}
		}
		if code := from("192.0.2.1:2000"); code != http.StatusTooManyRequests {
			t.Errorf("over the burst: %d", code)
		}
		if code := from("192.0.2.2:1000"); code != http.StatusOK {
			t.Errorf("another address: %d", code)
		}
		for range 60 {
			from("[2001:db8::1]:1000")
		}
		if code := from("[2001:db8::ffff]:1000"); code != http.StatusTooManyRequests {
			t.Errorf("another address of the same /64: %d", code)
		}
		time.Sleep(time.Second)
		if code := from("192.0.2.1:1000"); code != http.StatusOK {
			t.Errorf("a second later: %d", code)
		}
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	for _, cfg := range []web.Config{{PublicURL: public}, {Consents: &faulty{}}, {Consents: &faulty{}, PublicURL: "http://x.example"}} {
		if _, err := web.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
