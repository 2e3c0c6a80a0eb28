package sandbox_test

import (
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// What may be used once is used once, however many try at the same time.
func TestOfManyAtOnceOneSucceeds(t *testing.T) {
	const many = 16
	for name, prepare := range map[string]func(*testing.T, *world) url.Values{
		"code": func(_ *testing.T, w *world) url.Values {
			return url.Values{"grant_type": {"authorization_code"}, "code": {w.authorize().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier},
				"client_id": {"web"}, "client_secret": {"s3cret"}}
		},
		"device code": func(t *testing.T, w *world) url.Values {
			d := w.begin()
			if err := w.srv.Approve("acme", d.str("user_code"), "ann@corp.test"); err != nil {
				t.Fatal(err)
			}
			return url.Values{"grant_type": {sandbox.GrantDeviceCode}, "device_code": {d.str("device_code")}, "client_id": {"web"}, "client_secret": {"s3cret"}}
		},
		"client assertion": func(t *testing.T, _ *world) url.Values {
			return url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {clientAssertionType},
				"client_assertion": {signed(t, jose.ES256, testKeys().ec, "2", clientClaims("pk"))}}
		},
		"refresh token": func(_ *testing.T, w *world) url.Values {
			return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {w.seed()}, "client_id": {"post"}, "client_secret": {"s3cret"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withAssertingClients(people()))
			form := prepare(t, w).Encode()
			var won atomic.Int32
			var all sync.WaitGroup
			for range many {
				r := w.request("POST", "/acme/token", form)
				all.Go(func() {
					if got, err := w.try(r); err == nil && got.status == http.StatusOK {
						won.Add(1)
					}
				})
			}
			all.Wait()
			if won.Load() != 1 {
				t.Errorf("got %d of %d, want 1", won.Load(), many)
			}
		})
	}
}

// Methods that script a test may be called while requests come. The race detector judges.
func TestEverythingCanBeChangedWhileRequestsCome(t *testing.T) {
	iss := people()
	iss.ServiceAccounts = []sandbox.ServiceAccount{{Email: robot}}
	w := newWorld(t, iss)
	address, basic := w.asking(), w.begin()
	var all sync.WaitGroup
	for _, f := range []func(){
		func() { w.srv.Advance(time.Millisecond) },
		func() { w.srv.AutoApprove("acme", "bob@corp.test") },
		func() { w.srv.AutoApprove("acme", "") },
		func() { _ = w.srv.SetRotation("acme", sandbox.RotateNone, 0) },
		func() { w.srv.SetServiceAccount("acme", robot, true, nil) },
		func() { w.srv.RemoveServiceAccountKey("acme", robot, "x") },
		func() { w.srv.RotateKey("acme", false) },
		func() { w.srv.RotateSecret("acme", "post", "s3cret") },
		func() { _ = w.srv.Deny("acme", basic.str("user_code")) },
		func() { _, _ = w.srv.Authorize("acme", address, "bob@corp.test") },
		func() { w.srv.Fail("acme", sandbox.Fault{Endpoint: sandbox.EndpointRevoke}) },
		func() { w.srv.Pending("acme") },
	} {
		all.Go(func() {
			for range 3 {
				f()
			}
		})
	}
	for _, path := range []string{"/acme/jwks", "/acme/.well-known/openid-configuration", "/acme/activate", "/acme/authorize"} {
		r := w.request("GET", path, "")
		all.Go(func() { _, _ = w.try(r) })
	}
	token := w.refreshing(w.seed("read"))
	all.Go(func() { _, _ = w.try(token) })
	all.Wait()
}
