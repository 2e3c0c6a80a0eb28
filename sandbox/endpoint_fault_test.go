package sandbox_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// Each endpoint can be made to fail, and a fault for one leaves the others alone.
func TestFaultsMeetEveryEndpoint(t *testing.T) {
	for endpoint, ask := range map[sandbox.Endpoint]func(*world) reply{
		sandbox.EndpointToken:      func(w *world) reply { return w.post("token", "grant_type", "client_credentials") },
		sandbox.EndpointAuthorize:  func(w *world) reply { return w.get(strings.TrimPrefix(w.asking(), w.base), "") },
		sandbox.EndpointDevice:     func(w *world) reply { return w.post("device") },
		sandbox.EndpointActivate:   func(w *world) reply { return w.get("/acme/activate", "") },
		sandbox.EndpointRevoke:     func(w *world) reply { return w.post("revoke", "token", "x") },
		sandbox.EndpointIntrospect: func(w *world) reply { return w.post("introspect", "token", "x") },
		sandbox.EndpointJWKS:       func(w *world) reply { return w.get("/acme/jwks", "") },
		sandbox.EndpointDiscovery:  func(w *world) reply { return w.get("/.well-known/oauth-authorization-server/acme", "") },
		sandbox.EndpointUserinfo:   func(w *world) reply { return w.get("/acme/userinfo", "x") },
		sandbox.EndpointResource:   func(w *world) reply { return w.get("/acme/resource", "x") },
	} {
		t.Run(string(endpoint), func(t *testing.T) {
			inBothForms(t, people(), func(t *testing.T, w *world) {
				usual := ask(w).status
				w.srv.Fail("acme", sandbox.Fault{Endpoint: endpoint, Status: 503, RetryAfter: time.Minute, Name: "down"})
				w.get("/acme/nowhere", "")
				if got := ask(w); got.status != 503 || got.header.Get("Retry-After") != "60" {
					t.Errorf("got %d %v, want 503 for a minute", got.status, got.header)
				}
				if got := ask(w).status; got != usual || usual == 503 {
					t.Errorf("got %d once the fault is over, want %d", got, usual)
				}
				if n := w.srv.Count(sandbox.Filter{Endpoint: endpoint, Fault: "down", Status: 503}); n != 1 {
					t.Errorf("got %d in the journal, want 1", n)
				}
			})
		})
	}
}

func TestFaultsKnowTheClientAtEachEndpointThatKnowsOne(t *testing.T) {
	for _, endpoint := range []sandbox.Endpoint{"token", "device", "revoke", "introspect"} {
		w := newWorld(t, people())
		w.srv.Fail("acme", sandbox.Fault{Endpoint: endpoint, ClientID: "web", Status: 500})
		if got := w.postAs("legacy", endpoint, "token", "x", "grant_type", "client_credentials").status; got == 500 {
			t.Errorf("%s: got 500 for another client", endpoint)
		}
		if got := w.post(endpoint).status; got != 500 {
			t.Errorf("%s: got %d, want 500", endpoint, got)
		}
	}
	w := newWorld(t, people())
	w.srv.Fail("acme", sandbox.Fault{Endpoint: "authorize", ClientID: "web", Status: 500})
	if status, _ := w.follow(w.asking("client_id", "legacy")); status != 200 {
		t.Errorf("got %d for another client, want 200", status)
	}
	if status, _ := w.follow(w.asking()); status != 500 {
		t.Errorf("got %d, want 500", status)
	}
}

func TestDiscoveryCanLie(t *testing.T) {
	w := newWorld(t, people())
	w.srv.Fail("acme", sandbox.Fault{Endpoint: sandbox.EndpointDiscovery, Set: map[string]any{"issuer": "https://else.test", "token_endpoint": "https://else.test/token"}})
	path := "/acme/.well-known/openid-configuration"
	if got := w.get(path, ""); got.str("issuer") != "https://else.test" || got.str("jwks_uri") != w.base+"/acme/jwks" {
		t.Errorf("got %s", got.text)
	}
	if got := w.get(path, ""); got.str("issuer") != w.base+"/acme" {
		t.Errorf("got %s", got.text)
	}
}

func TestALostAnswerToACodeSpendsIt(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		code := w.authorize().Get("code")
		w.srv.Fail("acme", sandbox.Fault{GrantType: sandbox.GrantAuthorizationCode, Stage: sandbox.AfterCommit, Drop: true})
		f := "grant_type=authorization_code&client_id=web&client_secret=s3cret&redirect_uri=https%3A%2F%2Fapp.test%2Fcallback&code_verifier=" + verifier + "&code=" + code
		if _, err := w.try(w.request("POST", "/acme/token", f)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("got %v, want the connection broken", err)
		}
		w.exchange(code).want(t, 400, "invalid_grant")
	})
}

func TestTheClockGoesBackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		token := w.refresh(w.seed()).str("access_token")
		w.srv.Advance(2 * time.Hour)
		w.wantValid(token, false)
		w.srv.Advance(-2 * time.Hour)
		w.wantValid(token, true)
		if !w.srv.Now().Equal(time.Now()) {
			t.Errorf("got %s, want %s", w.srv.Now(), time.Now())
		}
		w.srv.Advance(90 * time.Minute)
		date, err := time.Parse(time.RFC1123, w.get("/acme/jwks", "").header.Get("Date"))
		if err != nil || !date.Equal(time.Now().Add(90*time.Minute).Truncate(time.Second)) {
			t.Errorf("got %s, %v, want Date moved", date, err)
		}
	})
}

func TestASkewedServerIssuesByItsOwnClock(t *testing.T) {
	iss := people()
	iss.JWTAccess = true
	w := newWorld(t, iss)
	w.srv.Fail("acme", sandbox.Fault{Skew: time.Hour})
	token := w.post("token", "grant_type", "client_credentials", "scope", "read").want(t, 200, "").str("access_token")
	claims := w.opened(token)
	if ahead := time.Until(time.Unix(int64(claims["iat"].(float64)), 0)); ahead < 59*time.Minute || ahead > 61*time.Minute {
		t.Errorf("got iat %s ahead, want an hour", ahead)
	}
}
