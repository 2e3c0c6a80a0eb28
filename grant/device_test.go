package grant_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
)

const deviceReply = `{"device_code":"r3fresh-Canary-of-the-grant","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device","expires_in":900%s}`

func deviceRequest(scopes ...string) tokenbroker.DeviceRequest {
	cred, client, secret := someone(scopes...)
	return tokenbroker.DeviceRequest{Credential: cred, Client: client, Secret: secret}
}

func TestADeviceCodeIsAskedFor(t *testing.T) {
	f := newFake(t)
	f.on("/device", 200, fmt.Sprintf(deviceReply, `,"interval":7,"verification_uri_complete":"https://example.com/device?c=WDJB-MJHT"`))
	p := f.profile(t)
	p.ConsentScopes = []string{"offline_access"}
	r := deviceRequest("b", "a")
	r.Credential.Audience = "https://api.example.com"
	before := time.Now()
	got, err := newClient(t, p).StartDevice(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if life := got.Expiry.Sub(before); life < 899*time.Second || life > time.Since(before)+900*time.Second {
		t.Errorf("life: got %v, want 15 minutes", life)
	}
	got.Expiry = time.Time{}
	want := tokenbroker.DeviceAuthorization{
		DeviceCode: tokenbroker.NewSecret(refreshCanary), UserCode: "WDJB-MJHT", VerificationURI: "https://example.com/device",
		VerificationURIComplete: "https://example.com/device?c=WDJB-MJHT", Interval: 7 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	form := url.Values{"client_id": {"the client:1"}, "client_secret": {secretCanary}, "scope": {"a b offline_access"}, "audience": {"https://api.example.com"}}
	if diff := cmp.Diff(form, f.requests("/device")[0].form); diff != "" {
		t.Errorf("form (-want +got):\n%s", diff)
	}
}

func TestDeviceRepliesAsTheyAreRead(t *testing.T) {
	with := func(s string) string { return fmt.Sprintf(deviceReply, s) }
	for _, tt := range []struct {
		name     string
		status   int
		body     string
		interval time.Duration
		class    tokenbroker.Class
		code     string
	}{
		{name: "without an interval", body: with(""), interval: 5 * time.Second},
		{name: "an interval of nothing", body: with(`,"interval":0`), interval: 5 * time.Second},
		{name: "a hectic interval", body: with(`,"interval":0.01`), interval: time.Second},
		{name: "an endless interval", body: with(`,"interval":1e300`), interval: 5 * time.Minute},
		{name: "Google's spelling", body: `{"device_code":"x","user_code":"u","verification_url":"https://google.com/device","expires_in":"1800"}`, interval: 5 * time.Second},
		{name: "a complete URI that nobody should open", body: with(`,"verification_uri_complete":"javascript:alert(1)"`), interval: 5 * time.Second},
		{name: "without a life", body: `{"device_code":"x","user_code":"u","verification_uri":"https://e.example"}`, class: transient, code: "no_expires_in"},
		{name: "with a life of nothing", body: `{"device_code":"x","user_code":"u","verification_uri":"https://e.example","expires_in":0}`, class: transient, code: "no_expires_in"},
		{name: "without a device code", body: `{"user_code":"u","verification_uri":"https://e.example","expires_in":9}`, class: transient, code: "bad_device_code"},
		{name: "without a user code", body: `{"device_code":"x","verification_uri":"https://e.example","expires_in":9}`, class: transient, code: "bad_user_code"},
		{name: "with a user code for a terminal", body: `{"device_code":"x","user_code":"\u001b[2J","verification_uri":"https://e.example","expires_in":9}`, class: transient, code: "bad_user_code"},
		{name: "with a plain URI", body: `{"device_code":"x","user_code":"u","verification_uri":"http://e.example","expires_in":9}`, class: transient, code: "bad_verification_uri"},
		{name: "with a user in the URI", body: `{"device_code":"x","user_code":"u","verification_uri":"https://google.com@e.example","expires_in":9}`, class: transient, code: "bad_verification_uri"},
		{name: "with two device codes", body: with(`,"device_code":"y"`), class: transient, code: "duplicate_key"},
		{name: "not for this client", status: 401, body: `{"error":"invalid_client"}`, class: config, code: "invalid_client"},
		{name: "GitHub's no", body: `{"error":"device_flow_disabled"}`, class: config, code: "device_flow_disabled"},
		{name: "too many", status: 429, class: throttled, code: "http_429"},
		{name: "a page", body: "<html>", class: transient, code: "unreadable_reply"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			if tt.status == 0 {
				tt.status = http.StatusOK
			}
			f.on("/device", tt.status, tt.body)
			got, err := newClient(t, f.profile(t)).StartDevice(t.Context(), deviceRequest())
			if tt.code == "" {
				if err != nil || got.Interval != tt.interval || got.VerificationURIComplete != "" {
					t.Errorf("got %+v, %v, want an interval of %v", got, err, tt.interval)
				}
				return
			}
			if f := failureOf(t, err); f.Class != tt.class || f.Code != tt.code || got.UserCode != "" {
				t.Errorf("got %+v, want %s, %s", f, tt.class, tt.code)
			}
		})
	}
}

func TestADeviceCodeIsPolledFor(t *testing.T) {
	cred, client, secret := someone("a")
	poll := tokenbroker.DevicePoll{Credential: cred, Client: client, Secret: secret, DeviceCode: tokenbroker.NewSecret(refreshCanary)}
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   outcome
	}{
		{"not yet", 400, `{"error":"authorization_pending"}`, bad(transient, "authorization_pending")},
		{"not yet, at GitHub", 200, `{"error":"authorization_pending"}`, bad(transient, "authorization_pending")},
		{"too often", 400, `{"error":"slow_down"}`, bad(throttled, "slow_down")},
		{"too often, and the provider says how often", 200, `{"error":"slow_down","interval":10}`, outcome{class: throttled, code: "slow_down", wait: 10 * time.Second}},
		{"denied", 400, `{"error":"access_denied"}`, bad(dead, "access_denied")},
		{"too late", 400, `{"error":"expired_token"}`, bad(dead, "expired_token")},
		{"a code that is not known", 400, `{"error":"invalid_grant"}`, bad(dead, "invalid_grant")},
		{"consented", 200, `{"access_token":"at","expires_in":3600,"refresh_token":"r1"}`, outcome{access: "at", life: time.Hour, scopes: "a", refresh: "r1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.on("/token", tt.status, tt.body)
			out, err := newClient(t, f.profile(t)).PollDevice(t.Context(), poll)
			if diff := cmp.Diff(tt.want, outcomeOf(t, out, err), cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			form := url.Values{
				"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {refreshCanary},
				"client_id": {"the client:1"}, "client_secret": {secretCanary},
			}
			if diff := cmp.Diff(form, f.requests("/token")[0].form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeviceRequestsThatAreNotSent(t *testing.T) {
	f := newFake(t)
	p := f.profile(t)
	p.DeviceAuthorizationEndpoint = ""
	c := newClient(t, p)
	_, err := c.StartDevice(t.Context(), deviceRequest())
	if got := failureOf(t, err); got.Code != "device_not_supported" || got.Class != config || got.Sent {
		t.Errorf("got %+v", got)
	}
	cred, client, secret := someone()
	_, err = c.PollDevice(t.Context(), tokenbroker.DevicePoll{Credential: cred, Client: client, Secret: secret})
	if got := failureOf(t, err); got.Code != "device_code_missing" || got.Sent {
		t.Errorf("got %+v", got)
	}
}
