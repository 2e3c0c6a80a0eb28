package sandbox_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// FuzzAuthorize sends anything to the pages. A browser is sent nowhere but to a redirect URI that is registered.
func FuzzAuthorize(f *testing.F) {
	f.Add("GET", "authorize", "response_type=code&client_id=web&redirect_uri=https%3A%2F%2Fapp.test%2Fcallback&code_challenge_method=S256&code_challenge="+challenge, "")
	f.Add("GET", "authorize", "client_id=native&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcb", "")
	f.Add("GET", "authorize", "client_id=native&redirect_uri=http%3A%2F%2F127.0.0.1@x.test%2Fcb", "")
	f.Add("POST", "authorize", "", "request=x&decision=deny")
	f.Add("POST", "activate", "", "user_code=x&decision=allow&account=ann@corp.test")
	f.Fuzz(func(t *testing.T, method, endpoint, query, body string) {
		if method != "GET" && method != "POST" || endpoint != "authorize" && endpoint != "activate" {
			return // other methods and paths are for other tests
		}
		w := newWorld(t, people())
		r := w.request(method, "/acme/"+endpoint, body)
		r.URL.RawQuery = query
		res, err := w.srv.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		to := res.Header.Get("Location")
		safe := strings.HasPrefix(to, callback+"?") || strings.HasPrefix(to, "http://127.0.0.1/cb?") || strings.HasPrefix(to, "http://[::1]/cb?") ||
			loopbackPort(to, "http://127.0.0.1:") || loopbackPort(to, "http://[::1]:")
		if to != "" && !safe || to != "" != (res.StatusCode == http.StatusSeeOther) || res.StatusCode >= 500 {
			t.Errorf("got %d to %q", res.StatusCode, to)
		}
	})
}

// loopbackPort reports whether a URL is a loopback host with a port and the path /cb.
func loopbackPort(to, start string) bool {
	rest, ok := strings.CutPrefix(to, start)
	port, path, _ := strings.Cut(rest, "/")
	return ok && strings.Trim(port, "0123456789") == "" && strings.HasPrefix(path, "cb?")
}

// FuzzAssertion brings anything as an assertion. Only the one that is signed is worth a token.
func FuzzAssertion(f *testing.F) {
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJyb2JvdEBwcm9qZWN0LmlhbS50ZXN0In0.AAAA")
	f.Fuzz(func(t *testing.T, assertion string) {
		w := withServiceAccount(t)
		for _, r := range []reply{
			w.assert(assertion),
			w.asserting(assertion),
			w.swap("subject_token", assertion, "subject_token_type", jwtType),
		} {
			if r.status != 400 || r.str("error") == "" {
				t.Errorf("got %d %s, want 400 and a code", r.status, r.text)
			}
		}
	})
}

// FuzzScenario reads anything. What is accepted makes a server or a clear refusal.
func FuzzScenario(f *testing.F) {
	f.Add("issuers: [{name: acme}]\nfaults: [{issuer: acme, kind: hang}]")
	f.Add("issuers: [{name: acme, clients: [{id: x, keys: [{id: k, pem: x}]}]}]")
	f.Add("{")
	f.Add("issuers: !0 0")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := sandbox.ParseScenario([]byte(text))
		if err != nil {
			return
		}
		if srv, err := s.New(); (srv == nil) == (err == nil) {
			t.Errorf("got %v, %v", srv, err)
		}
	})
}

// FuzzControl sends anything to the control endpoint, which answers in JSON and does not panic.
func FuzzControl(f *testing.F) {
	for _, path := range []string{"faults", "advance", "rotation", "seed", "revoke", "auto-approve", "activate", "key", "authorize"} {
		f.Add(path, `{"issuer":"acme","kind":"hang","by":"1h","client_id":"post","url":"https://x.test/acme/authorize","deny":true}`)
		f.Add(path, `{"issuer":"acme"}`)
	}
	f.Fuzz(func(t *testing.T, path, body string) {
		if strings.ContainsAny(path, " /?#%\x00\r\n") || path == "" || strings.Contains(path, "..") {
			return // such paths are for net/http
		}
		w := newWorld(t, people())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
		r.URL.Path = "/control/" + path
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		w.srv.ControlHandler().ServeHTTP(rec, r)
		if rec.Code >= 500 {
			t.Errorf("got %d", rec.Code)
		}
	})
}
