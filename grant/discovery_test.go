package grant_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// memory is a cache that may fail.
type memory struct {
	mu   sync.Mutex
	kept map[string][]byte
	err  error
}

func (m *memory) Metadata(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept[name], m.err
}

func (m *memory) PutMetadata(_ context.Context, name string, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.kept[name] = document
	}
	return m.err
}

func newMemory() *memory { return &memory{kept: map[string][]byte{}} }

// discovering is a profile of which the issuer is all that is known.
func discovering(t *testing.T, f *fake) provider.Profile {
	t.Helper()
	return provider.Profile{Issuer: f.URL, Discover: new(true), AllowPrivate: true, CAFile: caFile(t, f.Server)}
}

// document is a metadata document of the fake.
func (f *fake) document(more string) string {
	return fmt.Sprintf(`{"issuer":%q,"token_endpoint":"%[1]s/token","authorization_endpoint":"%[1]s/authorize","jwks_uri":"%[1]s/jwks",`+
		`"revocation_endpoint":"%[1]s/revoke","introspection_endpoint":"%[1]s/introspect","userinfo_endpoint":"%[1]s/userinfo",`+
		`"device_authorization_endpoint":"%[1]s/device","authorization_response_iss_parameter_supported":true%s}`, f.URL, more)
}

const (
	oauthPlace = "/.well-known/oauth-authorization-server"
	oidcPlace  = "/.well-known/openid-configuration"
)

// refresh looks at the metadata and expects a report on one provider.
func refreshOnce(t *testing.T, c *grant.Client, cache grant.MetadataCache) grant.MetadataReport {
	t.Helper()
	reports := c.RefreshMetadata(t.Context(), cache)
	if len(reports) != 1 || reports[0].Provider != "acme" {
		t.Fatalf("got reports %+v, want one", reports)
	}
	return reports[0]
}

func TestMetadataFillsWhatAProfileLeavesOpen(t *testing.T) {
	for _, place := range []string{oauthPlace, oidcPlace} {
		t.Run(place, func(t *testing.T) {
			f := newFake(t)
			f.on(place, 200, f.document(""))
			f.on("/token", 200, plainReply)
			f.on("/device", 200, fmt.Sprintf(deviceReply, ""))
			f.on("/revoke", 200, "")
			f.on("/introspect", 200, `{"active":true}`)
			c := newClient(t, discovering(t, f))
			if report := refreshOnce(t, c, newMemory()); report.Err != nil || !report.Taken || len(report.Refused) != 0 {
				t.Fatalf("got %+v", report)
			}
			_, exchanged := c.Exchange(t.Context(), ccRequest())
			to, authorized := c.AuthorizationURL(authorization())
			_, started := c.StartDevice(t.Context(), deviceRequest())
			revoked := c.Revoke(t.Context(), revokeRequest(tokenbroker.RefreshTokenKind))
			verdict, checked := c.Check(t.Context(), checkRequest("at"))
			if err := errors.Join(exchanged, authorized, started, revoked, checked); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(to, f.URL+"/authorize?") || verdict.Method != tokenbroker.CheckIntrospection {
				t.Errorf("got %s, %+v", to, verdict)
			}
			if err := c.CheckCallback("acme", url.Values{"code": {"x"}}); failureOf(t, err).Code != "iss_missing" {
				t.Errorf("the issuer that the metadata promises may be missing: %v", err)
			}
		})
	}
}

func TestWhereMetadataIs(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://login.example.com":       "/.well-known/oauth-authorization-server /.well-known/openid-configuration",
		"https://login.example.com/":      "/.well-known/oauth-authorization-server /.well-known/openid-configuration",
		"https://login.example.com/a/b":   "/.well-known/oauth-authorization-server/a/b /a/b/.well-known/openid-configuration",
		"https://login.example.com/a%2Fb": "/.well-known/oauth-authorization-server/a%2Fb /a%2Fb/.well-known/openid-configuration",
	} {
		var asked []string
		c := newClient(t, provider.Profile{Issuer: issuer, Discover: new(true)}, func(cfg *grant.Config) {
			cfg.Transport = func(string) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					asked = append(asked, r.URL.EscapedPath())
					return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
				})
			}
		})
		refreshOnce(t, c, newMemory())
		if got := strings.Join(asked, " "); got != want {
			t.Errorf("%s: asked at %s, want %s", issuer, got, want)
		}
	}
}

func TestMetadataThatIsNotTaken(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   func(*fake) string
		code   string
	}{
		{name: "of another issuer", status: 200, body: func(*fake) string {
			return `{"issuer":"https://evil.example","token_endpoint":"https://evil.example/t"}`
		}, code: "wrong_issuer"},
		{name: "of an issuer with a slash more", status: 200, body: func(f *fake) string { return `{"issuer":"` + f.URL + `/"}` }, code: "wrong_issuer"},
		{name: "of two issuers", status: 200, body: func(f *fake) string { return f.document(`,"issuer":"https://evil.example"`) }, code: "bad_metadata"},
		{name: "of nobody", status: 200, body: func(*fake) string { return `{}` }, code: "bad_metadata"},
		{name: "that is a page", status: 200, body: func(*fake) string { return `<html>` }, code: "bad_metadata"},
		{name: "that is cut", status: 200, body: func(f *fake) string { return strings.TrimSuffix(f.document(""), "}") }, code: "bad_metadata"},
		{name: "that is endless", status: 200, body: func(f *fake) string { return f.document(`,"x":"` + strings.Repeat("y", 300<<10) + `"`) }, code: "reply_too_large"},
		{name: "elsewhere", status: 302, body: func(f *fake) string { return f.document("") }, code: "http_302"},
		{name: "not there", status: 404, body: func(*fake) string { return "" }, code: "http_404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on(oauthPlace, tt.status, tt.body(f), "Location", f.URL+"/elsewhere")
			f.on(oidcPlace, tt.status, tt.body(f), "Location", f.URL+"/elsewhere")
			c, cache := newClient(t, discovering(t, f)), newMemory()
			report := refreshOnce(t, c, cache)
			if got := failureOf(t, report.Err); got.Code != tt.code || report.Taken || len(cache.kept) != 0 {
				t.Errorf("got %+v, %+v, want %s", report, got, tt.code)
			}
			_, err := c.Exchange(t.Context(), ccRequest())
			if got := failureOf(t, err); got.Code != "discovery_pending" || got.Class != transient || got.Sent {
				t.Errorf("got %+v, want discovery_pending", got)
			}
			if len(f.requests("/elsewhere")) != 0 {
				t.Error("a redirect was followed")
			}
		})
	}
}

func TestWithoutMetadataEverythingWaits(t *testing.T) {
	f := newFake(t)
	c := newClient(t, discovering(t, f))
	_, authorized := c.AuthorizationURL(authorization())
	_, redeemed := c.Redeem(t.Context(), codeRequest())
	_, started := c.StartDevice(t.Context(), deviceRequest())
	revoked := c.Revoke(t.Context(), revokeRequest(tokenbroker.RefreshTokenKind))
	_, checked := c.Check(t.Context(), checkRequest("at"))
	for i, err := range []error{authorized, redeemed, started, revoked, checked} {
		if got := failureOf(t, err); got.Code != "discovery_pending" || got.Class != transient || got.Sent {
			t.Errorf("%d: got %+v, want discovery_pending", i, got)
		}
	}
}

func TestAnEndpointOnAnotherHostIsNotTakenInSilence(t *testing.T) {
	f := newFake(t)
	other := newFake(t)
	f.on(oauthPlace, 200, strings.ReplaceAll(f.document(""), f.URL+"/token", other.URL+"/token"))
	c := newClient(t, discovering(t, f))
	report := refreshOnce(t, c, newMemory())
	host := strings.TrimPrefix(other.URL, "https://")
	if !report.Taken || len(report.Refused) != 1 || !strings.Contains(report.Refused[0].Error(), "token_endpoint: is on "+host) {
		t.Errorf("got %+v, want a word on %s", report, host)
	}
	_, err := c.Exchange(t.Context(), ccRequest())
	if got := failureOf(t, err); got.Code != "token_endpoint_missing" || got.Class != config || len(other.requests("/token")) != 0 {
		t.Errorf("got %+v", got)
	}

	p := discovering(t, f)
	p.UserinfoEndpoint = other.URL + "/userinfo"
	if report := refreshOnce(t, newClient(t, p), newMemory()); !report.Taken || len(report.Refused) != 0 {
		t.Errorf("got %+v, though the profile names the host", report)
	}
}

func TestWhatAProfileGivesStays(t *testing.T) {
	f := newFake(t)
	f.on(oauthPlace, 200, f.document(""))
	f.on("/mine", 200, plainReply)
	p := discovering(t, f)
	p.TokenEndpoint = f.URL + "/mine"
	c := newClient(t, p)
	for range 2 {
		if _, err := c.Exchange(t.Context(), ccRequest()); err != nil {
			t.Fatal(err)
		}
		c.RefreshMetadata(t.Context(), newMemory())
	}
	if got := len(f.requests("/mine")); got != 2 {
		t.Errorf("the profile's endpoint was asked %d times, want twice", got)
	}
}

func TestAStartNeedsNoNetworkWithACopy(t *testing.T) {
	f := newFake(t)
	f.on(oauthPlace, 200, f.document(""))
	f.on("/token", 200, plainReply)
	cache := newMemory()
	refreshOnce(t, newClient(t, discovering(t, f)), cache)

	again := newClient(t, discovering(t, f))
	if err := again.LoadMetadata(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Exchange(t.Context(), ccRequest()); err != nil {
		t.Error(err)
	}
	if reports := again.RefreshMetadata(t.Context(), cache); len(reports) != 0 || len(f.requests(oauthPlace)) != 1 {
		t.Errorf("a fresh copy was fetched again: %+v", reports)
	}

	for name, copied := range map[string]string{"junk": "junk", "no document": `{"fetched":"2026-01-01T00:00:00Z"}`, "half": `{"document":{"issuer":`} {
		cache.kept["acme"] = []byte(copied)
		if err := newClient(t, discovering(t, f)).LoadMetadata(t.Context(), cache); err == nil {
			t.Errorf("%s: a copy that can't be read is no error", name)
		}
	}
	cache.kept["acme"] = []byte(`{"fetched":"2026-01-01T00:00:00Z","document":{"issuer":"https://earlier.example","token_endpoint":"https://earlier.example/t"}}`)
	moved := newClient(t, discovering(t, f))
	if err := moved.LoadMetadata(t.Context(), cache); err != nil {
		t.Error(err)
	}
	_, err := moved.Exchange(t.Context(), ccRequest())
	if got := failureOf(t, err); got.Code != "discovery_pending" {
		t.Errorf("got %+v: another issuer's copy is in use", got)
	}
	cache.err = errors.New("broken disk")
	if err := newClient(t, discovering(t, f)).LoadMetadata(t.Context(), cache); err == nil || !strings.Contains(err.Error(), "broken disk") {
		t.Errorf("got %v", err)
	}
}

func TestMetadataIsUsedThoughItCannotBeKept(t *testing.T) {
	f := newFake(t)
	f.on(oauthPlace, 200, f.document(""))
	f.on("/token", 200, plainReply)
	c := newClient(t, discovering(t, f))
	report := refreshOnce(t, c, &memory{err: errors.New("broken disk")})
	if !report.Taken || report.Err == nil {
		t.Errorf("got %+v", report)
	}
	if _, err := c.Exchange(t.Context(), ccRequest()); err != nil {
		t.Error(err)
	}
}

// TestTheLastGoodCopyIsKept runs days of a broker that asks every minute, in a bubble.
func TestTheLastGoodCopyIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const issuer = "https://login.example.com"
		good := `{"issuer":"` + issuer + `","token_endpoint":"` + issuer + `/token"}`
		asked, status := 0, 503
		c := newClient(t, provider.Profile{Issuer: issuer, Discover: new(true)}, func(cfg *grant.Config) {
			cfg.Transport = func(string) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(good)), Request: r}
					switch r.URL.Path {
					case "/token":
						resp.StatusCode, resp.Body = http.StatusOK, io.NopCloser(strings.NewReader(plainReply))
					case oauthPlace:
						asked++
					}
					return resp, nil
				})
			}
		})
		run := func(d time.Duration) int {
			before, cache := asked, newMemory()
			for range int(d / time.Minute) {
				c.RefreshMetadata(t.Context(), cache)
				time.Sleep(time.Minute)
			}
			return asked - before
		}
		if got := run(10 * time.Minute); got != 10 {
			t.Errorf("without a copy: asked %d times in 10 minutes, want 10", got)
		}
		status = 200
		if got := run(48 * time.Hour); got != 2 {
			t.Errorf("with a copy: asked %d times in two days, want 2", got)
		}
		status = 503
		if got := run(2 * time.Hour); got != 8 {
			t.Errorf("while it fails: asked %d times in 2 hours, want 8", got)
		}
		if _, err := c.Exchange(t.Context(), ccRequest()); err != nil {
			t.Errorf("failing discovery stops exchanges: %v", err)
		}
	})
}

func TestLooksDoNotOverlap(t *testing.T) {
	f := newFake(t)
	started, release := make(chan struct{}), make(chan struct{})
	f.handle(oauthPlace, func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-release
		_, _ = io.WriteString(w, f.document(""))
	})
	c := newClient(t, discovering(t, f))
	var wg sync.WaitGroup
	wg.Go(func() { c.RefreshMetadata(t.Context(), newMemory()) })
	<-started
	if got := c.RefreshMetadata(t.Context(), newMemory()); len(got) != 0 {
		t.Errorf("a second look reports %+v", got)
	}
	close(release)
	wg.Wait()
	if got := len(f.requests(oauthPlace)); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

func TestUnknownKeysAreLookedForAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newSigner(t, "old"), newSigner(t, "new")
		body, asked := jwks(t, old.public()), 0
		p := provider.Profile{TokenEndpoint: "https://login.example.com/token", JWKSURI: "https://login.example.com/jwks"}
		c := newClient(t, p, func(cfg *grant.Config) {
			cfg.Transport = func(string) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					asked++
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
				})
			}
		})
		claims := map[string]any{"sub": "17"}
		check := func(s signer, want string, fetches int) {
			t.Helper()
			got, err := c.Check(t.Context(), checkRequest(s.sign(t, s.id, claims)))
			if err != nil || got.Code != want || asked != fetches {
				t.Errorf("got %q, %v after %d fetches, want %q after %d", got.Code, err, asked, want, fetches)
			}
		}
		check(old, "", 1)
		body = jwks(t, fresh.public())
		check(fresh, "unknown_key", 1)
		time.Sleep(time.Minute)
		check(fresh, "", 2)
		check(old, "unknown_key", 2)
		time.Sleep(9 * time.Minute)
		check(fresh, "", 2)
		time.Sleep(time.Minute)
		check(fresh, "", 3)
	})
}
