package grant_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const year = 365 * 24 * time.Hour

// outcome is what a reply came to. Zero fields of want are compared too.
type outcome struct {
	access      string
	life        time.Duration
	estimated   bool
	scopes      string // blank-separated
	metadata    map[string]string
	refresh     string
	refreshLife time.Duration
	class       tokenbroker.Class
	code        string
	wait        time.Duration
}

func outcomeOf(t *testing.T, out tokenbroker.ExchangeReply, err error) outcome {
	t.Helper()
	got := outcome{refresh: out.RefreshToken.Reveal()}
	if !out.RefreshEnd.IsZero() {
		got.refreshLife = out.RefreshEnd.Sub(out.Sent)
	}
	if err != nil {
		f := failureOf(t, err)
		if out.Token != nil || !f.Sent {
			t.Errorf("got token %v and failure %+v", out.Token, *f)
		}
		got.class, got.code, got.wait = f.Class, f.Code, f.RetryAfter
		return got
	}
	if out.Token.Type != "Bearer" || out.Token.Generation != 0 {
		t.Errorf("got token %+v, want a Bearer without a generation", out.Token)
	}
	got.access, got.life, got.estimated = out.Token.AccessToken.Reveal(), out.Token.Life(), out.Token.ExpiryEstimated
	got.scopes, got.metadata = strings.Join(out.Token.Scopes, " "), out.Token.Metadata
	return got
}

type fixture struct {
	name        string
	profile     provider.Profile
	cc          bool // asked by client_credentials
	status      int  // 0 = 200
	contentType string
	body        string
	header      []string
	want        outcome
}

func (f fixture) run(t *testing.T) {
	t.Run(f.name, func(t *testing.T) {
		s := serve(t, reply(cmp.Or(f.status, 200), f.contentType, f.body, f.header...))
		at := trusting(t, s)
		f.profile.TokenEndpoint, f.profile.AllowPrivate, f.profile.CAFile = at.TokenEndpoint, true, at.CAFile
		request := refreshRequest("read", "write")
		if f.cc {
			request = ccRequest("read", "write")
		}
		out, err := newClient(t, f.profile).Exchange(t.Context(), request)
		got := outcomeOf(t, out, err)
		if diff := gocmp.Diff(f.want, got, gocmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("outcome (-want +got):\n%s", diff)
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("got %d requests, want 1", n)
		}
	})
}

func good(life time.Duration) outcome { return outcome{access: "at", life: life, scopes: "read write"} }

func guessed(life time.Duration) outcome {
	return outcome{access: "at", life: life, estimated: true, scopes: "read write"}
}

func bad(class tokenbroker.Class, code string) outcome { return outcome{class: class, code: code} }

const (
	dead      = tokenbroker.ClassDeadGrant
	config    = tokenbroker.ClassConfiguration
	throttled = tokenbroker.ClassThrottled
	transient = tokenbroker.ClassTransient
	ambiguous = tokenbroker.ClassAmbiguous
	skew      = tokenbroker.ClassClockSkew
)

func TestS29LivesAsWritten(t *testing.T) {
	halfDay := provider.Duration(12 * time.Hour)
	for _, f := range []fixture{
		{name: "a number", body: `{"access_token":"at","expires_in":3599}`, want: good(3599 * time.Second)},
		{name: "a string", body: `{"access_token":"at","expires_in":"28800"}`, want: good(8 * time.Hour)},
		{name: "a string with blanks", body: `{"access_token":"at","expires_in":" 60 "}`, want: good(time.Minute)},
		{name: "a fraction", body: `{"access_token":"at","expires_in":3599.5}`, want: good(3599*time.Second + 500*time.Millisecond)},
		{name: "a fraction that is none", body: `{"access_token":"at","expires_in":3600.0}`, want: good(time.Hour)},
		{name: "an exponent", body: `{"access_token":"at","expires_in":3.6e3}`, want: good(time.Hour)},
		{name: "absent", body: `{"access_token":"at"}`, want: guessed(time.Hour)},
		{name: "absent, life from the profile", profile: provider.Profile{DefaultLife: &halfDay}, body: `{"access_token":"at"}`, want: guessed(12 * time.Hour)},
		{name: "null", body: `{"access_token":"at","expires_in":null}`, want: guessed(time.Hour)},
		{name: "an empty string", body: `{"access_token":"at","expires_in":""}`, want: guessed(time.Hour)},
		{name: "a word", body: `{"access_token":"at","expires_in":"soon"}`, want: guessed(time.Hour)},
		{name: "not a number", body: `{"access_token":"at","expires_in":"NaN"}`, want: guessed(time.Hour)},
		{name: "infinity", body: `{"access_token":"at","expires_in":"Inf"}`, want: guessed(time.Hour)},
		{name: "hexadecimal", body: `{"access_token":"at","expires_in":"0x10"}`, want: guessed(time.Hour)},
		{name: "a boolean", body: `{"access_token":"at","expires_in":true}`, want: guessed(time.Hour)},
		{name: "an object", body: `{"access_token":"at","expires_in":{"s":1}}`, want: guessed(time.Hour)},
		{name: "zero", body: `{"access_token":"at","expires_in":0}`, want: bad(transient, "expired_on_arrival")},
		{name: "zero in a string", body: `{"access_token":"at","expires_in":"0"}`, want: bad(transient, "expired_on_arrival")},
		{name: "negative, with a refresh token", body: `{"access_token":"at","expires_in":-1,"refresh_token":"r2"}`,
			want: outcome{refresh: "r2", class: transient, code: "expired_on_arrival"}},
		{name: "huge", body: `{"access_token":"at","expires_in":9223372036854775807}`, want: good(year)},
		{name: "absurd", body: `{"access_token":"at","expires_in":1e99}`, want: good(year)},
		{name: "beyond any float", body: `{"access_token":"at","expires_in":1e999}`, want: good(year)},
		{name: "far below zero", body: `{"access_token":"at","expires_in":-1e999}`, want: bad(transient, "expired_on_arrival")},
		{name: "in milliseconds", profile: provider.Profile{ExpiryUnit: "ms"}, body: `{"access_token":"at","expires_in":900000}`, want: good(15 * time.Minute)},
		{name: "under another name", profile: provider.Profile{ExpiryField: "ttl"}, body: `{"access_token":"at","ttl":60,"expires_in":5}`, want: good(time.Minute)},
		{name: "of the refresh token, for ever", body: `{"access_token":"at","expires_in":60,"refresh_token":"r2","refresh_token_expires_in":0}`,
			want: outcome{access: "at", life: time.Minute, scopes: "read write", refresh: "r2"}},
		{name: "of the refresh token, huge", body: `{"access_token":"at","expires_in":60,"refresh_token":"r2","refresh_token_expires_in":1e30}`,
			want: outcome{access: "at", life: time.Minute, scopes: "read write", refresh: "r2", refreshLife: 10 * year}},
	} {
		f.run(t)
	}
}

func TestS29RepliesAsWritten(t *testing.T) {
	const ok = `{"access_token":"at","token_type":"Bearer","expires_in":60}`
	withRefresh := func(o outcome) outcome { o.refresh = "r2"; return o }
	scoped := func(s string) outcome { o := good(time.Minute); o.scopes = s; return o }
	long := strings.Repeat("x", tokenbroker.MaxSecretBytes)
	for _, f := range []fixture{
		{name: "JSON as text/plain", contentType: "text/plain", body: ok, want: good(time.Minute)},
		{name: "JSON as a form", contentType: "application/x-www-form-urlencoded", body: ok, want: good(time.Minute)},
		{name: "JSON as HTML", contentType: "text/html", body: ok, want: good(time.Minute)},
		{name: "status 201", status: 201, body: ok, want: good(time.Minute)},
		{name: "a form as JSON", contentType: "application/json", body: "access_token=at&expires_in=60", want: good(time.Minute)},
		{name: "a form with a line break", body: "access_token=at&expires_in=60\n", want: good(time.Minute)},
		{name: "a byte order mark", body: "\xef\xbb\xbf" + ok, want: good(time.Minute)},
		{name: "blanks before", body: "\r\n\t " + ok, want: good(time.Minute)},
		{name: "bytes after", body: ok + "\n\x00}garbage", want: good(time.Minute)},
		{name: "a second object after", body: ok + `{"access_token":"other"}`, want: good(time.Minute)},
		{name: "names in another case are other names", body: `{"Access_Token":"other","access_token":"at","EXPIRES_IN":5,"expires_in":60}`, want: good(time.Minute)},
		{name: "the same member twice with the same value", body: `{"access_token":"at","access_token":"at","expires_in":60}`, want: good(time.Minute)},
		{name: "two access tokens", body: `{"access_token":"at","access_token":"x","refresh_token":"r2","expires_in":60}`, want: withRefresh(bad(ambiguous, "duplicate_key"))},
		{name: "two access tokens, thrice", body: `{"access_token":"at","access_token":"x","access_token":"at","expires_in":60}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two refresh tokens", body: `{"access_token":"at","refresh_token":"r2","refresh_token":"r3","expires_in":60}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two lives", body: `{"access_token":"at","expires_in":60,"expires_in":61}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two scopes", body: `{"access_token":"at","expires_in":60,"scope":"a","scope":"b"}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two token types", body: `{"access_token":"at","expires_in":60,"token_type":"mac","token_type":"bearer"}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two errors", body: `{"access_token":"at","expires_in":60,"error":"a","error":""}`, want: bad(ambiguous, "duplicate_key")},
		{name: "two tokens in a form", body: "access_token=at&access_token=x", want: bad(ambiguous, "duplicate_key")},
		{name: "two of what does not matter", body: `{"access_token":"at","expires_in":60,"x":1,"x":2}`, want: good(time.Minute)},
		{name: "a token type in capitals", body: `{"access_token":"at","expires_in":60,"token_type":"BEARER"}`, want: good(time.Minute)},
		{name: "no token type", body: `{"access_token":"at","expires_in":60,"token_type":null}`, want: good(time.Minute)},
		{name: "an empty token type", body: `{"access_token":"at","expires_in":60,"token_type":""}`, want: good(time.Minute)},
		{name: "mac", body: `{"access_token":"at","expires_in":60,"token_type":"mac","refresh_token":"r2"}`, want: withRefresh(bad(config, "unsupported_token_type"))},
		{name: "DPoP", body: `{"access_token":"at","expires_in":60,"token_type":"DPoP"}`, want: bad(config, "unsupported_token_type")},
		{name: "a token type that is no text", body: `{"access_token":"at","expires_in":60,"token_type":{"a":1}}`, want: bad(config, "unsupported_token_type")},
		{name: "scopes in a string", body: `{"access_token":"at","expires_in":60,"scope":"write  read"}`, want: scoped("read write")},
		{name: "scopes in an array", body: `{"access_token":"at","expires_in":60,"scope":["write","read","read",""]}`, want: scoped("read write")},
		{name: "fewer scopes than asked", body: `{"access_token":"at","expires_in":60,"scope":"read"}`, want: scoped("read")},
		{name: "other scopes than asked", body: `{"access_token":"at","expires_in":60,"scope":"read admin"}`, want: scoped("admin read")},
		{name: "empty scopes", body: `{"access_token":"at","expires_in":60,"scope":""}`, want: good(time.Minute)},
		{name: "no scopes in an array", body: `{"access_token":"at","expires_in":60,"scope":[]}`, want: good(time.Minute)},
		{name: "scopes that are none", body: `{"access_token":"at","expires_in":60,"scope":[1]}`, want: good(time.Minute)},
		{name: "commas between scopes", profile: provider.Profile{ScopeSeparator: ","}, body: `{"access_token":"at","expires_in":60,"scope":"write,read"}`, want: scoped("read write")},
		{name: "no access token", body: `{"token_type":"bearer","refresh_token":"r2"}`, want: withRefresh(bad(ambiguous, "no_access_token"))},
		{name: "an access token that is no text", body: `{"access_token":7}`, want: bad(ambiguous, "no_access_token")},
		{name: "an access token with a line break", body: `{"access_token":"at\r\nX-Evil: 1","refresh_token":"r2"}`, want: withRefresh(bad(ambiguous, "bad_access_token"))},
		{name: "an access token with a zero byte", body: `{"access_token":"at\u0000"}`, want: bad(ambiguous, "bad_access_token")},
		{name: "an access token beyond ASCII", body: `{"access_token":"até"}`, want: bad(ambiguous, "bad_access_token")},
		{name: "an access token with a blank around", body: `{"access_token":" at"}`, want: bad(ambiguous, "bad_access_token")},
		{name: "an access token of the greatest size", body: `{"access_token":"` + long + `","expires_in":60}`,
			want: outcome{access: long, life: time.Minute, scopes: "read write"}},
		{name: "an access token too long", body: `{"access_token":"x` + long + `"}`, want: bad(ambiguous, "bad_access_token")},
		{name: "an empty refresh token", body: `{"access_token":"at","expires_in":60,"refresh_token":""}`, want: good(time.Minute)},
		{name: "a refresh token with a control character", body: `{"access_token":"at","expires_in":60,"refresh_token":"r\n2"}`, want: good(time.Minute)},
		{name: "a refresh token too long", body: `{"access_token":"at","expires_in":60,"refresh_token":"x` + long + `"}`, want: good(time.Minute)},
		{name: "a refresh token that is no text", body: `{"access_token":"at","expires_in":60,"refresh_token":null}`, want: good(time.Minute)},
		{name: "an error with status 200, and tokens", body: `{"access_token":"at","refresh_token":"r2","error":"invalid_scope"}`, want: withRefresh(bad(config, "invalid_scope"))},
		{name: "an error that is none", body: `{"access_token":"at","expires_in":60,"error":"","ok":true}`, want: good(time.Minute)},
		{name: "an error that is null", body: `{"access_token":"at","expires_in":60,"error":null}`, want: good(time.Minute)},
		{name: "an error that is false", body: `{"access_token":"at","expires_in":60,"error":false}`, want: good(time.Minute)},
		{name: "an error that is 0", body: `{"access_token":"at","expires_in":60,"error":0}`, want: good(time.Minute)},
		{name: "an error that is true", body: `{"access_token":"at","expires_in":60,"error":true}`, want: bad(config, "unparsable_error")},
		{name: "status 204", status: 204, want: bad(ambiguous, "empty_reply")},
		{name: "an empty body", body: "", want: bad(ambiguous, "empty_reply")},
		{name: "HTML", contentType: "text/html", body: "<html>" + replyCanary + "</html>", want: bad(ambiguous, "unreadable_reply")},
		{name: "an array", body: `[{"access_token":"at"}]`, want: bad(ambiguous, "unreadable_reply")},
		{name: "a string", body: `"access_token"`, want: bad(ambiguous, "unreadable_reply")},
		{name: "a text", body: "Access Denied", want: bad(ambiguous, "unreadable_reply")},
		{name: "JSON that breaks off", body: `{"access_token":"at","expires_in":60`, want: bad(ambiguous, "unreadable_reply")},
		{name: "JSON that breaks off after the refresh token", body: `{"refresh_token":"r2","access_token":"at","scope":"re`, want: withRefresh(bad(ambiguous, "unreadable_reply"))},
		{name: "JSON that breaks off within the refresh token", body: `{"access_token":"at","refresh_token":"r2`, want: bad(ambiguous, "unreadable_reply")},
		{name: "too deep", body: `{"a":` + strings.Repeat("[", 20000), want: bad(ambiguous, "unreadable_reply")},
	} {
		f.run(t)
	}
}

func TestProvidersAsTheyAnswer(t *testing.T) {
	day := 24 * time.Hour
	alreadyRunning := provider.ErrorRule{Status: 400, Code: "invalid_grant", Description: "already being processed", Class: ambiguous}
	hubspot := provider.Profile{ErrorPath: "status"}
	slack := provider.Profile{OKField: "ok", TokenPath: "authed_user", ScopeSeparator: ",", BearerTypes: []string{"user", "bot"}}
	zoho := provider.Profile{Metadata: []string{"api_domain"}, Errors: []provider.ErrorRule{
		{Status: 200, Code: "Access Denied", Class: throttled, RetryAfter: provider.Duration(10 * time.Minute)},
	}}
	for _, f := range []fixture{
		{name: "Google", body: `{"access_token":"at","expires_in":3599,"scope":"read write","token_type":"Bearer"}`, want: good(3599 * time.Second)},
		{name: "Google, revoked", status: 400, body: `{"error":"invalid_grant","error_description":"Token has been expired or revoked. ` + replyCanary + `"}`, want: bad(dead, "invalid_grant")},
		{name: "Google, clock", status: 400, body: `{"error":"invalid_grant","error_description":"must be a token in a reasonable timeframe"}`,
			profile: provider.Profile{Errors: []provider.ErrorRule{{Description: "reasonable timeframe", Class: skew}}}, want: bad(skew, "invalid_grant")},
		{name: "Google, down with HTML", status: 502, contentType: "text/html", body: "<html>502 " + replyCanary, want: bad(ambiguous, "http_502")},
		{name: "Google, down with JSON", status: 500, body: `{"error":"internal_failure"}`, want: bad(ambiguous, "internal_failure")},
		{name: "Google, down with status 400", status: 400, body: `{"error":"internal_failure"}`, want: bad(ambiguous, "internal_failure")},
		{name: "Entra, a new refresh token", body: `{"access_token":"at","expires_in":4300,"ext_expires_in":4300,"refresh_token":"r2","scope":"write read","token_type":"Bearer"}`,
			want: outcome{access: "at", life: 4300 * time.Second, scopes: "read write", refresh: "r2"}},
		{name: "Entra, throttled", status: 429, contentType: "text/plain", body: "Too Many Requests", header: []string{"Retry-After", "60"},
			want: outcome{class: throttled, code: "http_429", wait: time.Minute}},
		{name: "Entra, loop", status: 400, body: `{"error":"invalid_grant","error_description":"AADSTS50196: loop","error_codes":[50196],"correlation_id":"x"}`,
			profile: provider.Profile{Errors: []provider.ErrorRule{{Code: "invalid_grant", Description: "^AADSTS50196", Class: throttled, RetryAfter: provider.Duration(time.Minute)}}},
			want:    outcome{class: throttled, code: "invalid_grant", wait: time.Minute}},
		{name: "Entra, interaction", status: 400, body: `{"error":"interaction_required","suberror":"bad_token"}`, want: bad(dead, "interaction_required")},
		{name: "GitHub, form", contentType: "application/x-www-form-urlencoded",
			body: "access_token=at&expires_in=28800&refresh_token=ghr_2&refresh_token_expires_in=15811200&scope=&token_type=bearer",
			want: outcome{access: "at", life: 8 * time.Hour, scopes: "read write", refresh: "ghr_2", refreshLife: 183 * day}},
		{name: "GitHub, life as a string", body: `{"access_token":"at","expires_in":"28800","refresh_token":"ghr_2","token_type":"bearer"}`,
			want: outcome{access: "at", life: 8 * time.Hour, scopes: "read write", refresh: "ghr_2"}},
		{name: "GitHub, error in a form with status 200", contentType: "application/x-www-form-urlencoded",
			body: "error=bad_refresh_token&error_description=" + replyCanary, want: bad(dead, "bad_refresh_token")},
		{name: "GitHub, error in JSON with status 200", body: `{"error":"incorrect_client_credentials"}`, want: bad(config, "incorrect_client_credentials")},
		{name: "Slack, nested", profile: slack, body: `{"ok":true,"authed_user":{"access_token":"at","token_type":"user","refresh_token":"xoxe-2","expires_in":43200,"scope":"write,read"}}`,
			want: outcome{access: "at", life: 12 * time.Hour, scopes: "read write", refresh: "xoxe-2"}},
		{name: "Slack, not ok", profile: slack, body: `{"ok":false,"error":"invalid_refresh_token"}`, want: bad(dead, "invalid_refresh_token")},
		{name: "Slack, not ok for no reason", profile: slack, body: `{"ok":false}`, want: bad(ambiguous, "unparsable_error")},
		{name: "Slack, fatal", profile: slack, body: `{"ok":false,"error":"fatal_error"}`, want: bad(ambiguous, "fatal_error")},
		{name: "Slack, the bot's token in place of the user's", profile: slack, body: `{"ok":true,"access_token":"xoxb","token_type":"bot"}`, want: bad(ambiguous, "no_access_token")},
		{name: "Slack, throttled with status 200", profile: slack, body: `{"ok":false,"error":"ratelimited"}`, header: []string{"Retry-After", "30"},
			want: outcome{class: throttled, code: "ratelimited", wait: 30 * time.Second}},
		{name: "Salesforce", profile: provider.Profile{DefaultLife: new(provider.Duration(2 * time.Hour)), Metadata: []string{"instance_url", "issued_at", "absent"}},
			body: `{"access_token":"at","instance_url":"https://acme.example.com","issued_at":"1700000000000","token_type":"Bearer"}`,
			want: outcome{access: "at", life: 2 * time.Hour, estimated: true, scopes: "read write",
				metadata: map[string]string{"instance_url": "https://acme.example.com", "issued_at": "1700000000000"}}},
		{name: "Salesforce, our own earlier attempt", status: 400, profile: provider.Profile{Errors: []provider.ErrorRule{alreadyRunning}},
			body: `{"error":"invalid_grant","error_description":"token request is already being processed"}`, want: bad(ambiguous, "invalid_grant")},
		{name: "Salesforce, dead", status: 400, profile: provider.Profile{Errors: []provider.ErrorRule{alreadyRunning}},
			body: `{"error":"invalid_grant","error_description":"expired access/refresh token"}`, want: bad(dead, "invalid_grant")},
		{name: "Okta, throttled", status: 429, body: `{"errorCode":"E0000047"}`, header: []string{"X-Rate-Limit-Reset", "1700000042", "Date", "Tue, 14 Nov 2023 22:13:20 GMT"},
			want: outcome{class: throttled, code: "http_429", wait: 42 * time.Second}},
		{name: "Auth0, family revoked", status: 403, body: `{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}`, want: bad(dead, "invalid_grant")},
		{name: "Auth0, limit", status: 500, body: `{"error":"access_denied","error_description":"Global limit has been reached"}`,
			profile: provider.Profile{Errors: []provider.ErrorRule{{Status: 500, Code: "access_denied", Description: "(?i)global limit", Class: throttled}}}, want: bad(throttled, "access_denied")},
		{name: "Atlassian", status: 403, body: `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`,
			profile: provider.Profile{Errors: []provider.ErrorRule{{Status: 403, Description: "refresh_token is invalid", Class: dead}}}, want: bad(dead, "unauthorized_client")},
		{name: "Atlassian, wrong secret", status: 401, body: `{"error":"access_denied","error_description":"Unauthorized"}`, want: bad(config, "access_denied")},
		{name: "QuickBooks", profile: provider.Profile{RefreshTokenExpiryField: "x_refresh_token_expires_in"},
			body: `{"access_token":"at","expires_in":3600,"refresh_token":"` + refreshCanary + `","x_refresh_token_expires_in":8726400,"token_type":"bearer"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "read write", refresh: refreshCanary, refreshLife: 101 * day}},
		{name: "HubSpot, dead", status: 400, profile: hubspot, body: `{"status":"BAD_REFRESH_TOKEN","error":"invalid_grant","message":"x"}`, want: bad(dead, "bad_refresh_token")},
		{name: "HubSpot, portal gone", status: 403, profile: hubspot, body: `{"status":"BAD_HUB","error":"access_denied"}`, want: bad(dead, "bad_hub")},
		{name: "HubSpot, an error elsewhere", status: 400, profile: hubspot, body: `{"error":"invalid_client"}`, want: bad(config, "invalid_client")},
		{name: "HubSpot, throttled", status: 429, profile: hubspot, body: `{"status":"error","errorType":"RATE_LIMIT"}`, want: bad(throttled, "error")},
		{name: "Zoho", profile: zoho, body: `{"access_token":"at","api_domain":"https://www.example.eu","expires_in":3600,"token_type":"Bearer"}`,
			want: outcome{access: "at", life: time.Hour, scopes: "read write", metadata: map[string]string{"api_domain": "https://www.example.eu"}}},
		{name: "Zoho, throttled with status 200", profile: zoho, body: `{"error":"Access Denied","status":"failure"}`,
			want: outcome{class: throttled, code: "unparsable_error", wait: 10 * time.Minute}},
		{name: "PayPal", cc: true, body: `{"access_token":"at","expires_in":"32400","token_type":"Bearer","app_id":"x"}`, want: good(9 * time.Hour)},
		{name: "PayPal, throttled", cc: true, status: 429, body: `{"name":"RATE_LIMIT_REACHED","message":"x","debug_id":"y"}`, want: bad(throttled, "http_429")},
		{name: "Zoom", status: 400, contentType: "text/plain", body: "Invalid Token!",
			profile: provider.Profile{Errors: []provider.ErrorRule{{Status: 400, Description: "Invalid Token!", Class: dead}}}, want: bad(dead, "http_400")},
		{name: "Spotify, the token stays", body: `{"access_token":"at","expires_in":3600,"scope":"read write","token_type":"Bearer"}`, want: good(time.Hour)},
		{name: "LinkedIn", body: `{"access_token":"at","expires_in":5184000,"refresh_token":"r2","refresh_token_expires_in":86400}`,
			want: outcome{access: "at", life: 60 * day, scopes: "read write", refresh: "r2", refreshLife: day}},
		{name: "LinkedIn, refused at the door", status: 999, want: bad(ambiguous, "http_999")},
		{name: "Airtable, replayed", status: 400, body: `{"error":"invalid_grant"}`, want: bad(dead, "invalid_grant")},
		{name: "Fiserv", profile: provider.Profile{ExpiryUnit: "ms"}, cc: true, body: `{"access_token":"at","expires_in":"1800000"}`, want: good(30 * time.Minute)},
		{name: "an error object", status: 400, body: `{"error":{"code":"invalid_client","message":"` + replyCanary + `"}}`, want: bad(config, "invalid_client")},
		{name: "an error object that says nothing", status: 400, body: `{"error":{"message":"` + replyCanary + `"}}`, want: bad(config, "unparsable_error")},
		{name: "an array of errors", status: 401, body: `{"errors":[{"message":"` + replyCanary + `"}]}`, want: bad(config, "http_401")},
	} {
		f.run(t)
	}
}

func TestNarrowerScopesNeedTheReplysWord(t *testing.T) {
	for _, tt := range []struct {
		name, scope string
		scopes      string // granted, "" = refused
	}{
		{"confirmed", `"read"`, "read"},
		{"confirmed in an array", `["read"]`, "read"},
		{"even fewer", `"list"`, "list"},
		{"all in spite of it", `"list read write"`, ""},
		{"one more", `"read admin"`, ""},
		{"silence", `null`, ""},
		{"empty", `""`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, request := range []tokenbroker.ExchangeRequest{refreshRequest("list", "read", "write"), ccRequest("list", "read", "write")} {
				request.Variant = tokenbroker.NewVariant([]string{"read", "list"}, "", "")
				s := serve(t, reply(200, "", `{"access_token":"at","expires_in":60,"refresh_token":"r2","scope":`+tt.scope+`}`))
				p := trusting(t, s)
				p.Downscopes = new(true)
				out, err := newClient(t, p).Exchange(t.Context(), request)
				if out.RefreshToken.Reveal() != "r2" {
					t.Error("the refresh token got lost")
				}
				if tt.scopes == "" {
					if f := failureOf(t, err); out.Token != nil || f.Code != "downscope_not_confirmed" || f.Class != config {
						t.Errorf("got %v, %+v, want a refusal", out.Token, f)
					}
					continue
				}
				if err != nil || !slices.Equal(out.Token.Scopes, strings.Fields(tt.scopes)) {
					t.Errorf("got %+v, %v, want scopes %s", out.Token, err, tt.scopes)
				}
			}
		})
	}
}

func TestMetadataIsWhatTheProfileNames(t *testing.T) {
	s := serve(t, reply(200, "", `{"access_token":"at","expires_in":60,"a":{"b":"c","n":7,"t":true},"long":"`+strings.Repeat("x", 2000)+`","nl":"a\nb","other":"x","o":{}}`))
	p := trusting(t, s)
	p.Metadata = []string{"a.b", "a.n", "a.t", "a.none", "long", "nl", "o"}
	out, err := newClient(t, p).Exchange(t.Context(), ccRequest())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a.b": "c", "a.n": "7", "a.t": "true"}
	if diff := gocmp.Diff(want, out.Token.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}
