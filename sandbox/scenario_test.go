package sandbox_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const scenario = `
seed: 7
allow_http: true
issuers:
  - name: acme
    access_life: 30m
    rotation: grace
    grace: 5s
    scopes_supported: [openid, read]
    auto_approve: ann@corp.test
    device_interval: 1s
    jwt_access: true
    accounts:
      - {email: ann@corp.test, id: "7", name: Ann, password: pw, denied_scopes: [admin]}
    clients:
      - id: post
        secrets: [s3cret]
        auth: client_secret_post
        redirect_uris: [https://app.test/callback]
        scopes: [openid, read]
      - id: pk
        auth: private_key_jwt
        keys:
          - id: "1"
            pem: |
              KEY
    service_accounts:
      - {email: robot@project.iam.test, client_id: "1234", delegated: [read]}
    trusted_issuers:
      - issuer: https://ci.test
        audience: acme
        keys:
          - id: "1"
            pem: |
              CERT
faults:
  - {issuer: acme, kind: error, code: invalid_grant, times: 2}
  - {issuer: acme, endpoint: jwks, status: 503, retry_after: 1s, header: {X-Test: "1"}, set: null}
`

func filled(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&testKeys().ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	indent := func(kind string, der []byte) string {
		lines := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
		return strings.ReplaceAll(lines, "\n", "\n              ")
	}
	cert := certificate(t, "ci").Certificate[0]
	return strings.NewReplacer("KEY", indent("PUBLIC KEY", der), "CERT", indent("CERTIFICATE", cert)).Replace(scenario)
}

func TestAScenarioIsAServerWithItsScript(t *testing.T) {
	s, err := sandbox.ParseScenario([]byte(filled(t)))
	if err != nil {
		t.Fatal(err)
	}
	srv, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, sandbox.Issuer{})
	w.srv, w.client.Transport = srv, srv
	token := w.seed("read")
	w.refresh(token).want(t, 400, "invalid_grant")
	w.refresh(token).want(t, 400, "invalid_grant")
	if r := w.refresh(token).want(t, 200, ""); r.json["expires_in"] != 1800.0 || w.control("DELETE", "faults?issuer=acme", "").json["cleared"] != 1.0 {
		t.Errorf("got %s", r.text)
	}
	w.asserting(signed(t, jose.ES256, testKeys().ec, "1", clientClaims("pk"))).want(t, 200, "")
	if got := w.begin2("post"); got.json["interval"] != 1.0 {
		t.Errorf("got %s", got.text)
	}
}

func (w *world) begin2(client string) reply {
	w.t.Helper()
	return w.postAs(client, sandbox.EndpointDevice).want(w.t, 200, "")
}

func TestScenariosAreReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		"issuers: [{name: acme, rotaton: none}]":                                           `line 1, column 24: unknown field "rotaton"`,
		"issuers: [{name: acme, access_life: 30}]":                                         "line 1",
		"issuers: [{name: acme}]\nissuers: []":                                             "line 2",
		"issuers: [{name: acme}]\n---\nseed: 1":                                            "more than one YAML document",
		"issuers: [{name: acme, clients: [{id: x, keys: [{id: k, pem: x}]}]}]":             "no PEM block",
		"issuers: [{name: acme, clients: [{id: x, keys: [{id: k, pm: x}]}]}]":              "unknown field",
		"issuers: [{name: acme, clients: [{id: x, keys: [{id: k, pem: \"BAD\"}]}]}]":       "no public key and no certificate",
		"faults: [{kind: error, cod: x}]":                                                  "unknown field",
		"issuers: [{name: A}]":                                                             "name must match",
		"issuers: [{name: acme}]\nfaults: [{issuer: acme, kind: magic}]":                   "entry 1 of faults: no kind",
		"issuers: [{name: acme}]\nfaults: [{issuer: other, kind: hang}]":                   `entry 1 of faults: no issuer "other"`,
		"issuers: [{name: acme}]\nfaults: [{issuer: acme, kind: hang, client_id: nobody}]": `no client "nobody"`,
		"issuers: !0 0": "not YAML that can be read",
		"":              "no issuer",
	} {
		text = strings.ReplaceAll(text, "BAD", `-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n`)
		s, err := sandbox.ParseScenario([]byte(text))
		if err == nil {
			_, err = s.New()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestConfigurationsThatMakeNoSense(t *testing.T) {
	keys := testKeys()
	for want, iss := range map[string]sandbox.Issuer{
		"auto-approve":          {AutoApprove: "nobody"},
		"URL":                   {URL: "acme.test"},
		"unknown client aud":    {ClientAudience: "x"},
		"leeway is negative":    {Leeway: -1},
		"whole seconds":         {DeviceInterval: 1},
		`account ""`:            {Accounts: []sandbox.Account{{}}},
		`account "a"`:           {Accounts: []sandbox.Account{{Email: "a"}, {Email: "a"}}},
		`account "b"`:           {Accounts: []sandbox.Account{{Email: "a", ID: "1"}, {Email: "b", ID: "1"}}},
		`service account ""`:    {ServiceAccounts: []sandbox.ServiceAccount{{}}},
		"is not RSA, or has no": {ServiceAccounts: []sandbox.ServiceAccount{{Email: "s", Keys: []sandbox.Key{{ID: "1", Public: &keys.ec.PublicKey}}}}},
		"trusted issuer":        {TrustedIssuers: []sandbox.TrustedIssuer{{Issuer: "x"}}},
		"not RSA, ECDSA":        {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthPrivateKeyJWT, Keys: []sandbox.Key{{ID: "1", Public: "x"}}}}},
		"configured twice":      {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthPrivateKeyJWT, Keys: []sandbox.Key{{ID: "1", Public: &keys.ec.PublicKey}, {ID: "1", Public: &keys.rsa.PublicKey}}}}},
		"needs keys":            {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthPrivateKeyJWT}}},
		"TLS subject":           {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthTLS}}},
		"TLS thumbprint":        {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthNone, TLSThumbprint: "x"}}},
		"without PKCE":          {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthNone, PKCEOptional: true}}},
		"redirect URI":          {Clients: []sandbox.Client{{ID: "x", Auth: sandbox.AuthNone, RedirectURIs: []string{"https://x.test/#a"}}}},
	} {
		iss.Name = "acme"
		if _, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{iss}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
