package dev_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
)

// apiOf is where the env file says that the API is.
func apiOf(t *testing.T, dir string) string {
	t.Helper()
	env, err := os.ReadFile(dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^export API='(http://127\.0\.0\.1:\d+/api)'$`).FindSubmatch(env)
	if found == nil || !strings.Contains(string(env), "export TOKENBROKER_LOOPBACK_HTTP=true\n") {
		t.Fatalf("the env file names no API that is called without further flags:\n%s", env)
	}
	return string(found[1])
}

// callAPI calls the API with a token, and returns the status, the challenge and the body.
func callAPI(t *testing.T, url, token string) (status int, challenge, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), string(text)
}

func TestANewcomerHasAnAPIToCall(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, false)
	r.await(t, "\nready\n")
	dir := r.folder(t)
	url, c := apiOf(t, dir), operator(t, dir)
	if !strings.Contains(r.String(), "$API is "+url) {
		t.Errorf("what is printed does not say that the API is %s", url)
	}
	for _, name := range []string{"reports", "billing", "drive", "crm"} {
		token, err := c.Token(t.Context(), "example/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"", "/", "/2026/11"} {
			if status, _, body := callAPI(t, url+"/"+name+path, token.AccessToken.Reveal()); status != 200 || !strings.Contains(body, `"client_id":"`+name+`"`) {
				t.Errorf("%s%s: got %d %s", name, path, status, body)
			}
		}
	}
	reports, err := c.Token(t.Context(), "example/reports")
	if err != nil {
		t.Fatal(err)
	}
	token := reports.AccessToken.Reveal()
	for _, row := range []struct {
		path, token string
		status      int
		challenge   string
	}{
		{"/reports", "", 401, `Bearer realm="sandbox"`},
		{"/reports", "unheard-of", 401, `Bearer realm="sandbox", error="invalid_token"`},
		{"/drive", token, 401, `Bearer realm="sandbox", error="invalid_token"`}, // of another provider
		{"/billing", token, 403, `Bearer realm="sandbox", error="insufficient_scope", scope="invoices.read"`},
		{"/nothing", token, 404, ""},
	} {
		if status, challenge, body := callAPI(t, url+row.path, row.token); status != row.status || challenge != row.challenge || strings.Contains(body, token) {
			t.Errorf("%s: got %d %q, want %d %q", row.path, status, challenge, row.status, row.challenge)
		}
	}
	r.noSecrets(t)
}
