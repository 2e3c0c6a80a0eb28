package main_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/web/browsertest"
)

// shot keeps a picture where the environment asks for one.
func shot(b *browsertest.Browser, name string) {
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		b.Shot(filepath.Join(dir, name+".png"))
	}
}

func wantPage(t *testing.T, got browsertest.Standing, says ...string) {
	t.Helper()
	for _, s := range says {
		if !strings.Contains(got.Text, s) {
			t.Errorf("%.80s: got %d %q, want %q in it", got.URL, got.Status, got.Text, s)
		}
	}
}

// wantReadable checks what holds of a page of ours at any size: it does not scroll sideways, no font is tiny, and the browser found nothing
// that breaks the page's own policy.
func wantReadable(t *testing.T, got browsertest.Standing) {
	t.Helper()
	complaints := slices.DeleteFunc(got.Complaints, func(c string) bool { return strings.Contains(c, "the server responded with a status of 4") })
	if got.Wide || got.Smallest < 16 || len(complaints) != 0 {
		t.Errorf("%s: scrolls sideways: %v, smallest font %v px, complaints %v", got.Title, got.Wide, got.Smallest, complaints)
	}
}

// wantOwnRequests checks that a browser asked nobody but the two sites, and that our pages told nobody where they were.
func (w *browserWorld) wantOwnRequests(t *testing.T, got browsertest.Standing) {
	t.Helper()
	for _, r := range got.Asked {
		if !strings.HasPrefix(r.URL, w.public+"/") && !strings.HasPrefix(r.URL, w.issuer+"/") {
			t.Errorf("the browser asked %.60s", r.URL)
		}
		if strings.HasPrefix(r.Referer, w.public) {
			t.Errorf("%.60s was told that it comes from %.60s", r.URL, r.Referer)
		}
	}
	for _, l := range w.lines() {
		if l.Event == "authorization" && l.Referer != "" {
			t.Errorf("the server was told that somebody comes from %.60s", l.Referer)
		}
	}
}

// wantToken checks that a credential has a token that the server takes.
func (w *browserWorld) wantToken(t *testing.T, name string) {
	t.Helper()
	tok, err := get(t, w.operator, name)
	if err != nil || !w.takesAny(tok.GetToken().GetAccessToken()) {
		t.Errorf("%s: got %v, want a token that the server takes", name, err)
	}
}

// wantRefresh checks that a credential's refresh token is good.
func (w *browserWorld) wantRefresh(t *testing.T, name string) {
	t.Helper()
	creds := tokenbrokerv1.NewCredentialServiceClient(w.operator)
	eventually(t, "the grant of "+name+" brings a new token", func() bool { // once the least time since the last one is over
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := creds.RefreshCredential(ctx, &tokenbrokerv1.RefreshCredentialRequest{Credential: name})
		return err == nil
	})
	w.wantToken(t, name)
}

// wantLastGrantRevoked checks in the server's own record that what the last code brought is revoked.
func (w *browserWorld) wantLastGrantRevoked(t *testing.T) {
	t.Helper()
	last := ""
	for _, l := range w.lines() {
		if l.Event == "token" && l.GrantType == "authorization_code" && l.Status == http.StatusOK {
			last = l.Grant
		}
	}
	eventually(t, "the grant of the other account is revoked", func() bool {
		return slices.ContainsFunc(w.lines(), func(l oidcLine) bool { return l.Event == "grant.revoked" && l.Grant == last && last != "" })
	})
}

// serveCatcher answers at a redirect URI, which it returns.
func serveCatcher(t *testing.T, l net.Listener) string {
	t.Helper()
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("caught")) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "http://" + l.Addr().String() + "/callback"
}

func clientTemplate(path string) mtls.Template {
	return mtls.Template{SPIFFEID: "spiffe://tokenbroker.local/" + path, Client: true, NotAfter: time.Now().Add(time.Hour)}
}
