package grant_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// asked is one request that a fake got.
type asked struct {
	method, path string
	header       http.Header
	body         string
	form         url.Values
}

// fake is a provider with several endpoints, each with an answer that a test may change.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]http.HandlerFunc // path → what is answered; 404 for others
	got     []asked
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	f.mu.Lock()
	f.got = append(f.got, asked{r.Method, r.URL.Path, r.Header.Clone(), string(body), form})
	answer := f.answers[r.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

// on sets the answer of a path.
func (f *fake) on(path string, status int, body string, header ...string) {
	f.handle(path, reply(status, "application/json", body, header...))
}

func (f *fake) handle(path string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = h
}

// requests are those that a path got.
func (f *fake) requests(path string) (list []asked) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.got {
		if a.path == path {
			list = append(list, a)
		}
	}
	return list
}

// profile is one that names all of the fake's endpoints.
func (f *fake) profile(t *testing.T) provider.Profile {
	t.Helper()
	return provider.Profile{
		TokenEndpoint: f.URL + "/token", AuthorizationEndpoint: f.URL + "/authorize", DeviceAuthorizationEndpoint: f.URL + "/device",
		RevocationEndpoint: f.URL + "/revoke", IntrospectionEndpoint: f.URL + "/introspect", UserinfoEndpoint: f.URL + "/userinfo",
		JWKSURI: f.URL + "/jwks", Issuer: f.URL, Account: []string{"id_token.email", "id_token.sub"},
		AllowPrivate: true, CAFile: caFile(t, f.Server),
	}
}

// someone is a credential with a client that posts its secret.
func someone(scopes ...string) (tokenbroker.Credential, tokenbroker.OAuthClient, tokenbroker.ClientSecret) {
	r := ccRequest(scopes...)
	r.Credential.Grant = tokenbroker.GrantAuthorizationCode
	return r.Credential, r.Client, r.Secret
}

// consentFields are the fields of a profile that consents and what is around the token read.
func consentFields() map[string]string {
	const consent, revocation, check = "of the tests of consents", "of the tests of revocation", "of the tests of checks"
	return map[string]string{
		"authorization_endpoint": consent, "device_authorization_endpoint": consent, "pkce": consent, "iss_parameter": consent,
		"authorization_params": consent, "scope_parameter": consent, "consent_scopes": consent, "scope_aliases": consent, "account": consent,
		"userinfo_endpoint": consent, "loopback_redirect": "of package consent", "scopes": "for people",
		"revocation_endpoint": revocation, "revocation_style": revocation,
		"introspection_endpoint": check, "test_endpoint": check, "jwks_uri": check, "discover": "of the tests of discovery",
	}
}
