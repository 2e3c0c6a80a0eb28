package grant_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestABodyOfJSON(t *testing.T) {
	c, rec := recording(t, provider.Profile{BodyFormat: "json", TokenParams: map[string]string{"tenant": "7"}})
	r := refreshRequest("a")
	r.Credential.Resources = []string{"https://a.example.com/", "https://b.example.com/"}
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	sent := rec.only(t)
	var got map[string]any
	if err := json.Unmarshal([]byte(sent.body), &got); err != nil || sent.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %q, %v", sent.header.Get("Content-Type"), err)
	}
	want := map[string]any{"grant_type": "refresh_token", "refresh_token": refreshCanary, "client_id": "the client:1", "client_secret": secretCanary,
		"tenant": "7", "resource": []any{"https://a.example.com/", "https://b.example.com/"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

func TestFieldsInTheURL(t *testing.T) {
	c, rec := recording(t, provider.Profile{BodyFormat: "query", TokenEndpoint: "https://login.example.com/token?v=2"})
	r := ccRequest("a")
	r.Client.Auth = tokenbroker.AuthClientSecretBasic
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	sent := rec.only(t)
	u, err := url.Parse(sent.url)
	if err != nil || sent.body != "" || sent.method != http.MethodPost || sent.header.Get("Content-Type") != "" || sent.header.Get("Authorization") == "" {
		t.Fatalf("got %s with body %q, %v", sent.method, sent.body, err)
	}
	if diff := cmp.Diff(url.Values{"v": {"2"}, "grant_type": {"client_credentials"}, "scope": {"a"}}, u.Query()); diff != "" {
		t.Errorf("query (-want +got):\n%s", diff)
	}
}

// TestFieldsInTheURLAreKnownToBeSentOrNot: there is no body that could be sealed, so the connection decides.
func TestFieldsInTheURLAreKnownToBeSentOrNot(t *testing.T) {
	dropping := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = c.Close()
		}
	})
	lostAnswer := trusting(t, dropping)
	lostAnswer.BodyFormat = "query"
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		sent    bool
		class   tokenbroker.Class
	}{
		{"nobody listens", provider.Profile{TokenEndpoint: "https://" + nobody + "/token", AllowPrivate: true, BodyFormat: "query"}, false, transient},
		{"the answer is lost", lostAnswer, true, ambiguous},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := failureOf(t, second(newClient(t, tt.profile).Exchange(t.Context(), refreshRequest("a"))))
			if f.Sent != tt.sent || f.Class != tt.class {
				t.Errorf("got %+v, want sent %t, %s", f, tt.sent, tt.class)
			}
		})
	}
	if got := len(dropping.requests()); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
}

func TestResourcesAndParametersAsSent(t *testing.T) {
	c, rec := recording(t, provider.Profile{AudienceParameter: "resource"})
	r := ccRequest("a")
	r.Credential.Resources = []string{"https://a.example.com/", "https://b.example.com/"}
	r.Credential.Audience = "https://b.example.com/"
	r.Credential.Parameters = map[string]string{"tenant": "7"}
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	form := rec.only(t).form
	if diff := cmp.Diff([]string{"https://b.example.com/", "https://a.example.com/"}, form["resource"]); diff != "" || form.Get("tenant") != "7" {
		t.Errorf("tenant %q, resource (-want +got):\n%s", form.Get("tenant"), diff)
	}
	r.Credential.Parameters = map[string]string{"Grant_Type": "password"}
	if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Code != "parameter_not_allowed" || f.Sent {
		t.Errorf("got %+v", f)
	}
}

// TestWhatAReplySaysBesides: whose account it is, what was granted in which spelling, and how clocks differ.
func TestWhatAReplySaysBesides(t *testing.T) {
	c, rec := recording(t, provider.Profile{
		Account:      []string{"id_token.email", "userinfo.email", "team.id", "user"},
		ScopeAliases: map[string]string{"email": "https://example.com/auth/email", "old": "new"},
	})
	rec.body = `{"access_token":"at","expires_in":60,"user":"ann","scope":"old https://example.com/auth/email read"}`
	rec.header.Set("Date", "Mon, 01 Jan 2001 00:00:00 GMT")
	r := refreshRequest("email", "read")
	out, err := c.Exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"email", "new", "read"}, out.Granted); diff != "" {
		t.Errorf("granted (-want +got):\n%s", diff)
	}
	if out.Account != "ann" || out.Skew.Hours() < 20*365*24 {
		t.Errorf("account %q, skew %s", out.Account, out.Skew)
	}
	rec.body = plainReply
	rec.header.Del("Date")
	if out, err = c.Exchange(t.Context(), r); err != nil || out.Granted != nil || out.Account != "" || out.Skew != 0 {
		t.Errorf("got %v, %q, %s, %v of a reply that says nothing", out.Granted, out.Account, out.Skew, err)
	}
}

func TestACauseIsHandedOn(t *testing.T) {
	rules := []provider.ErrorRule{
		{Code: "invalid_grant", Description: "already being processed", Class: transient, Cause: "concurrent_refresh"},
		{Code: "invalid_grant", Description: "AADSTS50196", Class: throttled, Cause: "refresh_loop"},
	}
	for description, want := range map[string]tokenbroker.Failure{
		"token request is already being processed": {Class: transient, Code: "invalid_grant", Cause: "concurrent_refresh", HTTPStatus: 400, Sent: true},
		"AADSTS50196: the server ended a loop":     {Class: throttled, Code: "invalid_grant", Cause: "refresh_loop", HTTPStatus: 400, Sent: true},
		"expired":                                  {Class: dead, Code: "invalid_grant", HTTPStatus: 400, Sent: true},
	} {
		c := newClient(t, provider.Profile{TokenEndpoint: "https://login.example.com/token", Errors: rules},
			canned(400, `{"error":"invalid_grant","error_description":"`+description+`"}`, http.Header{}))
		if f := failureOf(t, second(c.Exchange(t.Context(), refreshRequest("a")))); *f != want {
			t.Errorf("%s: got %+v, want %+v", description, *f, want)
		}
	}
}

// TestASecretInTheURLIsNotTold has an error of the network, which likes to quote URLs.
func TestASecretInTheURLIsNotTold(t *testing.T) {
	for _, endpoint := range []string{"https://127.0.0.1:1/token", "https://no-such-host.invalid/token"} {
		c := newClient(t, provider.Profile{TokenEndpoint: endpoint, AllowPrivate: true, BodyFormat: "query"})
		if f := failureOf(t, second(c.Exchange(t.Context(), refreshRequest("a")))); f.Sent || f.Class != transient {
			t.Errorf("%s: got %+v", endpoint, f)
		}
	}
}
