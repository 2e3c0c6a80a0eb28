package sandbox_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// grants is one successful request per grant type, with what each must keep to itself.
func (w *world) everyGrant() (secrets []string) {
	w.t.Helper()
	keep := func(r reply) reply {
		r.want(w.t, 200, "")
		for _, name := range []string{"access_token", "refresh_token", "id_token", "device_code"} {
			if s := r.str(name); s != "" {
				secrets = append(secrets, s)
			}
		}
		return r
	}
	code := w.authorize().Get("code")
	first := keep(w.exchange(code))
	keep(w.post("token", "grant_type", "refresh_token", "refresh_token", first.str("refresh_token")))
	d := w.begin()
	if err := w.srv.Approve("acme", d.str("user_code"), "ann@corp.test"); err != nil {
		w.t.Fatal(err)
	}
	keep(d)
	keep(w.poll(d))
	keep(w.postAs("legacy", "token", "grant_type", "password", "username", "ann@corp.test", "password", "hush-password"))
	assertion := signed(w.t, jose.RS256, testKeys().rsa, "k1", googleClaims())
	keep(w.assert(assertion))
	own := signed(w.t, jose.ES256, testKeys().ec, "2", clientClaims("pk"))
	keep(w.asserting(own))
	keep(w.swap("subject_token", first.str("access_token"), "subject_token_type", accessType))
	return append(secrets, code, verifier, "hush-password", "s3cret", assertion, own)
}

func TestTheJournalHoldsNothingOfAnyGrant(t *testing.T) {
	iss := withAssertingClients(people())
	iss.Accounts[0].Password = "hush-password"
	iss.ServiceAccounts = []sandbox.ServiceAccount{{Email: robot, Keys: []sandbox.Key{{ID: "k1", Public: &testKeys().rsa.PublicKey}}}}
	w := newWorld(t, iss)
	secrets := w.everyGrant()
	w.srv.Advance(time.Second)
	for _, text := range []string{fmt.Sprintf("%+v", w.srv.Journal()), w.control("GET", "journal", "").text} {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("got %.12s… in the journal", s)
			}
		}
	}
	grants := map[string]bool{}
	for _, e := range w.srv.Journal() {
		grants[e.GrantType] = true
	}
	if len(grants) != 8 { // seven, and none
		t.Errorf("got %v in the journal, want every grant", grants)
	}
}

// What a client or a person sent stands in no error, and on a page only as text.
func TestNothingSentComesBack(t *testing.T) {
	const canary = `ca"na<ry>'`
	w := newWorld(t, withAssertingClients(people()))
	for _, endpoint := range []sandbox.Endpoint{"token", "device", "revoke", "introspect"} {
		for _, name := range []string{"client_id", "client_secret", "grant_type", "scope", "code", "code_verifier", "redirect_uri", "refresh_token", "device_code",
			"username", "password", "assertion", "client_assertion", "client_assertion_type", "subject_token", "subject_token_type", "resource", "audience", "token"} {
			for _, grant := range []string{"authorization_code", "refresh_token", "client_credentials", "password", sandbox.GrantDeviceCode, sandbox.GrantJWTBearer, sandbox.GrantTokenExchange} {
				f := url.Values{"client_id": {"legacy"}, "client_secret": {"s3cret"}, "grant_type": {grant}, "code": {"x"}, "device_code": {"x"}, "token": {"x"},
					"refresh_token": {"x"}, "username": {"x"}, "password": {"x"}, "assertion": {"x"}, "subject_token": {"x"}}
				f.Set(name, canary)
				got := w.do(w.request("POST", "/acme/"+string(endpoint), f.Encode()))
				if strings.Contains(got.text, "na<ry>") || strings.Contains(got.text, `na\u003cry`) {
					t.Errorf("%s, %s, %s: got %s", endpoint, grant, name, got.text)
				}
			}
		}
	}
	for _, path := range []string{"activate?user_code=", "authorize?client_id=", "authorize?client_id=web&redirect_uri=", "nowhere?x="} {
		if got := w.get("/acme/"+path+url.QueryEscape(canary), ""); strings.Contains(got.text, "<ry>") {
			t.Errorf("%s: got %s", path, got.text)
		}
	}
	f := url.Values{"user_code": {canary}, "decision": {"allow"}, "account": {canary}}
	if got := w.do(w.request("POST", "/acme/activate", f.Encode())); strings.Contains(got.text, "<ry>") || !strings.Contains(got.text, "ca&#34;na&lt;ry&gt;") {
		t.Errorf("got %s", got.text)
	}
}

func TestWhatOneIssuerGivesIsNothingToAnother(t *testing.T) {
	w := newWorld(t, people())
	other := people()
	other.Name = "other"
	first := people()
	first.Name = "acme"
	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{first, other}})
	if err != nil {
		t.Fatal(err)
	}
	w.srv, w.client.Transport = srv, srv
	code, d := w.authorize().Get("code"), w.begin()
	consented := w.exchange(w.authorize().Get("code")).want(t, 200, "")
	at := func(endpoint string, params ...string) reply {
		f := url.Values{"client_id": {"web"}, "client_secret": {"s3cret"}}
		for i := 0; i < len(params); i += 2 {
			f.Set(params[i], params[i+1])
		}
		return w.do(w.request("POST", "/other/"+endpoint, f.Encode()))
	}
	at("token", "grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier).want(t, 400, "invalid_grant")
	at("token", "grant_type", sandbox.GrantDeviceCode, "device_code", d.str("device_code")).want(t, 400, "invalid_grant")
	at("token", "grant_type", "refresh_token", "refresh_token", consented.str("refresh_token")).want(t, 400, "invalid_grant")
	at("token", "grant_type", sandbox.GrantTokenExchange, "subject_token", consented.str("access_token"), "subject_token_type", accessType).want(t, 400, "invalid_request")
	if got := at("introspect", "token", consented.str("access_token")); got.json["active"] != false {
		t.Errorf("got %s", got.text)
	}
	at("revoke", "token", consented.str("refresh_token")).want(t, 200, "")
	if err := w.srv.Approve("other", d.str("user_code"), "ann@corp.test"); err == nil {
		t.Error("got no error for another issuer's device")
	}
	w.wantValid(consented.str("access_token"), true)
	w.exchange(code).want(t, 200, "")
}

func TestTheServerForgetsWhatHasExpired(t *testing.T) {
	w := newWorld(t, withAssertingClients(people()))
	for range 5 {
		w.follow(w.asking())
		w.authorize()
		w.begin()
		w.asserting(signed(t, jose.ES256, testKeys().ec, "2", clientClaims("pk"))).want(t, 200, "")
	}
	if pages, codes, devices, used := w.srv.RememberedConsents("acme"); pages != 5 || codes != 5 || devices != 5 || used != 5 {
		t.Errorf("got %d pages, %d codes, %d devices, %d assertions, want 5 of each", pages, codes, devices, used)
	}
	w.srv.Advance(20 * time.Minute)
	w.follow(w.asking())
	w.authorize()
	w.begin()
	w.asserting(signed(t, jose.ES256, testKeys().ec, "2", with(clientClaims("pk"), "exp", unix(21*time.Minute)))).want(t, 200, "")
	if pages, codes, devices, used := w.srv.RememberedConsents("acme"); pages != 1 || codes != 1 || devices != 1 || used != 1 {
		t.Errorf("got %d pages, %d codes, %d devices, %d assertions, want the newest alone", pages, codes, devices, used)
	}
}
