package grant_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

func keyClient(t *testing.T) *grant.Client {
	t.Helper()
	return newClient(t, google())
}

func encoded(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func sec1(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encoded("EC PRIVATE KEY", der)
}

// privateJWK writes an EC key by RFC 7518 §6.2, with further members.
func privateJWK(t testing.TB, key *ecdsa.PrivateKey, further map[string]any) string {
	t.Helper()
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	members := publicJWK(t, &key.PublicKey)
	members["d"] = b64.EncodeToString(d)
	maps.Copy(members, further)
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// thumbprint is that of RFC 7638 §3, written by hand: the required members in order, without blanks.
func thumbprint(t *testing.T, jwk map[string]any) string {
	t.Helper()
	delete(jwk, "kid")
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(jwk)) {
		parts = append(parts, fmt.Sprintf("%q:%q", name, jwk[name]))
	}
	sum := sha256.Sum256([]byte("{" + strings.Join(parts, ",") + "}"))
	return b64.EncodeToString(sum[:])
}

func TestKeysInEveryForm(t *testing.T) {
	c := keyClient(t)
	rsaPEM := pkcs8(t, rsaKey())
	p256 := ecKey(t, elliptic.P256())
	ed := edKey(t)
	p1 := encoded("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
	for _, tt := range []struct {
		name, text       string
		public           any
		algorithm, keyID string
	}{
		{"PKCS#8", rsaPEM, &rsaKey().PublicKey, "RS256", ""},
		{"PKCS#1", p1, &rsaKey().PublicKey, "RS256", ""},
		{"PKCS#8 with line breaks of Windows", strings.ReplaceAll(rsaPEM, "\n", "\r\n"), &rsaKey().PublicKey, "RS256", ""},
		{"PKCS#8 out of an environment variable", `"` + strings.ReplaceAll(rsaPEM, "\n", `\n`) + `"`, &rsaKey().PublicKey, "RS256", ""},
		{"PKCS#8 in one line", strings.ReplaceAll(rsaPEM, "\n", " "), &rsaKey().PublicKey, "RS256", ""},
		{"PKCS#8 with a byte order mark and text around", "\ufeffBag Attributes\n  friendlyName: x\n" + rsaPEM + "\n\n", &rsaKey().PublicKey, "RS256", ""},
		{"SEC1", sec1(t, p256), &p256.PublicKey, "ES256", ""},
		{"SEC1 with its parameters", encoded("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + sec1(t, p256), &p256.PublicKey, "ES256", ""},
		{"Ed25519", pkcs8(t, ed), ed.Public(), "EdDSA", ""},
		{"JWK", privateJWK(t, p256, map[string]any{"kid": "k1", "alg": "ES256", "use": "sig"}), &p256.PublicKey, "ES256", "k1"},
		{"JWK set of one", `{"keys":[` + privateJWK(t, p256, nil) + `]}`, &p256.PublicKey, "ES256", ""},
		{"Google", serviceAccount(t), &rsaKey().PublicKey, "RS256", "0123abcd"},
		{"Box", fmt.Sprintf(`{"boxAppSettings":{"clientID":"app","clientSecret":"s","appAuth":{"publicKeyID":"k2","privateKey":%q,"passphrase":""}},"enterpriseID":"1"}`, rsaPEM),
			&rsaKey().PublicKey, "RS256", "k2"},
		{"another JSON file", fmt.Sprintf(`{"type":"application","keyId":"k3","key":%q,"clientId":"app"}`, p1), &rsaKey().PublicKey, "RS256", "k3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := parsed(t, c, tt.text)
			s := k.Secret
			if s.Kind != tokenbroker.KindKey || s.Algorithm != tt.algorithm || s.KeyID != tt.keyID {
				t.Errorf("got %s %s %q", s.Kind, s.Algorithm, s.KeyID)
			}
			if want := thumbprint(t, publicJWK(t, tt.public)); s.Fingerprint != want {
				t.Errorf("fingerprint %s, want %s", s.Fingerprint, want)
			}
			block, rest := pem.Decode([]byte(s.Secret.Reveal()))
			if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
				t.Fatal("the key is not kept as PKCS#8 in PEM")
			}
			if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCurves(t *testing.T) {
	c := keyClient(t)
	for curve, want := range map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"} {
		if k := parsed(t, c, pkcs8(t, ecKey(t, curve))); k.Secret.Algorithm != want {
			t.Errorf("%s: got %s, want %s", curve.Params().Name, k.Secret.Algorithm, want)
		}
	}
}

func TestWhatAGoogleFileSaysBesides(t *testing.T) {
	k := parsed(t, keyClient(t), serviceAccount(t))
	if k.ClientID != robot || k.Account != "112233445566778899000" || k.TokenURI != googleToken {
		t.Errorf("got %q, %q, %q", k.ClientID, k.Account, k.TokenURI)
	}
}

func TestAKeyIDThatIsGivenWins(t *testing.T) {
	k, err := keyClient(t).ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(serviceAccount(t)), KeyID: "mine"})
	if err != nil || k.Secret.KeyID != "mine" {
		t.Errorf("got %q, %v", k.Secret.KeyID, err)
	}
}

// TestBadKeysAreRefusedWithWhatTheyAre looks for the words that tell an operator what to do, and for nothing of the key.
func TestBadKeysAreRefusedWithWhatTheyAre(t *testing.T) {
	c := keyClient(t)
	p256, rsaPEM := ecKey(t, elliptic.P256()), pkcs8(t, rsaKey())
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(&p256.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicText, err := json.Marshal(publicJWK(t, &p256.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := certify(t, p256, nil)
	half := strings.Join(strings.SplitAfter(rsaPEM, "\n")[:10], "")
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", " \n", "key is empty"},
		{"far too much", strings.Repeat("x", 65<<10), "at most 65536"},
		{"something else", "hunter2", "neither PEM"},
		{"base64 alone", strings.Split(rsaPEM, "\n")[1], "give the whole file"},
		{"encrypted PKCS#8", encoded("ENCRYPTED PRIVATE KEY", []byte("x")), "openssl pkey"},
		{"encrypted the old way", strings.Replace(sec1(t, p256), "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1), "encrypted"},
		{"OpenSSH", encoded("OPENSSH PRIVATE KEY", []byte("x")), "ssh-keygen"},
		{"a public key", encoded("PUBLIC KEY", publicDER), "public key"},
		{"a public key of SSH", "ssh-ed25519 AAAA", "public key of SSH"},
		{"a certificate alone", cert, "without its private key"},
		{"a certificate request", encoded("CERTIFICATE REQUEST", []byte("x")), "certificate request"},
		{"an unknown block", encoded("SESAME", []byte("x")), "no private key"},
		{"cut off", half, "cut off"},
		{"cut off inside, with its end", half + "-----END PRIVATE KEY-----\n", "can't be read"},
		{"no base64", "-----BEGIN PRIVATE KEY-----\n*?*\n-----END PRIVATE KEY-----\n", "cut off or damaged"},
		{"two keys", rsaPEM + sec1(t, p256), "two keys"},
		{"a weak RSA key", pkcs8(t, weak), "1024 bits"},
		{"a key for agreement", pkcs8(t, x25519), "can't sign"},
		{"PKCS#1 called PKCS#8", strings.ReplaceAll(encoded("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())), "RSA PRIVATE", "PRIVATE"), "can't be read"},
		{"a token", "eyJhbGciOiJSUzI1NiJ9.e30.x", "is a token"},
		{"binary", "0\x82\x01\x02", "binary"},
		{"JSON cut off", serviceAccount(t)[:200], "cut off"},
		{"an empty object", "{}", "holds no private key"},
		{"a user", `{"type":"authorized_user","refresh_token":"` + refreshCanary + `"}`, "tokenctl import"},
		{"an external account", `{"type":"external_account"}`, "token_exchange"},
		{"an external session", `{"type":"external_account_authorized_user"}`, "token_exchange"},
		{"an impersonation", `{"type":"impersonated_service_account"}`, "own key file"},
		{"an OAuth client", `{"installed":{"client_id":"x","client_secret":"` + secretCanary + `"}}`, "create an OAuth client"},
		{"a service account without key", `{"type":"service_account","client_email":"a@b"}`, "no private_key"},
		{"a service account without name", `{"type":"service_account","private_key":"x"}`, "no client_email"},
		{"a service account with a P12", `{"type":"service_account","private_key":"MIIE","client_email":"a@b"}`, "not in PEM"},
		{"a Box file with an encrypted key", `{"boxAppSettings":{"appAuth":{"privateKey":"` + strings.ReplaceAll(encoded("ENCRYPTED PRIVATE KEY", []byte("x")), "\n", `\n`) + `"}}}`, "encrypted"},
		{"a shared JWK", `{"kty":"oct","k":"c2VjcmV0"}`, "shared secret"},
		{"a public JWK", string(publicText), "member d"},
		{"a JWK for encryption", privateJWK(t, p256, map[string]any{"use": "enc"}), "encryption"},
		{"a JWK for another algorithm", privateJWK(t, p256, map[string]any{"alg": "RS256"}), "drop alg"},
		{"a JWK off its curve", privateJWK(t, p256, map[string]any{"x": b64.EncodeToString(big.NewInt(7).FillBytes(make([]byte, 32)))}), "can't be read"},
		{"a JWK far too large", `{"kty":"RSA","n":"` + strings.Repeat("A", 2000) + `","e":"AQAB","d":"AQ"}`, "too large"},
		{"a PEM key far too large", encoded("PRIVATE KEY", make([]byte, 9<<10)), "too large"},
		{"an empty JWK set", `{"keys":[]}`, "exactly one"},
		{"a set of two", `{"keys":[` + privateJWK(t, p256, nil) + `,` + privateJWK(t, p256, nil) + `]}`, "exactly one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(tt.text)})
			var p *tokenbroker.Problem
			if !errors.As(err, &p) || !errors.Is(err, tokenbroker.ErrInvalidArgument) || p.Field != "privateKey" || !strings.Contains(p.Detail, tt.want) {
				t.Fatalf("got %v, want it to say %q", err, tt.want)
			}
			if quote := quoted(p.Detail, tt.text); quote != "" {
				t.Errorf("the error quotes %q", quote)
			}
		})
	}
}

// quoted finds a run of 12 characters of a key's base64 in a message.
func quoted(message, text string) string {
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\n\\\" -{}:,", r) }) {
		for i := 0; i+12 <= len(line); i++ {
			if run := line[i : i+12]; strings.Contains(message, run) && !strings.Contains("impersonated_service_account external_account_authorized_user authorized_user private_key", run) {
				return run
			}
		}
	}
	return ""
}

// certify makes a certificate for a key, and returns it in PEM and when it ends.
func certify(t testing.TB, key *ecdsa.PrivateKey, change func(*x509.Certificate)) (string, time.Time) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: []string{"client.example.com"}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return encoded("CERTIFICATE", der), template.NotAfter.UTC().Truncate(time.Second)
}

func TestCertificates(t *testing.T) {
	c := keyClient(t)
	key, other := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	own, end := certify(t, key, nil)
	foreign, _ := certify(t, other, nil)
	old, _ := certify(t, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early, _ := certify(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	for _, tt := range []struct{ name, text, chain, want string }{
		{"beside the key", sec1(t, key), own, ""},
		{"in one file with the key", own + sec1(t, key), "", ""},
		{"with its issuer", sec1(t, key), own + foreign, ""},
		{"of another key", sec1(t, key), foreign, "not that of this key"},
		{"in the wrong order", sec1(t, key), foreign + own, "not that of this key"},
		{"expired", sec1(t, key), old, "expired on"},
		{"not valid yet", sec1(t, key), early, "not valid before"},
		{"cut off", sec1(t, key), own[:100], "cut off"},
		{"something else", sec1(t, key), sec1(t, other), "other than certificates"},
		{"no certificate", sec1(t, key), encoded("CERTIFICATE", []byte("x")), "can't be read"},
		{"too many", sec1(t, key), strings.Repeat(own, 11), "at most 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(tt.text), Certificate: tt.chain})
			if tt.want != "" {
				var p *tokenbroker.Problem
				if !errors.As(err, &p) || p.Field != "certificate" || !strings.Contains(p.Detail, tt.want) {
					t.Errorf("got %v, want it to say %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if k.Secret.Kind != tokenbroker.KindCertificate || !k.Secret.Expiry.Equal(end) || !strings.HasPrefix(k.Secret.Certificate, own) {
				t.Errorf("got %s, expiry %s, want one until %s", k.Secret.Kind, k.Secret.Expiry, end)
			}
		})
	}
}

func TestAFileMustNotSayWhereAssertionsGo(t *testing.T) {
	c := newClient(t, provider.Profile{TokenEndpoint: googleToken})
	for uri, ok := range map[string]bool{
		"": true, googleToken: true, "https://accounts.google.com/o/oauth2/token": true, "https://www.googleapis.com/oauth2/v4/token": true,
		"https://oauth2.googleapis.com.example.org/token": false, "https://example.org/token": false, "::": false,
	} {
		if err := c.CheckTokenURI("acme", uri); (err == nil) != ok {
			t.Errorf("%q: got %v, want allowed %t", uri, err, ok)
		}
	}
	altered := strings.ReplaceAll(serviceAccount(t), googleToken, "https://example.org/token")
	for provider, want := range map[string]string{"acme": "another host", "nobody": "not configured"} {
		if _, err := c.ParseKey(tokenbroker.NewKey{Text: tokenbroker.NewSecret(altered), Provider: provider}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %q", provider, err, want)
		}
	}
	if err := c.CheckTokenURI("nobody", googleToken); !errors.Is(err, tokenbroker.ErrUnknownProvider) {
		t.Errorf("got %v, want ErrUnknownProvider", err)
	}
}
