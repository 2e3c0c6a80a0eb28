package sandbox_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const clientAssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

var longSecret = strings.Repeat("s3cret", 12)

func withAssertingClients(iss sandbox.Issuer) sandbox.Issuer {
	keys := testKeys()
	iss.Clients = append(iss.Clients,
		sandbox.Client{ID: "pk", Auth: sandbox.AuthPrivateKeyJWT, Keys: []sandbox.Key{{ID: "1", Public: &keys.rsa.PublicKey}, {ID: "2", Public: &keys.ec.PublicKey}}},
		sandbox.Client{ID: "mac", Auth: sandbox.AuthSecretJWT, Secrets: []string{longSecret}})
	return iss
}

func clientClaims(id string) map[string]any {
	return map[string]any{"iss": id, "sub": id, "aud": "https://sandbox.test/acme/token", "jti": rand.Text(), "exp": unix(time.Minute)}
}

func (w *world) asserting(assertion string, more ...string) reply {
	w.t.Helper()
	return w.postAs("", "token", append([]string{"grant_type", "client_credentials", "client_assertion_type", clientAssertionType, "client_assertion", assertion}, more...)...)
}

func TestClientsAuthenticateWithAssertions(t *testing.T) {
	keys := testKeys()
	for name, row := range map[string]struct {
		alg    jose.SignatureAlgorithm
		key    any
		kid    string
		claims map[string]any
		more   []string
		code   string
	}{
		"RSA":                        {alg: jose.PS256, key: keys.rsa, kid: "1", claims: clientClaims("pk")},
		"EC":                         {alg: jose.ES256, key: keys.ec, kid: "2", claims: clientClaims("pk")},
		"without a key id":           {alg: jose.ES256, key: keys.ec, claims: clientClaims("pk")},
		"with client_id":             {alg: jose.ES256, key: keys.ec, claims: clientClaims("pk"), more: []string{"client_id", "pk"}},
		"HMAC":                       {alg: jose.HS256, key: []byte(longSecret), claims: clientClaims("mac")},
		"HMAC, wrong secret":         {alg: jose.HS256, key: []byte(longSecret + "x"), claims: clientClaims("mac"), code: "invalid_client"},
		"HMAC by a client with keys": {alg: jose.HS256, key: []byte(longSecret), claims: clientClaims("pk"), code: "invalid_client"},
		"key by a client of HMAC":    {alg: jose.ES256, key: keys.ec, claims: clientClaims("mac"), code: "invalid_client"},
		"another client_id":          {alg: jose.ES256, key: keys.ec, claims: clientClaims("pk"), more: []string{"client_id", "mac"}, code: "invalid_request"},
		"and a secret":               {alg: jose.ES256, key: keys.ec, claims: clientClaims("pk"), more: []string{"client_secret", "x"}, code: "invalid_request"},
		"another key":                {alg: jose.RS256, key: keys.other, kid: "1", claims: clientClaims("pk"), code: "invalid_client"},
		"the key of another id":      {alg: jose.ES256, key: keys.ec, kid: "1", claims: clientClaims("pk"), code: "invalid_client"},
		"another issuer":             {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "iss", "mac"), code: "invalid_client"},
		"no such client":             {alg: jose.ES256, key: keys.ec, claims: clientClaims("x"), code: "invalid_client"},
		"the issuer as audience":     {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "aud", "https://sandbox.test/acme"), code: "invalid_client"},
		"no exp":                     {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "exp", nil), code: "invalid_client"},
		"expired":                    {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "exp", unix(-time.Second)), code: "invalid_client"},
		"for two hours":              {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "exp", unix(2*time.Hour)), code: "invalid_client"},
		"no jti":                     {alg: jose.ES256, key: keys.ec, claims: with(clientClaims("pk"), "jti", nil), code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withAssertingClients(sandbox.Issuer{}))
			assertion := signed(t, row.alg, row.key, row.kid, row.claims)
			if row.code != "" {
				w.asserting(assertion, row.more...).want(t, 400, row.code)
				return
			}
			w.asserting(assertion, row.more...).want(t, 200, "")
			got := w.asserting(assertion, row.more...).want(t, 400, "invalid_client")
			if !strings.Contains(got.str("error_description"), "jti") {
				t.Errorf("got %q for a replay", got.str("error_description"))
			}
			id := row.claims["iss"].(string)
			if n := w.srv.Count(sandbox.Filter{ClientID: id}); n != 2 {
				t.Errorf("got %d requests by %s in the journal, want 2", n, id)
			}
		})
	}
}

func TestAnAssertionMustBeWellFormed(t *testing.T) {
	w := newWorld(t, withAssertingClients(sandbox.Issuer{}))
	w.asserting("x").want(t, 400, "invalid_client")
	w.postAs("", "token", "grant_type", "client_credentials", "client_assertion", "x").want(t, 400, "invalid_request")
	w.postAs("", "token", "grant_type", "client_credentials", "client_assertion_type", clientAssertionType).want(t, 400, "invalid_client")
}

func TestTheAudienceOfAssertionsIsTheIssuersChoice(t *testing.T) {
	for want, accepted := range map[sandbox.AssertionAudience][]bool{
		"": {true, false}, sandbox.AudienceToken: {true, false}, sandbox.AudienceIssuer: {false, true}, sandbox.AudienceEither: {true, true},
	} {
		w := newWorld(t, withAssertingClients(sandbox.Issuer{ClientAudience: want, URL: "https://login.test/acme/"}))
		for n, aud := range []string{"https://login.test/acme/token", "https://login.test/acme"} {
			got := w.asserting(signed(t, jose.ES256, testKeys().ec, "2", with(clientClaims("pk"), "aud", aud)))
			if ok := got.status == 200; ok != accepted[n] {
				t.Errorf("%q: got %s accepted %t, want %t", want, aud, ok, accepted[n])
			}
		}
	}
}

// certificate makes a self-signed one.
func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &testKeys().ec.PublicKey, testKeys().ec)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: testKeys().ec, Leaf: leaf}
}

func TestClientsAuthenticateWithCertificates(t *testing.T) {
	mine := certificate(t, "reports")
	iss := sandbox.Issuer{Clients: []sandbox.Client{
		{ID: "subject", Auth: sandbox.AuthTLS, TLSSubject: "CN=reports,O=Acme"},
		{ID: "thumb", Auth: sandbox.AuthSelfSignedTLS, TLSThumbprint: sandbox.SPKIThumbprint(mine.Leaf)},
		{ID: "others", Auth: sandbox.AuthTLS, TLSSubject: "CN=others"},
		{ID: "stranger", Auth: sandbox.AuthSelfSignedTLS, TLSThumbprint: strings.Repeat("0", 64)},
	}}
	for form, connect := range map[string]func(*testing.T, *world){
		"round tripper": func(_ *testing.T, w *world) { w.client.Transport = w.srv.Presenting(mine.Leaf) },
		"handler":       func(t *testing.T, w *world) { w.behindMutualTLS(t, mine) },
	} {
		t.Run(form, func(t *testing.T) {
			w := newWorld(t, iss)
			ask := func(id string, more ...string) reply {
				return w.postAs("", "token", append([]string{"grant_type", "client_credentials", "client_id", id}, more...)...)
			}
			ask("subject").want(t, 400, "invalid_client") // no certificate
			connect(t, w)
			ask("subject").want(t, 200, "")
			ask("thumb").want(t, 200, "")
			ask("others").want(t, 400, "invalid_client")
			ask("stranger").want(t, 400, "invalid_client")
			ask("subject", "client_secret", "x").want(t, 400, "invalid_client")
			w.srv.Advance(2 * time.Hour)
			ask("subject").want(t, 400, "invalid_client")
		})
	}
}

func (w *world) behindMutualTLS(t *testing.T, mine tls.Certificate) {
	t.Helper()
	ts := httptest.NewUnstartedServer(w.srv)
	ts.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	transport := ts.Client().Transport.(*http.Transport)
	transport.TLSClientConfig.Certificates = []tls.Certificate{mine}
	w.client.Transport, w.base = transport, ts.URL
}
