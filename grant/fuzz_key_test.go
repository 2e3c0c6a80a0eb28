package grant_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// FuzzParseKey throws texts at the reader of keys. What it takes must sign; what it refuses must be a Problem that quotes nothing.
func FuzzParseKey(f *testing.F) {
	p256 := ecKey(f, elliptic.P256())
	chain, _ := certify(f, p256, nil)
	for _, text := range []string{
		"", "{", `{"kty":"oct"}`, `{"kty":"EC","crv":"P-256","d":"AA","x":"AA","y":"AA"}`, `{"kty":"RSA","n":"AQ","e":"AQ","d":"AQ","p":"AQ","q":"AQ"}`,
		`{"keys":[null]}`, `{"type":"service_account","private_key":"-----BEGIN ","client_email":"@"}`, "-----BEGIN A-----x-----END A-----",
		`-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----`, "0\x82", "eyJ", sec1(f, p256), pkcs8(f, edKey(f)), privateJWK(f, p256, nil),
	} {
		f.Add(text, chain)
		f.Add(text, "")
	}
	cat, err := provider.New(map[string]provider.Profile{"acme": google()})
	if err != nil {
		f.Fatal(err)
	}
	c, err := grant.New(grant.Config{Catalogue: cat})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, chain string) {
		k, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(text), Certificate: chain, Provider: "acme"})
		if err != nil {
			var p *tokenbroker.Problem
			if !errors.As(err, &p) || p.Field == "" || p.Detail == "" || strings.ContainsAny(p.Detail, "\r\n\x00") || !k.Secret.Secret.IsZero() {
				t.Fatalf("got %v", err)
			}
			return
		}
		block, _ := pem.Decode([]byte(k.Secret.Secret.Reveal()))
		if block == nil {
			t.Fatal("the key is not kept in PEM")
		}
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
		r := tokenbroker.OAuthClient{Provider: "acme", ClientID: "x", Auth: tokenbroker.AuthServiceAccount, Secrets: []tokenbroker.ClientSecret{k.Secret}}
		if err := c.ValidateClient(r); err != nil || k.Secret.Fingerprint == "" || k.Secret.Algorithm == "" {
			t.Errorf("taken and not usable: %v", err)
		}
	})
}
