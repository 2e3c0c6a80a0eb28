package consent_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

func TestBeginRefusesWhatCanNotBe(t *testing.T) {
	ok := tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLoopback, RedirectURI: loopback}
	for _, tt := range []struct {
		name   string
		change func(w *world, b *tokenbroker.BeginConsent)
		want   error
	}{
		{"as it should be", func(*world, *tokenbroker.BeginConsent) {}, nil},
		{"no flow", func(_ *world, b *tokenbroker.BeginConsent) { b.Flow = "" }, tokenbroker.ErrInvalidArgument},
		{"no credential", func(_ *world, b *tokenbroker.BeginConsent) { b.Credential = "acme/none" }, tokenbroker.ErrNotFound},
		{"a grant that nobody consents to", func(_ *world, b *tokenbroker.BeginConsent) { b.Credential = "acme/job" }, tokenbroker.ErrGrantNotSupported},
		{"a device grant by loopback", func(_ *world, b *tokenbroker.BeginConsent) { b.Credential = "acme/device" }, tokenbroker.ErrGrantNotSupported},
		{"a code grant by device", func(_ *world, b *tokenbroker.BeginConsent) { b.Flow, b.RedirectURI = tokenbroker.FlowDevice, "" }, tokenbroker.ErrGrantNotSupported},
		{"an imported grant", func(_ *world, b *tokenbroker.BeginConsent) { b.Credential = "acme/import" }, nil},
		{"an imported grant without an authorization endpoint", func(w *world, b *tokenbroker.BeginConsent) {
			b.Credential, w.profile.AuthorizationEndpoint = "acme/import", ""
		}, tokenbroker.ErrConsentNotOffered},
		{"no device endpoint", func(w *world, b *tokenbroker.BeginConsent) {
			b.Credential, b.Flow, b.RedirectURI, w.profile.DeviceAuthorizationEndpoint = "acme/device", tokenbroker.FlowDevice, "", ""
		}, tokenbroker.ErrConsentNotOffered},
		{"no redirect URI", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "" }, tokenbroker.ErrInvalidArgument},
		{"localhost by name", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "http://localhost:40123/callback" }, tokenbroker.ErrInvalidArgument},
		{"port 0", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "http://127.0.0.1:0/callback" }, tokenbroker.ErrInvalidArgument},
		{"a port too high", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "http://127.0.0.1:65536/callback" }, tokenbroker.ErrInvalidArgument},
		{"a port with a sign", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "http://127.0.0.1:+80/callback" }, tokenbroker.ErrInvalidArgument},
		{"a host behind the port", func(_ *world, b *tokenbroker.BeginConsent) {
			b.RedirectURI = "http://127.0.0.1:80@evil.example/callback"
		}, tokenbroker.ErrInvalidArgument},
		{"another's site", func(_ *world, b *tokenbroker.BeginConsent) { b.RedirectURI = "https://evil.example/callback" }, tokenbroker.ErrInvalidArgument},
		{"the port that is registered", func(w *world, b *tokenbroker.BeginConsent) { w.profile.LoopbackRedirect = loopback }, nil},
		{"another port than the registered one", func(w *world, b *tokenbroker.BeginConsent) {
			w.profile.LoopbackRedirect = "http://127.0.0.1:9/callback"
		}, tokenbroker.ErrInvalidArgument},
		{"no loopback at all", func(w *world, b *tokenbroker.BeginConsent) { w.profile.LoopbackRedirect = "none" }, tokenbroker.ErrConsentNotOffered},
		{"a link with a redirect URI", func(_ *world, b *tokenbroker.BeginConsent) { b.Flow = tokenbroker.FlowLink }, tokenbroker.ErrInvalidArgument},
		{"a link without a listener", func(w *world, b *tokenbroker.BeginConsent) {
			b.Flow, b.RedirectURI = tokenbroker.FlowLink, ""
			w.config = func(c *consent.Config) { c.PublicURL = "" }
			w.restart()
		}, tokenbroker.ErrConsentNotOffered},
		{"a malformed scope", func(_ *world, b *tokenbroker.BeginConsent) { b.Scopes = []string{"a b"} }, tokenbroker.ErrInvalidArgument},
		{"another account without a name", func(_ *world, b *tokenbroker.BeginConsent) { b.ReplaceAccount = true }, tokenbroker.ErrInvalidArgument},
		{"an account where the provider names none", func(w *world, b *tokenbroker.BeginConsent) {
			b.ExpectedAccount, w.profile.Account = "ann@acme.example", nil
		}, tokenbroker.ErrInvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				b := ok
				tt.change(w, &b)
				_, err := w.Begin(t.Context(), b)
				wantErr(t, err, tt.want)
			})
		})
	}
}

func TestAStateIsLongAndOfOneConsentAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		seen := map[string]bool{}
		for range 10 {
			u, _ := url.Parse(w.beginLoopback().AuthorizationURL)
			_, secret, _ := strings.Cut(u.Query().Get("state"), ".")
			if len(secret) != 43 || seen[secret] { // 32 bytes in base64url
				t.Errorf("a state of %d characters, seen before: %v", len(secret), seen[secret])
			}
			seen[secret] = true
		}
	})
}

func TestPasteFillsAPortIn(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowPaste})
		var port int
		if _, err := fmt.Sscanf(start.Consent.RedirectURI, "http://127.0.0.1:%d/callback", &port); err != nil || port < 49152 {
			t.Errorf("redirect URI %q", start.Consent.RedirectURI)
		}
		if _, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL)); err != nil {
			t.Error(err)
		}
	})
}

func TestPendingConsentsAreBounded(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.config = func(c *consent.Config) { c.PerIdentity, c.InAll = 3, 5 }
		w.restart()
		begin := func(who string) (tokenbroker.ConsentStart, error) {
			return w.Begin(t.Context(), tokenbroker.BeginConsent{Credential: "acme/code", Identity: who, Flow: tokenbroker.FlowLink})
		}
		var last tokenbroker.ConsentStart
		for range 3 {
			var err error
			if last, err = begin("a"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := begin("a")
		wantErr(t, err, tokenbroker.ErrTooMany)
		for range 2 {
			if _, err := begin("b"); err != nil {
				t.Fatal(err)
			}
		}
		_, err = begin("b")
		wantErr(t, err, tokenbroker.ErrTooMany)
		if _, err := w.Cancel(t.Context(), last.Consent.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := begin("a"); err != nil {
			t.Errorf("after one was cancelled: %v", err)
		}
	})
}

func TestConsentsAreListedNewestFirstForWhomTheyConcern(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		a := w.beginLoopback()
		b := w.begin(tokenbroker.BeginConsent{Credential: "acme/import", Identity: operator, Flow: tokenbroker.FlowLink})
		all := func(string) bool { return true }
		list, err := w.Consents(t.Context(), "", all)
		if err != nil || len(list) != 2 {
			t.Fatalf("got %d (%v), want 2", len(list), err)
		}
		list, _ = w.Consents(t.Context(), "acme/code", all)
		if len(list) != 1 || list[0].ID != a.Consent.ID {
			t.Errorf("of acme/code: %d", len(list))
		}
		list, _ = w.Consents(t.Context(), "", func(name string) bool { return name == "acme/import" })
		if len(list) != 1 || list[0].ID != b.Consent.ID {
			t.Errorf("of what is allowed: %d", len(list))
		}
	})
}

func TestThePublicURLIsAnOrigin(t *testing.T) {
	for raw, good := range map[string]bool{"https://a.example": true, "https://a.example:8444": true, "http://a.example": false, "https://a.example/": false,
		"https://a.example/x": false, "https://u@a.example": false, "https://a.example?x": false, "https://": false, "a.example": false, "": false} {
		if _, err := consent.ParsePublicURL(raw); (err == nil) != good {
			t.Errorf("%q: %v", raw, err)
		}
	}
}
