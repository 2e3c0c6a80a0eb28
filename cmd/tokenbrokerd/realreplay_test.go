package main_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// recorder keeps the bodies of requests on their way.
type recorder struct {
	next   http.RoundTripper
	bodies []string
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r.bodies = append(r.bodies, string(body))
	again := req.Clone(req.Context())
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return r.next.RoundTrip(again)
}

func TestRealServerRefusesAnAssertionTwiceAndTakesEachOfOurs(t *testing.T) {
	t.Parallel()
	key, jwks := clientKey(t)
	o := startOIDC(t, 60e9, "OIDC_CLIENT_JWKS="+jwks)
	catalogue, err := provider.New(map[string]provider.Profile{"oidc": {TokenEndpoint: o.issuer + "/token", AllowPrivate: true}})
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{next: o.http.Transport}
	c, err := grant.New(grant.Config{Catalogue: catalogue, Transport: func(string) http.RoundTripper { return rec }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	parsed, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(key), KeyID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	r := tokenbroker.ExchangeRequest{Secret: parsed.Secret,
		Credential: tokenbroker.Credential{Provider: "oidc", Grant: tokenbroker.GrantClientCredentials, Scopes: []string{"reports.read"}},
		Client:     tokenbroker.OAuthClient{Provider: "oidc", ClientID: "key-jwt", Auth: tokenbroker.AuthPrivateKeyJWT}}
	for range 2 {
		if _, err := c.Exchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.issuer+"/token", strings.NewReader(rec.bodies[0]))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := o.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusUnauthorized || !bytes.Contains(text, []byte("invalid_client")) {
		t.Errorf("the same assertion again: got HTTP %d %s, want invalid_client", resp.StatusCode, text)
	}
}
