package main_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// browser is a browser with an empty jar. It stops at redirects that leave the server.
func (w *realWorld) browser() *http.Client {
	b := *w.http
	b.Jar, _ = cookiejar.New(nil)
	return &b
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)

// confirm is a person who opens the link of a device code and confirms the code that is shown.
func (w *realWorld) confirm(t *testing.T, link string) {
	t.Helper()
	b := w.browser()
	page := text(t, b, http.MethodGet, link, nil)
	form := url.Values{"confirm": {"yes"}}
	for _, f := range hiddenField.FindAllStringSubmatch(page, -1) {
		form.Set(f[1], f[2])
	}
	if page = text(t, b, http.MethodPost, w.issuer+"/device", form); !strings.Contains(page, "Sign-in Success") {
		t.Fatalf("the server did not take the code:\n%s", page)
	}
}

func text(t *testing.T, b *http.Client, method, to string, form url.Values) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRealServerDeviceCode(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t, "OIDC_PERSON=alice")
	for _, id := range []string{"device", "public"} {
		name := w.credential(t, "example/device-"+id, &tokenbrokerv1.CredentialSpec{OauthClient: w.client(t, id),
			GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE, Scopes: []string{"reports.read"}})
		begun := w.consent(t, &tokenbrokerv1.BeginConsentRequest{Credential: name, Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE})
		if begun.GetUserCode() == "" {
			t.Fatalf("got %v, want a user code", begun)
		}
		w.confirm(t, begun.GetVerificationUriComplete())
		consents := tokenbrokerv1.NewConsentServiceClient(w.operator)
		eventually(t, "the consent of "+name+" is done", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := consents.GetConsent(ctx, &tokenbrokerv1.GetConsentRequest{ConsentId: begun.GetConsent().GetConsentId()})
			return err == nil && r.GetConsent().GetState() == tokenbrokerv1.ConsentState_CONSENT_STATE_DONE
		})
		tok, err := get(t, w.operator, name)
		if err != nil || !w.takesAny(tok.GetToken().GetAccessToken()) {
			t.Errorf("%s: got %v, want a token that the server takes", id, err)
		}
	}
}
