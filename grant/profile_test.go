package grant_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// effect is what one field of a profile does, as an operator writes it.
type effect struct {
	field string // its key in YAML
	yaml  string // what is added to the profile
	edit  func(*tokenbroker.ExchangeRequest)
	sent  map[string]string // form fields of the request, and headers with a ':' behind; "-" = not there
	body  string            // of the reply; "" = a usual one
	want  outcome           // zero = the usual one
}

const usual = `{"access_token":"at","expires_in":3600,"token_type":"Bearer"}`

func variant(scopes []string, audience string) func(*tokenbroker.ExchangeRequest) {
	return func(r *tokenbroker.ExchangeRequest) {
		r.Variant = tokenbroker.NewVariant(scopes, "", audience)
	}
}

func effects() []effect {
	basic := func(r *tokenbroker.ExchangeRequest) { r.Client.Auth = tokenbroker.AuthClientSecretBasic }
	readOnly := outcome{access: "at", life: time.Hour, scopes: "read"}
	return []effect{
		{field: "profile", yaml: "profile: generic", sent: map[string]string{"grant_type": "refresh_token", "scope": "-"}},
		{field: "token_endpoint", yaml: "", sent: map[string]string{":path": "/oauth/token", ":host": "login.example.com"}},
		{field: "raw_basic", yaml: "raw_basic: false", edit: basic, sent: map[string]string{":basic": "the+client%3A1 " + url.QueryEscape(secretCanary)}},
		{field: "raw_basic", yaml: "raw_basic: true", edit: func(r *tokenbroker.ExchangeRequest) { basic(r); r.Client.ClientID = "a b" }, sent: map[string]string{":basic": "a b " + secretCanary}},
		{field: "accept", yaml: "", sent: map[string]string{"Accept:": "application/json"}},
		{field: "accept", yaml: "accept: application/vnd.acme+json", sent: map[string]string{"Accept:": "application/vnd.acme+json"}},
		{field: "token_params", yaml: `token_params: {tenant: "7"}`, sent: map[string]string{"tenant": "7", "refresh_token": refreshCanary}},
		{field: "scope_separator", yaml: "scope_separator: \",\"\nscope_on_refresh: true", sent: map[string]string{"scope": "read,write"},
			body: `{"access_token":"at","expires_in":3600,"scope":"write,read"}`},
		{field: "scope_on_refresh", yaml: "", sent: map[string]string{"scope": "-"}},
		{field: "scope_on_refresh", yaml: "scope_on_refresh: true", sent: map[string]string{"scope": "read write"}},
		{field: "audience_parameter", yaml: "", edit: variant([]string{"read", "write"}, "https://api.example.com"),
			sent: map[string]string{"audience": "https://api.example.com", "resource": "-"}},
		{field: "audience_parameter", yaml: "audience_parameter: resource", edit: variant([]string{"read", "write"}, "https://api.example.com"),
			sent: map[string]string{"audience": "-", "resource": "https://api.example.com"}},
		{field: "token_path", yaml: "token_path: data.user", body: `{"access_token":"wrong","data":{"user":{"access_token":"at","expires_in":3600}}}`},
		{field: "token_path", yaml: "token_path: data.user", body: usual, want: bad(ambiguous, "no_access_token")},
		{field: "expiry_field", yaml: "expiry_field: ttl", body: `{"access_token":"at","ttl":60,"expires_in":3600}`, want: good(time.Minute)},
		{field: "expiry_unit", yaml: "expiry_unit: ms", body: `{"access_token":"at","expires_in":60000}`, want: good(time.Minute)},
		{field: "refresh_token_expiry_field", yaml: "refresh_token_expiry_field: rt_ttl", body: `{"access_token":"at","expires_in":3600,"refresh_token":"r2","rt_ttl":86400}`,
			want: outcome{access: "at", life: time.Hour, scopes: "read write", refresh: "r2", refreshLife: 24 * time.Hour}},
		{field: "refresh_endpoint", yaml: "refresh_endpoint: https://login.example.com/oauth/refresh", sent: map[string]string{":path": "/oauth/refresh"}},
		{field: "grant_types", yaml: "grant_types: {refresh_token: renew}", sent: map[string]string{"grant_type": "renew"}},
		{field: "body_format", yaml: "body_format: form", sent: map[string]string{"refresh_token": refreshCanary}},
		{field: "expiry_unit", yaml: "expiry_field: expires_at\nexpiry_unit: unix", body: `{"access_token":"at","expires_at":99999999999}`, want: good(year)},
		{field: "expiry_unit", yaml: "expiry_unit: unix_ms", body: `{"access_token":"at","expires_in":"99999999999999"}`, want: good(year)},
		{field: "expiry_unit", yaml: "expiry_unit: rfc3339", body: `{"access_token":"at","expires_in":"2999-01-01T00:00:00Z"}`, want: good(year)},
		{field: "expiry_unit", yaml: "expiry_unit: rfc3339", body: `{"access_token":"at","expires_in":"soon"}`, want: guessed(time.Hour)},
		{field: "expiry_unit", yaml: "expiry_unit: unix", body: `{"access_token":"at","expires_in":3600}`, want: bad(transient, "expired_on_arrival")},
		{field: "scope_aliases", yaml: "scope_aliases: {r: read}", body: `{"access_token":"at","expires_in":3600,"scope":"r write"}`},
		{field: "scope_resource", yaml: "scope_resource: https://api.example.com/", body: `{"access_token":"at","expires_in":3600,"scope":"https://api.example.com/write read"}`},
		{field: "catch_all_scope", yaml: "catch_all_scope: /.default", edit: func(r *tokenbroker.ExchangeRequest) {
			r.Credential.Scopes = []string{"https://api.example.com/.default"}
		},
			body: `{"access_token":"at","expires_in":3600,"scope":"https://api.example.com/read https://api.example.com/write"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "https://api.example.com/.default"}},
		{field: "catch_all_scope", yaml: "catch_all_scope: /.default", edit: func(r *tokenbroker.ExchangeRequest) {
			r.Credential.Scopes = []string{"https://api.example.com/.default"}
		},
			body: `{"access_token":"at","expires_in":3600,"scope":"https://api.example.com/read https://api.example.com.evil.example/read"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "https://api.example.com.evil.example/read https://api.example.com/.default"}},
		{field: "account", yaml: "account: [userinfo.email, user.name]", body: `{"access_token":"at","expires_in":3600,"user":{"name":"ann"}}`},
		{field: "bearer_types", yaml: "bearer_types: [session]", body: `{"access_token":"at","expires_in":3600,"token_type":"Session"}`},
		{field: "ok_field", yaml: "ok_field: ok", body: `{"ok":false,"error":"invalid_grant","access_token":"at"}`, want: bad(dead, "invalid_grant")},
		{field: "error_path", yaml: "error_path: failure.code", body: `{"failure":{"code":"invalid_grant"}}`, want: bad(dead, "invalid_grant")},
		{field: "metadata", yaml: "metadata: [site.url]", body: `{"access_token":"at","expires_in":3600,"site":{"url":"https://eu.example.com"},"other":"x"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "read write", metadata: map[string]string{"site.url": "https://eu.example.com"}}},
		{field: "errors", yaml: "errors: [{code: invalid_grant, class: transient, retry_after: 7s}]", body: `{"error":"invalid_grant"}`,
			want: outcome{class: transient, code: "invalid_grant", wait: 7 * time.Second}},
		{field: "default_life", yaml: "", body: `{"access_token":"at"}`, want: guessed(time.Hour)},
		{field: "default_life", yaml: "default_life: 10m", body: `{"access_token":"at"}`, want: guessed(10 * time.Minute)},
		{field: "downscopes", yaml: "downscopes: true", edit: variant([]string{"read"}, ""), sent: map[string]string{"scope": "read"},
			body: `{"access_token":"at","expires_in":3600,"scope":"read"}`, want: readOnly},
		{field: "downscopes", yaml: "downscopes: true", edit: variant([]string{"read"}, ""), sent: map[string]string{"scope": "read"},
			body: `{"access_token":"at","expires_in":3600,"scope":"read write"}`, want: bad(config, "downscope_not_confirmed")},
		{field: "rotates", yaml: "rotates: false", body: `{"access_token":"at","expires_in":3600,"refresh_token":"r2"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "read write", refresh: "r2"}}, // one that comes all the same is kept
	}
}

// profileOf reads a provider "acme" from YAML, as the broker's configuration has it.
func profileOf(t *testing.T, yaml string) provider.Profile {
	t.Helper()
	text := "acme:\n  token_endpoint: https://login.example.com/oauth/token\n"
	for line := range strings.Lines(yaml) {
		text += "  " + line
	}
	all, err := provider.Parse([]byte(text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return all["acme"]
}

func TestEachFieldOfAProfileHasItsEffect(t *testing.T) {
	for _, e := range effects() {
		t.Run(e.field+" "+e.yaml, func(t *testing.T) {
			var request *http.Request
			var form url.Values
			transport := func(cfg *grant.Config) {
				cfg.Transport = func(string) http.RoundTripper {
					return roundTrip(func(r *http.Request) (*http.Response, error) {
						b, err := io.ReadAll(r.Body)
						parsed, perr := url.ParseQuery(string(b))
						request, form = r, parsed
						body := io.NopCloser(strings.NewReader(orUsual(e.body)))
						return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: r}, errors.Join(err, perr)
					})
				}
			}
			r := refreshRequest("read", "write")
			if e.edit != nil {
				e.edit(&r)
			}
			out, err := newClient(t, profileOf(t, e.yaml), transport).Exchange(t.Context(), r)
			got := outcomeOf(t, out, err)
			if e.want.class == "" && e.want.access == "" {
				e.want = good(time.Hour)
			}
			if diff := cmp.Diff(e.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			for name, want := range e.sent {
				if got := sentAs(request, form, name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func orUsual(body string) string {
	if body == "" {
		return usual
	}
	return body
}

// sentAs is what was sent under a name: a form field, a header with a ':' behind, or a part of the request with one in front.
func sentAs(r *http.Request, form url.Values, name string) string {
	header, isHeader := strings.CutSuffix(name, ":")
	user, password, _ := basicAuth(r.Header)
	switch {
	case name == ":path":
		return r.URL.Path
	case name == ":host":
		return r.URL.Host
	case name == ":basic":
		return user + " " + password
	case isHeader:
		return r.Header.Get(header)
	case !form.Has(name):
		return "-"
	}
	return form.Get(name)
}

// TestNoFieldOfAProfileIsForgotten walks the fields of a profile: each has a row above, or a reason not to.
func TestNoFieldOfAProfileIsForgotten(t *testing.T) {
	known := map[string]string{
		"issuer": "of the tests of assertions", "auth_methods": "of Validate", "rate": "the engine's", "burst": "the engine's",
		"ca_file": "of the tests with TLS", "proxy": "of the tests with TLS", "proxy_resolves": "of the tests of the guard", "allow_private": "of the tests with TLS",
		"insecure_loopback": "of the tests with TLS", "grace": "a trait", "kills_old": "a trait", "idle_life": "a trait",
		"absolute_life": "a trait", "strikes": "a trait", "floor": "a trait", "live_tokens": "a trait",
	}
	for field := range strings.FieldsSeq("assertion_audience grant_audience assertion_life scope_in_assertion assertion_claims subject_token_type " +
		"requested_token_type exchange_unauthenticated api_key_header grants pkce") {
		known[field] = "of the tests of their grants"
	}
	for field := range strings.FieldsSeq("title notes sources test_of parts with") {
		known[field] = "for people, and the catalogue's"
	}
	maps.Copy(known, consentFields())
	for _, e := range effects() {
		known[e.field] = "a row"
	}
	for field := range reflect.TypeFor[provider.Profile]().Fields() {
		key := field.Tag.Get("yaml")
		if known[key] == "" {
			t.Errorf("field %q has no row", key)
		}
		delete(known, key)
	}
	for key := range known {
		t.Errorf("there is no field %q", key)
	}
}

// TestEachTraitComesThroughToTheEngine writes each trait in YAML and looks for it in what the engine is told.
func TestEachTraitComesThroughToTheEngine(t *testing.T) {
	yaml := "rotates: false\ngrace: 90s\nkills_old: true\nidle_life: 90d\nabsolute_life: 1d12h\nstrikes: 3\nfloor: 45s\n" +
		"live_tokens: 2\ndefault_life: 2h\ndownscopes: true"
	cat, err := provider.New(map[string]provider.Profile{"acme": profileOf(t, yaml)})
	if err != nil {
		t.Fatal(err)
	}
	got, ok := cat.Traits("acme")
	want := tokenbroker.Traits{
		Grace: 90 * time.Second, KillsOld: true, IdleLife: 90 * 24 * time.Hour, AbsoluteLife: 36 * time.Hour, Strikes: 3,
		Floor: 45 * time.Second, LiveTokens: 2, DefaultLife: 2 * time.Hour, Downscopes: true,
	}
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("traits: %t (-want +got):\n%s", ok, diff)
	}
}

// TestFurtherProvidersAsTheyAnswer has the answers of servers that differ from their neighbours in one thing that matters.
func TestFurtherProvidersAsTheyAnswer(t *testing.T) {
	for _, f := range []fixture{
		{name: "Xero, rotated", body: `{"access_token":"at","expires_in":1800,"token_type":"Bearer","refresh_token":"r2","scope":"read write"}`,
			want: outcome{access: "at", life: 30 * time.Minute, scopes: "read write", refresh: "r2"}},
		{name: "Xero, a replay within the grace brings another successor", body: `{"access_token":"at","expires_in":1800,"token_type":"Bearer","refresh_token":"r3"}`,
			want: outcome{access: "at", life: 30 * time.Minute, scopes: "read write", refresh: "r3"}},
		{name: "Xero, a replay after it", status: 400, body: `{"error":"invalid_grant"}`, want: bad(dead, "invalid_grant")},
		{name: "GitLab, rotated", body: `{"access_token":"at","token_type":"Bearer","expires_in":7200,"refresh_token":"r2","scope":"read write","created_at":1700000000}`,
			want: outcome{access: "at", life: 2 * time.Hour, scopes: "read write", refresh: "r2"}},
		{name: "GitLab, replayed", status: 400, body: `{"error":"invalid_grant","error_description":"The provided authorization grant is invalid, expired, revoked. ` + replyCanary + `"}`,
			want: bad(dead, "invalid_grant")},
		{name: "Cognito, with an id token and no new refresh token", body: `{"id_token":"` + replyCanary + `","access_token":"at","expires_in":3600,"token_type":"Bearer"}`,
			want: good(time.Hour)},
		{name: "Cognito, an unknown client", status: 400, body: `{"error":"invalid_client"}`, want: bad(config, "invalid_client")},
		{name: "Cognito, the user is gone", status: 400, body: `{"error":"invalid_grant"}`, want: bad(dead, "invalid_grant")},
		{name: "an installation token, which has a date in place of a life", body: `{"access_token":"at","expires_at":"2030-01-01T00:00:00Z"}`, want: guessed(time.Hour)},
		{name: "an installation token under another name", body: `{"token":"at","expires_at":"2030-01-01T00:00:00Z"}`, want: bad(ambiguous, "no_access_token")},
	} {
		f.run(t)
	}
}
