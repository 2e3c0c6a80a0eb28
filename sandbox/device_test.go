package sandbox_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// begin is a device authorization by the client "web".
func (w *world) begin(scope ...string) reply {
	w.t.Helper()
	r := w.post(sandbox.EndpointDevice, "scope", strings.Join(append(scope, "read"), " ")).want(w.t, 200, "")
	if !strings.HasPrefix(r.str("device_code"), sandbox.DevicePrefix) || !regexp.MustCompile(`^[B-Z]{4}-[B-Z]{4}$`).MatchString(r.str("user_code")) ||
		r.str("verification_uri") != w.base+"/acme/activate" || r.json["expires_in"] != 600.0 || r.json["interval"] != 5.0 {
		w.t.Fatalf("got %s", r.text)
	}
	return r
}

func (w *world) poll(started reply) reply {
	w.t.Helper()
	return w.post(sandbox.EndpointToken, "grant_type", sandbox.GrantDeviceCode, "device_code", started.str("device_code"))
}

func TestADeviceWaitsUntilSomebodyAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, people())
		d := w.begin("openid")
		for range 3 {
			w.poll(d).want(t, 400, "authorization_pending")
			time.Sleep(5 * time.Second)
		}
		if err := w.srv.Approve("acme", strings.ToLower(strings.ReplaceAll(d.str("user_code"), "-", "")), "ann@corp.test"); err != nil {
			t.Fatal(err)
		}
		r := w.poll(d).want(t, 200, "")
		if r.str("scope") != "openid read" || r.str("refresh_token") == "" || w.opened(r.str("id_token"))["sub"] != "7" {
			t.Errorf("got %s", r.text)
		}
		time.Sleep(5 * time.Second)
		w.poll(d).want(t, 400, "invalid_grant")
	})
}

func TestPollingTooFastSlowsDownForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, people())
		d := w.begin()
		w.poll(d).want(t, 400, "authorization_pending")
		time.Sleep(5*time.Second - 1)
		w.poll(d).want(t, 400, "slow_down")
		time.Sleep(10*time.Second - 1)
		w.poll(d).want(t, 400, "slow_down")
		time.Sleep(15 * time.Second)
		w.poll(d).want(t, 400, "authorization_pending")
		if err := w.srv.Approve("acme", d.str("user_code"), "ann@corp.test", "read"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if got := w.poll(d).want(t, 200, "").str("scope"); got != "read" {
			t.Errorf("got scope %q, want read", got)
		}
	})
}

func TestADeviceCodeEnds(t *testing.T) {
	w := newWorld(t, people())
	denied, expired, forbidden := w.begin(), w.begin(), w.begin()
	if err := w.srv.Deny("acme", denied.str("user_code")); err != nil {
		t.Fatal(err)
	}
	w.poll(denied).want(t, 400, "access_denied")
	if err := w.srv.Approve("acme", forbidden.str("user_code"), "eve@else.test"); err != nil {
		t.Fatal(err)
	}
	w.poll(forbidden).want(t, 400, "org_internal")
	w.srv.Advance(10 * time.Minute)
	w.poll(expired).want(t, 400, "expired_token")
	w.srv.Advance(10 * time.Minute)
	w.begin() // sweeps
	w.poll(expired).want(t, 400, "invalid_grant")
	for name, err := range map[string]error{
		"answered before": w.srv.Deny("acme", denied.str("user_code")),
		"expired":         w.srv.Approve("acme", expired.str("user_code"), "ann@corp.test"),
		"no account":      w.srv.Approve("acme", w.begin().str("user_code"), "nobody"),
		"more scopes":     w.srv.Approve("acme", w.begin().str("user_code"), "ann@corp.test", "write"),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestADeviceCodeIsItsClientsOwn(t *testing.T) {
	w := newWorld(t, people())
	d := w.begin()
	w.postAs("native", "token", "grant_type", sandbox.GrantDeviceCode, "device_code", d.str("device_code")).want(t, 400, "invalid_grant")
	w.post("token", "grant_type", sandbox.GrantDeviceCode).want(t, 400, "invalid_request")
	w.postAs("native", sandbox.EndpointDevice).want(t, 200, "")
	w.postAs("legacy", sandbox.EndpointDevice).want(t, 400, "unauthorized_client")
	w.post(sandbox.EndpointDevice, "scope", "nope").want(t, 400, "invalid_scope")
	w.post(sandbox.EndpointDevice, "resource", "nope").want(t, 400, "invalid_target")
	w.post(sandbox.EndpointDevice, "client_secret", "x").want(t, 400, "invalid_request")
}

func TestTheActivationPage(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		d := w.begin()
		if got := w.get("/acme/activate", ""); got.status != 200 || !strings.Contains(got.text, `name="user_code"`) || strings.Contains(got.text, "granted") {
			t.Errorf("got %d %s", got.status, got.text)
		}
		complete := strings.TrimPrefix(d.str("verification_uri_complete"), w.base)
		if got := w.get(complete, ""); got.status != 200 || !strings.Contains(got.text, d.str("user_code")) || !strings.Contains(got.text, "Allow web") {
			t.Errorf("got %d %s", got.status, got.text)
		}
		answer := func(pairs ...string) reply {
			f := url.Values{}
			for i := 0; i < len(pairs); i += 2 {
				f.Add(pairs[i], pairs[i+1])
			}
			return w.do(w.request("POST", "/acme/activate", f.Encode()))
		}
		if got := answer("user_code", "x", "decision", "allow"); got.status != 400 || !strings.Contains(got.text, "no such code") {
			t.Errorf("got %d %s", got.status, got.text)
		}
		if got := answer("user_code", d.str("user_code"), "decision", "allow", "account", "ann@corp.test", "password", "no"); got.status != 400 {
			t.Errorf("got %d %s", got.status, got.text)
		}
		if got := answer("user_code", d.str("user_code"), "decision", "allow", "account", "bob@corp.test", "granted", "read"); got.status != 200 || !strings.Contains(got.text, "Connected") {
			t.Errorf("got %d %s", got.status, got.text)
		}
		if got := w.poll(d).want(t, 200, "").str("scope"); got != "read" {
			t.Errorf("got %q, want read", got)
		}
		denied := w.begin()
		if got := answer("user_code", denied.str("user_code"), "decision", "deny"); got.status != 200 || !strings.Contains(got.text, "Denied") {
			t.Errorf("got %d %s", got.status, got.text)
		}
		w.poll(denied).want(t, 400, "access_denied")
		if got := w.do(w.request("PUT", "/acme/activate", "")); got.status != 405 {
			t.Errorf("got %d, want 405", got.status)
		}
	})
}

func TestAutoApproveAnswersDevices(t *testing.T) {
	iss := people()
	iss.AutoApprove = "ann@corp.test"
	w := newWorld(t, iss)
	w.poll(w.begin()).want(t, 200, "")
}
