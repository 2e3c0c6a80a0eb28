package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// catching is a catcher that answers for the state "st4te".
func catching(t *testing.T, template string) *catcher {
	t.Helper()
	c, err := listen(t.Context(), template, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.serve("st4te")
	return c
}

// answer is what an HTTP server answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes a request and follows no redirect.
func send(t *testing.T, method, url, host string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestOnlyTheAnswerToTheConsentIsTaken(t *testing.T) {
	c := catching(t, "http://127.0.0.1:{port}/callback")
	base := c.uri.String()
	right := base + "?code=hush-code&state=st4te"
	for name, row := range map[string]struct {
		method, url, host string
		status            int
	}{
		"another host, as after DNS rebinding": {http.MethodGet, right, "evil.example", http.StatusMisdirectedRequest},
		"the right host without its port":      {http.MethodGet, right, "127.0.0.1", http.StatusMisdirectedRequest},
		"POST":                                 {http.MethodPost, right, c.uri.Host, http.StatusMethodNotAllowed},
		"HEAD, as of a scanner":                {http.MethodHead, right, c.uri.Host, http.StatusMethodNotAllowed},
		"another path":                         {http.MethodGet, strings.Replace(right, "/callback", "/callback/x", 1), c.uri.Host, http.StatusNotFound},
		"the path in another spelling":         {http.MethodGet, strings.Replace(right, "/callback", "/%63allback", 1), c.uri.Host, http.StatusNotFound},
		"another state":                        {http.MethodGet, base + "?code=hush-code&state=other", c.uri.Host, http.StatusBadRequest},
		"no state":                             {http.MethodGet, base + "?code=hush-code", c.uri.Host, http.StatusBadRequest},
		"two states":                           {http.MethodGet, right + "&state=other", c.uri.Host, http.StatusBadRequest},
		"neither code nor error":               {http.MethodGet, base + "?state=st4te", c.uri.Host, http.StatusBadRequest},
	} {
		got := send(t, row.method, row.url, row.host)
		if got.status != row.status || strings.Contains(got.body, "hush") || strings.Contains(got.body, "st4te") {
			t.Errorf("%s: got %d %q, want %d and nothing of the request", name, got.status, got.body, row.status)
		}
	}
	select {
	case <-c.caught:
		t.Fatal("one of them was taken")
	default:
	}
	got := send(t, http.MethodGet, right, c.uri.Host)
	if whole := <-c.caught; whole != right {
		t.Error("the answer was not handed on as it came")
	}
	if to := got.header.Get("Location"); got.status != http.StatusSeeOther || to != donePath {
		t.Errorf("got %d to %q, want the browser to be sent to a path without the code", got.status, to)
	}
	if got := send(t, http.MethodGet, right, c.uri.Host); got.status != http.StatusConflict {
		t.Errorf("got %d for a second answer, want %d", got.status, http.StatusConflict)
	}
}

func TestTheLastPageIsHarmlessAndSaysHowItWent(t *testing.T) {
	for good, want := range map[bool]string{true: "<h1>Connected</h1>", false: "<h1>That did not work</h1>"} {
		c := catching(t, "http://localhost:{port}/")
		go c.ended(t.Context(), good)
		got := send(t, http.MethodGet, "http://"+c.uri.Host+donePath, c.uri.Host)
		if !strings.Contains(got.body, want) || !strings.Contains(got.body, "You can close this window.") {
			t.Errorf("got %q, want %q", got.body, want)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8"} {
			if is := got.header.Get(name); is != want {
				t.Errorf("%s: got %q, want %q", name, is, want)
			}
		}
		if csp := got.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("got the policy %q", csp)
		}
		<-c.shown
	}
}

func TestTheRedirectURIIsThatOfTheProvider(t *testing.T) {
	c := catching(t, "http://[::1]:{port}/cb") // ::1 is there on each machine that tests run on
	if !strings.HasPrefix(c.uri.String(), "http://[::1]:") || c.uri.Port() == "0" {
		t.Errorf("got %s", c.uri)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := listen(t.Context(), "http://"+taken.Addr().String()+"/cb", 0); err == nil || !strings.Contains(err.Error(), "can't listen on "+taken.Addr().String()) {
		t.Errorf("got %v, want that the port is taken", err)
	}
	if _, err := listen(t.Context(), "http://127.0.0.1:8400/cb", 8401); err == nil || !strings.Contains(err.Error(), "--port") {
		t.Errorf("got %v, want that the port can't be chosen", err)
	}
}
