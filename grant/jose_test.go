package grant_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// What the tests know of JOSE is written here by hand, or is another implementation: nothing of the library under test.

var b64 = base64.RawURLEncoding

// jwt is a JWS in compact form, taken apart.
type jwt struct {
	header, claims map[string]any
	input          string // what is signed
	signature      []byte
}

// parseJWT takes a JWT apart as RFC 7515 §3.1 and §7.1 have it: three parts, base64url without padding.
func parseJWT(t *testing.T, text string) jwt {
	t.Helper()
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("got %d parts, want 3", len(parts))
	}
	j := jwt{input: parts[0] + "." + parts[1]}
	for i, into := range []*map[string]any{&j.header, &j.claims} {
		raw, err := b64.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if j.signature, err = b64.DecodeString(parts[2]); err != nil {
		t.Fatal(err)
	}
	return j
}

// wantRS256 checks the signature with what the standard library has (RFC 7518 §3.3).
func (j jwt) wantRS256(t *testing.T, key *rsa.PublicKey) {
	t.Helper()
	sum := sha256.Sum256([]byte(j.input))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], j.signature); err != nil {
		t.Errorf("signature: %v", err)
	}
}

// wantES256 checks the signature, r and s of 32 bytes each (RFC 7518 §3.4).
func (j jwt) wantES256(t *testing.T, key *ecdsa.PublicKey) {
	t.Helper()
	if len(j.signature) != 64 {
		t.Fatalf("signature of %d bytes, want 64", len(j.signature))
	}
	der, err := ecdsaDER(j.signature[:32], j.signature[32:])
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256([]byte(j.input)); !ecdsa.VerifyASN1(key, sum[:], der) {
		t.Error("the signature is wrong")
	}
}

// ecdsaDER writes r and s as a sequence of two integers.
func ecdsaDER(r, s []byte) ([]byte, error) {
	var body []byte
	for _, n := range [][]byte{r, s} {
		n = bytes.TrimLeft(n, "\x00")
		if len(n) == 0 || n[0]&0x80 != 0 {
			n = append([]byte{0}, n...)
		}
		body = append(append(body, 2, byte(len(n))), n...)
	}
	return append([]byte{0x30, byte(len(body))}, body...), nil
}

func (j jwt) wantHS256(t *testing.T, secret string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(j.input))
	if !hmac.Equal(mac.Sum(nil), j.signature) {
		t.Error("the signature is wrong")
	}
}

func (j jwt) number(t *testing.T, claim string) int64 {
	t.Helper()
	n, ok := j.claims[claim].(float64)
	if !ok || n != float64(int64(n)) {
		t.Fatalf("%s: got %v, want a whole number", claim, j.claims[claim])
	}
	return int64(n)
}

// wantNode has the token verified by the jose library of node, which the OAuth server of the end-to-end tests brings.
func wantNode(t *testing.T, token string, jwk map[string]any, algorithm, issuer, audience string) {
	t.Helper()
	const folder = "../cmd/tokenbrokerd/testdata/oidc/node_modules/jose"
	if _, err := os.Stat(folder); err != nil {
		t.Fatalf("%v; run make deps", err)
	}
	asked, err := json.Marshal(map[string]any{"token": token, "jwk": jwk, "algorithm": algorithm, "issuer": issuer, "audience": audience})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/verify.mjs", folder)
	cmd.Stdin = bytes.NewReader(asked)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("jose does not take the token: %v\n%s", err, stderr.String())
	}
	var found struct{ Payload, ProtectedHeader map[string]any }
	if err := json.Unmarshal(out, &found); err != nil || found.Payload["iss"] != issuer || found.ProtectedHeader["alg"] != algorithm {
		t.Errorf("jose found %s, %v", out, err)
	}
}

// Keys are made once: RSA ones take their time.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pkcs8 writes a key in PEM.
func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// publicJWK writes a public key by RFC 7518 §6 and RFC 8037 §2.
func publicJWK(t testing.TB, key crypto.PublicKey) map[string]any {
	t.Helper()
	switch k := key.(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "n": b64.EncodeToString(k.N.Bytes()), "e": "AQAB"}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := (len(point) - 1) / 2
		return map[string]any{"kty": "EC", "crv": k.Curve.Params().Name, "x": b64.EncodeToString(point[1 : 1+half]), "y": b64.EncodeToString(point[1+half:])}
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(k)}
	}
	t.Fatalf("a key of type %T", key)
	return nil
}

// parsed has the client read a key.
func parsed(t *testing.T, c *grant.Client, text string) tokenbroker.ParsedKey {
	t.Helper()
	k, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(text)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// recorded is one request as it would have gone to the network.
type recorded struct {
	method, url, body string
	header            http.Header
	form              url.Values
}

// recorder is a transport that keeps what it is asked and gives one answer.
type recorder struct {
	status int
	body   string
	header http.Header
	mu     sync.Mutex
	list   []recorded
}

func (rec *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	var text []byte
	var err error
	if r.Body != nil {
		text, err = io.ReadAll(r.Body)
	}
	form, formErr := url.ParseQuery(string(text))
	if formErr != nil {
		form = nil
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.list = append(rec.list, recorded{r.Method, r.URL.String(), string(text), r.Header.Clone(), form})
	return &http.Response{StatusCode: rec.status, Header: rec.header, Body: io.NopCloser(strings.NewReader(rec.body)), Request: r}, err
}

func (rec *recorder) requests() []recorded {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]recorded(nil), rec.list...)
}

// recording returns a client of one provider "acme" whose requests go to a recorder that gives a plain token.
func recording(t *testing.T, p provider.Profile, change ...func(*grant.Config)) (*grant.Client, *recorder) {
	t.Helper()
	rec := &recorder{status: http.StatusOK, body: plainReply, header: http.Header{}}
	if p.TokenEndpoint == "" && p.Base == "" {
		p.TokenEndpoint = "https://login.example.com/token"
	}
	if p.AuthMethods == nil {
		p.AuthMethods = everyMethod()
	}
	change = append(change, func(cfg *grant.Config) { cfg.Transport = func(string) http.RoundTripper { return rec } })
	return newClient(t, p, change...), rec
}

func everyMethod() []tokenbroker.AuthMethod {
	return []tokenbroker.AuthMethod{tokenbroker.AuthClientSecretBasic, tokenbroker.AuthClientSecretPost, tokenbroker.AuthNone, tokenbroker.AuthClientSecretJWT,
		tokenbroker.AuthPrivateKeyJWT, tokenbroker.AuthTLSClientAuth, tokenbroker.AuthServiceAccount}
}

// only returns the one request that was sent.
func (rec *recorder) only(t *testing.T) recorded {
	t.Helper()
	list := rec.requests()
	if len(list) != 1 {
		t.Fatalf("got %d requests, want 1", len(list))
	}
	return list[0]
}
