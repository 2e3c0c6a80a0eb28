package grant_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// answering is a client of one provider whose answers are taken from a channel, one for each request.
func answering(t testing.TB, p provider.Profile, answers chan string) *grant.Client {
	t.Helper()
	cat, err := provider.New(map[string]provider.Profile{"acme": p})
	if err != nil {
		t.Fatal(err)
	}
	c, err := grant.New(grant.Config{Catalogue: cat, Transport: func(string) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Body != nil {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return nil, err
				}
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(<-answers)), Request: r}, nil
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checkFailure holds an error against what is promised of every one.
func checkFailure(t *testing.T, err error) {
	t.Helper()
	var f *tokenbroker.Failure
	if !errors.As(err, &f) || f.Class == "" || f.Code == "" || len(f.Code) > 64 || f.RetryAfter < 0 || f.RetryAfter > time.Hour {
		t.Errorf("failure %+v", f)
	}
	if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(refreshCanary)) || strings.ContainsAny(err.Error(), "\r\n\x00") {
		t.Errorf("error %q", err)
	}
}

// checkShown holds a text that is shown to people against what is promised of it.
func checkShown(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if len(s) > 2<<10 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
			t.Errorf("text %q", s)
		}
	}
}

func FuzzIDToken(f *testing.F) {
	const issuer = "https://login.example.com"
	for _, claims := range []string{
		"", "{}", "[]", "null", `{"iss":"` + issuer + `","aud":"the client:1","exp":99999999999,"nonce":"the nonce","email":"a@example.com"}`,
		`{"iss":"` + issuer + `","aud":["x","the client:1"],"azp":"the client:1","exp":"99999999999","nonce":"the nonce","sub":17}`,
		`{"iss":"` + issuer + `","aud":"the client:1","aud":"y","exp":1e300,"nonce":"the nonce","email":"\u001b[2J"}`,
	} {
		f.Add(`{"alg":"RS256"}`, claims)
	}
	f.Add(`{"alg":"none"}`, `{"iss":"`+issuer+`"}`)
	answers := make(chan string, 1)
	c := answering(f, provider.Profile{TokenEndpoint: issuer + "/token", Issuer: issuer, Account: []string{"id_token.email", "id_token.sub"}}, answers)
	f.Fuzz(func(t *testing.T, head, claims string) {
		token := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
		answers <- `{"access_token":"at","refresh_token":"r1","expires_in":60,"id_token":"` + token + `"}`
		out, err := c.Redeem(t.Context(), codeRequest("openid"))
		if out.RefreshToken.Reveal() != "r1" {
			t.Error("the refresh token is lost")
		}
		if err != nil {
			checkFailure(t, err)
			return
		}
		checkShown(t, out.Account)
		if !strings.Contains(claims, "the client:1") && !strings.Contains(claims, `\u`) {
			t.Errorf("accepted %s", claims)
		}
	})
}

func FuzzDeviceReply(f *testing.F) {
	for _, body := range []string{
		"", "{}", "<html>", `{"device_code":"d","user_code":"U","verification_uri":"https://e.example","expires_in":900,"interval":5}`,
		`{"device_code":"d","user_code":"U","verification_url":"https://e.example","verification_uri_complete":"https://e.example?u=U","expires_in":"1e9"}`,
		`{"error":"device_flow_disabled"}`, "device_code=d&user_code=U&verification_uri=https%3A%2F%2Fe.example&expires_in=900&error=",
	} {
		f.Add(body)
	}
	answers := make(chan string, 1)
	p := provider.Profile{TokenEndpoint: "https://login.example.com/token", DeviceAuthorizationEndpoint: "https://login.example.com/device"}
	c := answering(f, p, answers)
	f.Fuzz(func(t *testing.T, body string) {
		answers <- body
		got, err := c.StartDevice(t.Context(), deviceRequest())
		if err != nil {
			checkFailure(t, err)
			return
		}
		checkShown(t, got.UserCode, got.VerificationURI, got.VerificationURIComplete)
		for _, raw := range []string{got.VerificationURI, got.VerificationURIComplete} {
			if u, err := url.Parse(raw); err != nil || raw != "" && u.Scheme != "https" {
				t.Errorf("URI %q", raw)
			}
		}
		life := time.Until(got.Expiry)
		if got.DeviceCode.IsZero() || got.UserCode == "" || got.VerificationURI == "" || got.Interval < time.Second || got.Interval > 5*time.Minute || life > 24*time.Hour {
			t.Errorf("got %+v", got)
		}
	})
}

func FuzzIntrospection(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"active":true}`, `{"active":false}`, `{"active":true,"active":false}`, `{"active":true,"exp":1e400,"scope":["a",1],"aud":[{}],"sub":{}}`,
		`{"active":true,"exp":-1,"scope":"a b\u0000","aud":"\ud800","username":"\u009b"}`, `{"error":"` + refreshCanary + `"}`,
	} {
		f.Add(body)
	}
	answers := make(chan string, 1)
	p := provider.Profile{TokenEndpoint: "https://login.example.com/token", IntrospectionEndpoint: "https://login.example.com/introspect"}
	c := answering(f, p, answers)
	f.Fuzz(func(t *testing.T, body string) {
		answers <- body
		got, err := c.Check(t.Context(), checkRequest(refreshCanary))
		if err != nil {
			checkFailure(t, err)
			return
		}
		checkShown(t, append(append([]string{got.Account, got.Code}, got.Scopes...), got.Audience...)...)
		if got.Method != tokenbroker.CheckIntrospection || got.Active != (got.Code == "") || got.Active && !strings.Contains(body, "true") {
			t.Errorf("got %+v of %q", got, body)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	const issuer = "https://login.example.com"
	for _, body := range []string{
		"", "{}", `{"issuer":"` + issuer + `"}`, `{"issuer":"` + issuer + `/"}`, `{"issuer":"` + issuer + `","token_endpoint":"` + issuer + `/token"}`,
		`{"issuer":"` + issuer + `","token_endpoint":"http://login.example.com/token","jwks_uri":"https://evil.example"}`,
		`{"issuer":"` + issuer + `","token_endpoint":"https://login.example.com@evil.example/","revocation_endpoint":"https://169.254.169.254/"}`,
	} {
		f.Add(body)
	}
	p := provider.Profile{Issuer: issuer, Discover: new(true)}
	f.Fuzz(func(t *testing.T, body string) {
		answers := make(chan string, 2)
		c, cache := answering(t, p, answers), newMemory()
		answers <- body
		answers <- body
		report := c.RefreshMetadata(t.Context(), cache)[0]
		if report.Taken != (report.Err == nil) || report.Taken != (len(cache.kept) == 1) {
			t.Fatalf("got %+v", report)
		}
		for _, err := range append(report.Refused, report.Err) {
			if err != nil {
				checkShown(t, err.Error())
			}
		}
		if to, err := c.AuthorizationURL(authorization()); err == nil && !strings.HasPrefix(to, issuer+"/") && !strings.HasPrefix(to, issuer+"?") {
			t.Errorf("a person is sent to %s", to)
		}
		again := answering(t, p, answers)
		if err := again.LoadMetadata(t.Context(), cache); err != nil {
			t.Errorf("what was taken can't be read again: %v", err)
		}
	})
}
