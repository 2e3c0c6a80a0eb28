package grant_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// FuzzReply throws statuses, headers and bodies at the reader of replies, and checks what must hold of any of them.
func FuzzReply(f *testing.F) {
	for _, body := range []string{
		"", "{", "{}", "[]", "null", plainReply, "\xef\xbb\xbf" + plainReply + "x", "access_token=at&expires_in=60&error=",
		`{"access_token":"at","expires_in":1e999,"refresh_token":"r2","refresh_token_expires_in":"-0"}`,
		`{"access_token":"at","access_token":"b","refresh_token":"r2"}`, `{"a":{"access_token":"at"},"ok":false}`,
		`{"access_token":"a\u0000t","scope":["a",1]}`, `{"error":{"code":["x"]},"error_description":"` + replyCanary + `"}`,
		`{"error":"` + refreshCanary + `"}`, strings.Repeat(`{"a":`, 500), `{"` + "\xff" + `":1}`,
	} {
		f.Add(200, body, "60", uint8(0))
		f.Add(400, body, "Tue, 14 Nov 2023 22:13:20 GMT", uint8(1))
		f.Add(503, body, "99999999999999999999", uint8(2))
	}
	profiles := map[string]provider.Profile{
		"p0": {TokenEndpoint: "https://login.example.com/token"},
		"p1": {TokenEndpoint: "https://login.example.com/token", TokenPath: "a.b", OKField: "ok", ErrorPath: "e.c", ExpiryUnit: "ms", Metadata: []string{"a.x"}},
		"p2": {TokenEndpoint: "https://login.example.com/token", Downscopes: new(true), ScopeSeparator: ",", Errors: []provider.ErrorRule{{Description: "x+", Class: transient}}},
	}
	cat, err := provider.New(profiles)
	if err != nil {
		f.Fatal(err)
	}
	type canned struct {
		status     int
		body, wait string
	}
	answers := make(chan canned, 1)
	c, err := grant.New(grant.Config{Catalogue: cat, Transport: func(string) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			a := <-answers
			_, err := io.Copy(io.Discard, r.Body)
			return &http.Response{StatusCode: a.status, Header: http.Header{"Retry-After": {a.wait}}, Body: io.NopCloser(strings.NewReader(a.body))}, err
		})
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body, wait string, which uint8) {
		request := refreshRequest("a", "b")
		request.Credential.Provider = fmt.Sprintf("p%d", which%3)
		request.Client.Provider = request.Credential.Provider
		if which%3 == 2 {
			request.Variant = tokenbroker.NewVariant([]string{"a"}, "", "")
		}
		answers <- canned{status, body, wait}
		out, err := c.Exchange(t.Context(), request)
		checkReply(t, status, out, err)
		if err == nil && which%3 == 2 && fmt.Sprint(out.Token.Scopes) != "[a]" {
			t.Errorf("asked for a, got %v", out.Token.Scopes)
		}
	})
}

// checkReply holds a reply against what Exchange promises of every one.
func checkReply(t *testing.T, status int, out tokenbroker.ExchangeReply, err error) {
	t.Helper()
	if (err == nil) != (out.Token != nil) {
		t.Fatalf("token %v with error %v", out.Token, err)
	}
	if status/100 != 2 && (err == nil || !out.RefreshToken.IsZero()) {
		t.Errorf("status %d brought %v, %v", status, out.Token, out.RefreshToken.Reveal())
	}
	if rt := out.RefreshToken.Reveal(); len(rt) > tokenbroker.MaxSecretBytes || strings.ContainsFunc(rt, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("implausible refresh token %q", rt)
	}
	if err != nil {
		var f *tokenbroker.Failure
		if !errors.As(err, &f) || !f.Sent || f.Class == "" || f.Code == "" || len(f.Code) > 64 || f.RetryAfter < 0 || f.RetryAfter > time.Hour {
			t.Errorf("failure %+v", f)
		}
		if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(refreshCanary)) || strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("error %q", err)
		}
		return
	}
	at := out.Token.AccessToken.Reveal()
	if at == "" || strings.ContainsFunc(at, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("access token %q", at)
	}
	if life := out.Token.Life(); life <= 0 || life > year {
		t.Errorf("life %v", life)
	}
}
