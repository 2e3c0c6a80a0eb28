package sandbox_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// The three surfaces have one vocabulary: what Go can say of a fault, a scenario and the control endpoint can say by the same name.
func TestAFaultCanBeSpelledOutEverywhere(t *testing.T) {
	spec, snake := reflect.TypeFor[sandbox.FaultSpec](), regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	byKind := map[string]string{"Stage": "after_commit", "Hang": "hang", "Drop": "reset", "Refuse": "refuse", "Cause": "dns"}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[sandbox.Fault]()) {
		if byKind[f.Name] != "" {
			continue
		}
		if s, ok := spec.FieldByName(f.Name); !ok || s.Tag.Get("yaml") == "" {
			t.Errorf("FaultSpec has no %s", f.Name)
		}
	}
	for _, f := range reflect.VisibleFields(spec) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if yaml := f.Tag.Get("yaml"); yaml != name || !snake.MatchString(name) {
			t.Errorf("FaultSpec.%s: got %q in YAML and %q in JSON", f.Name, yaml, name)
		}
	}
	for _, kind := range sandbox.FaultKinds() {
		delete(byKind, map[string]string{"hang": "Hang", "reset": "Drop", "refuse": "Refuse", "dns": "Cause"}[kind])
	}
	if delete(byKind, "Stage"); len(byKind) > 0 {
		t.Errorf("no kind says %v", byKind)
	}
}

func TestEveryPartOfAConfigurationHasANameInScenarios(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, kind := range []reflect.Type{reflect.TypeFor[sandbox.Config](), reflect.TypeFor[sandbox.Issuer](), reflect.TypeFor[sandbox.Client](),
		reflect.TypeFor[sandbox.Account](), reflect.TypeFor[sandbox.ServiceAccount](), reflect.TypeFor[sandbox.TrustedIssuer]()} {
		seen := map[string]bool{}
		for _, f := range reflect.VisibleFields(kind) {
			name := f.Tag.Get("yaml")
			if !snake.MatchString(name) || seen[name] {
				t.Errorf("%s.%s: got the name %q, want one of its own in snake case", kind, f.Name, name)
			}
			seen[name] = true
		}
	}
}

// The help of the command, the table of the page and the code speak of the same kinds.
func TestKindsAreNamedAsTheyAreInTheResearch(t *testing.T) {
	page, err := os.ReadFile("../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`sandbox fault \w+ (\w+)`).FindAllStringSubmatch(string(page), -1) {
		if sandbox.FaultHelp(m[1]) == "" {
			t.Errorf("docs/sandbox.md speaks of %q, which is no kind", m[1])
		}
	}
}

func TestEveryAlgorithmOfAKeyIsVerified(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := testKeys()
	iss := sandbox.Issuer{Clients: []sandbox.Client{
		{ID: "pk", Auth: sandbox.AuthPrivateKeyJWT, Keys: []sandbox.Key{{ID: "rsa", Public: &keys.rsa.PublicKey}, {ID: "256", Public: &keys.ec.PublicKey},
			{ID: "384", Public: &p384.PublicKey}, {ID: "521", Public: &p521.PublicKey}, {ID: "ed", Public: edPublic}}},
		{ID: "mac", Auth: sandbox.AuthSecretJWT, Secrets: []string{longSecret, "another" + longSecret}},
	}}
	w := newWorld(t, iss)
	for _, row := range []struct {
		alg jose.SignatureAlgorithm
		key any
		kid string
		by  string
	}{
		{jose.RS256, keys.rsa, "rsa", "pk"}, {jose.RS384, keys.rsa, "rsa", "pk"}, {jose.RS512, keys.rsa, "rsa", "pk"},
		{jose.PS256, keys.rsa, "rsa", "pk"}, {jose.PS384, keys.rsa, "rsa", "pk"}, {jose.PS512, keys.rsa, "rsa", "pk"},
		{jose.ES256, keys.ec, "256", "pk"}, {jose.ES384, p384, "384", "pk"}, {jose.ES512, p521, "521", "pk"}, {jose.EdDSA, ed, "ed", "pk"},
		{jose.HS256, []byte(longSecret), "", "mac"}, {jose.HS384, []byte(longSecret), "", "mac"}, {jose.HS512, []byte("another" + longSecret), "", "mac"},
	} {
		w.asserting(signed(t, row.alg, row.key, row.kid, clientClaims(row.by))).want(t, 200, "")
		other := map[string]string{"pk": "mac", "mac": "pk"}[row.by]
		w.asserting(signed(t, row.alg, row.key, row.kid, clientClaims(other))).want(t, 400, "invalid_client")
	}
	w.srv.RotateSecret("acme", "mac", strings.Repeat("new", 20))
	w.asserting(signed(t, jose.HS256, []byte(longSecret), "", clientClaims("mac"))).want(t, 400, "invalid_client")
	w.asserting(signed(t, jose.HS256, []byte(strings.Repeat("new", 20)), "", clientClaims("mac"))).want(t, 200, "")
	wantPanic(t, func() { w.srv.RotateSecret("acme", "pk", "x") })
}

// A public key is no HMAC secret: the oldest trick on servers that take what the header says.
func TestAPublicKeyIsNoSecret(t *testing.T) {
	w := withServiceAccount(t)
	public := testKeys().rsa.N.Bytes()
	w.assert(signed(t, jose.HS256, public, "k1", googleClaims())).want(t, 400, "invalid_client")
	w.assert("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJyb2JvdEBwcm9qZWN0LmlhbS50ZXN0In0.").want(t, 400, "invalid_grant")
}

func TestMethodsThatAnEndpointDoesNotKnow(t *testing.T) {
	w := newWorld(t, people())
	for endpoint, allowed := range map[sandbox.Endpoint]string{
		"token": "POST", "device": "POST", "revoke": "POST", "introspect": "POST", "authorize": "GET, POST", "activate": "GET, POST",
		sandbox.EndpointDiscovery: "GET",
	} {
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
			got := w.do(w.request(method, "/acme/"+string(endpoint), ""))
			if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allowed {
				t.Errorf("%s %s: got %d, Allow %q, want 405, %q", method, endpoint, got.status, got.header.Get("Allow"), allowed)
			}
		}
	}
}

func TestIdleRefreshTokensAreInactive(t *testing.T) {
	iss := people()
	iss.RefreshLife = time.Hour
	w := newWorld(t, iss)
	active := func(token string) bool {
		got := w.post("introspect", "token", token).want(t, 200, "")
		return got.json["active"] == true
	}
	token := w.exchange(w.authorize().Get("code")).str("refresh_token")
	w.srv.Advance(time.Hour - time.Second)
	if !active(token) {
		t.Error("got it inactive within its life")
	}
	next := w.post("token", "grant_type", "refresh_token", "refresh_token", token).want(t, 200, "").str("refresh_token")
	w.srv.Advance(time.Hour - time.Second)
	if !active(next) {
		t.Error("got the successor inactive within its life")
	}
	w.srv.Advance(time.Second)
	if active(next) {
		t.Error("got it active at the end of its life")
	}
	w.srv.RevokeToken(next)
	if active(next) {
		t.Error("got it active once it is revoked")
	}
}

func TestAForgivenRefreshTokenIsActive(t *testing.T) {
	iss := people()
	iss.Rotation, iss.Grace = sandbox.RotateGrace, time.Minute
	w := newWorld(t, iss)
	token := w.exchange(w.authorize().Get("code")).str("refresh_token")
	w.post("token", "grant_type", "refresh_token", "refresh_token", token).want(t, 200, "")
	for _, want := range []bool{true, false} {
		if got := w.post("introspect", "token", token).json["active"] == true; got != want {
			t.Errorf("got active %t, want %t", got, want)
		}
		w.srv.Advance(time.Minute)
	}
}
