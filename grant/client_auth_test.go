package grant_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// TestClientAssertions takes the assertions apart that stand in for a client secret (RFC 7523 §2.2 and §3).
func TestClientAssertions(t *testing.T) {
	const audience = "https://login.example.com/token"
	c, rec := recording(t, provider.Profile{Issuer: "https://login.example.com"})
	p256 := ecKey(t, elliptic.P256())
	shared := strings.Repeat("k", 32)
	for _, tt := range []struct {
		name   string
		method tokenbroker.AuthMethod
		secret tokenbroker.ClientSecret
		header map[string]any
		verify func(jwt, string)
	}{
		{"client_secret_jwt", tokenbroker.AuthClientSecretJWT, tokenbroker.ClientSecret{Secret: tokenbroker.NewSecret(shared)},
			map[string]any{"alg": "HS256", "typ": "JWT"}, func(j jwt, text string) {
				j.wantHS256(t, shared)
				wantNode(t, text, map[string]any{"kty": "oct", "k": b64.EncodeToString([]byte(shared))}, "HS256", "the client:1", audience)
			}},
		{"private_key_jwt, RSA", tokenbroker.AuthPrivateKeyJWT, parsed(t, c, serviceAccount(t)).Secret,
			map[string]any{"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}, func(j jwt, text string) {
				j.wantRS256(t, &rsaKey().PublicKey)
				wantNode(t, text, publicJWK(t, &rsaKey().PublicKey), "RS256", "the client:1", audience)
			}},
		{"private_key_jwt, EC", tokenbroker.AuthPrivateKeyJWT, parsed(t, c, sec1(t, p256)).Secret,
			map[string]any{"alg": "ES256", "typ": "JWT"}, func(j jwt, text string) {
				j.wantES256(t, &p256.PublicKey)
				wantNode(t, text, publicJWK(t, &p256.PublicKey), "ES256", "the client:1", audience)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ccRequest("a")
			r.Client.Auth, r.Secret = tt.method, tt.secret
			if _, err := c.Exchange(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			list := rec.requests()
			form := list[len(list)-1].form
			text := form.Get("client_assertion")
			form.Del("client_assertion")
			want := map[string][]string{"grant_type": {"client_credentials"}, "scope": {"a"}, "client_id": {"the client:1"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
			if diff := cmp.Diff(want, map[string][]string(form)); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			j := parseJWT(t, text)
			if diff := cmp.Diff(tt.header, j.header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if life := j.number(t, "exp") - j.number(t, "iat"); life <= 0 || life > 300 || j.number(t, "iat") > time.Now().Unix() {
				t.Errorf("it lives for %d s from %d", life, j.number(t, "iat"))
			}
			got := maps.Clone(j.claims)
			for _, timely := range []string{"iat", "exp", "jti"} {
				delete(got, timely)
			}
			if diff := cmp.Diff(map[string]any{"iss": "the client:1", "sub": "the client:1", "aud": audience}, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			tt.verify(j, text)
		})
	}
}

func TestOtherAlgorithmsVerify(t *testing.T) {
	c, rec := recording(t, provider.Profile{})
	p384, p521, ed := ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521()), edKey(t)
	for algorithm, key := range map[string]struct {
		text   string
		public any
	}{
		"ES384": {pkcs8(t, p384), &p384.PublicKey}, "ES512": {pkcs8(t, p521), &p521.PublicKey}, "EdDSA": {pkcs8(t, ed), ed.Public()},
	} {
		r := ccRequest("a")
		r.Client.Auth, r.Secret = tokenbroker.AuthPrivateKeyJWT, parsed(t, c, key.text).Secret
		if _, err := c.Exchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		list := rec.requests()
		wantNode(t, list[len(list)-1].form.Get("client_assertion"), publicJWK(t, key.public), algorithm, "the client:1", "https://login.example.com/token")
	}
}

func TestTheAudienceOfClientAssertionsIsTheProfiles(t *testing.T) {
	for rule, want := range map[string]string{"": "https://login.example.com/token", "token_endpoint": "https://login.example.com/token",
		"issuer": "https://login.example.com", "https://aud.example.com/x": "https://aud.example.com/x"} {
		c, rec := recording(t, provider.Profile{Issuer: "https://login.example.com", AssertionAudience: rule})
		r := ccRequest("a")
		r.Client.Auth, r.Secret = tokenbroker.AuthPrivateKeyJWT, parsed(t, c, serviceAccount(t)).Secret
		first, again := second(c.Exchange(t.Context(), r)), second(c.Exchange(t.Context(), r))
		if first != nil || again != nil {
			t.Fatal(first, again)
		}
		list := rec.requests()
		one, two := parseJWT(t, list[0].form.Get("client_assertion")), parseJWT(t, list[1].form.Get("client_assertion"))
		if one.claims["aud"] != want {
			t.Errorf("%q: got aud %v, want %s", rule, one.claims["aud"], want)
		}
		if one.claims["jti"] == two.claims["jti"] {
			t.Error("two assertions have the same jti")
		}
	}
}

func TestACertificateIsNamedByItsThumbprint(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	chain, _ := certify(t, key, nil)
	c, rec := recording(t, provider.Profile{})
	r := ccRequest("a")
	r.Client.Auth, r.Secret = tokenbroker.AuthPrivateKeyJWT, parsed(t, c, chain+sec1(t, key)).Secret
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(chain))
	sum := sha256.Sum256(block.Bytes)
	j := parseJWT(t, rec.only(t).form.Get("client_assertion"))
	if got, want := j.header["x5t#S256"], b64.EncodeToString(sum[:]); got != want {
		t.Errorf("x5t#S256: got %v, want %s", got, want)
	}
	j.wantES256(t, &key.PublicKey)
}

func TestSecretsThatAMethodCanNotUse(t *testing.T) {
	c, rec := recording(t, provider.Profile{})
	key := parsed(t, c, serviceAccount(t)).Secret
	text := tokenbroker.ClientSecret{Secret: tokenbroker.NewSecret(secretCanary)}
	for _, tt := range []struct {
		method tokenbroker.AuthMethod
		secret tokenbroker.ClientSecret
		want   string
	}{
		{tokenbroker.AuthClientSecretJWT, text, "client_secret_too_short"},
		{tokenbroker.AuthClientSecretJWT, key, "wrong_kind_of_secret"},
		{tokenbroker.AuthClientSecretPost, key, "wrong_kind_of_secret"},
		{tokenbroker.AuthPrivateKeyJWT, text, "wrong_kind_of_secret"},
		{tokenbroker.AuthTLSClientAuth, key, "wrong_kind_of_secret"},
		{tokenbroker.AuthTLSClientAuth, tokenbroker.ClientSecret{Kind: tokenbroker.KindCertificate, Secret: key.Secret}, "certificate_unreadable"},
		{tokenbroker.AuthPrivateKeyJWT, tokenbroker.ClientSecret{Kind: tokenbroker.KindKey}, "client_secret_missing"},
	} {
		r := ccRequest("a")
		r.Client.Auth, r.Secret = tt.method, tt.secret
		if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Code != tt.want || f.Sent || f.Class != config {
			t.Errorf("%s with a %q: got %+v, want %s", tt.method, tt.secret.Kind, f, tt.want)
		}
	}
	if got := len(rec.requests()); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

// TestEachClientShowsItsOwnCertificate has a server that asks for one (RFC 8705 §2), and two clients of one provider.
func TestEachClientShowsItsOwnCertificate(t *testing.T) {
	var shown []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].DNSNames[0]
		}
		shown = append(shown, name) // requests come one after the other
		_, _ = w.Write([]byte(plainReply))
	}, func(s *httptest.Server) { s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert} })
	p := trusting(t, s)
	p.AuthMethods = everyMethod()
	c := newClient(t, p)
	ask := func(name string) {
		r := ccRequest("a")
		if name != "nobody" {
			key := ecKey(t, elliptic.P256())
			chain, _ := certify(t, key, func(c *x509.Certificate) { c.DNSNames = []string{name} })
			r.Client.Auth, r.Secret = tokenbroker.AuthTLSClientAuth, parsed(t, c, chain+sec1(t, key)).Secret
		}
		if _, err := c.Exchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"one", "nobody", "two", "one", "nobody"}
	for _, name := range want {
		ask(name)
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
	form := s.requests()[0].form
	if form.Get("client_id") != "the client:1" || form.Has("client_secret") || form.Has("client_assertion") {
		t.Errorf("got %v", form)
	}
}

// TestAnEchoedAssertionDoesNotComeBack has a server that answers with what it was sent.
func TestAnEchoedAssertionDoesNotComeBack(t *testing.T) {
	var assertion string
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {})
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assertion = r.PostFormValue("client_assertion")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"` + assertion[len(assertion)-60:] + `"}`))
	})
	p := trusting(t, s)
	p.AuthMethods = everyMethod()
	c := newClient(t, p)
	r := ccRequest("a")
	r.Client.Auth, r.Secret = tokenbroker.AuthPrivateKeyJWT, parsed(t, c, serviceAccount(t)).Secret
	f := failureOf(t, second(c.Exchange(t.Context(), r)))
	if assertion == "" || f.Code != "unparsable_error" {
		t.Errorf("got code %q after an assertion of %d bytes", f.Code, len(assertion))
	}
}
