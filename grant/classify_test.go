package grant_test

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// failed runs an exchange against a canned reply and returns its failure.
func failed(t *testing.T, p provider.Profile, r tokenbroker.ExchangeRequest, status int, body string, header http.Header) *tokenbroker.Failure {
	t.Helper()
	p.TokenEndpoint = "https://login.example.com/token"
	_, err := newClient(t, p, canned(status, body, header)).Exchange(t.Context(), r)
	f := failureOf(t, err)
	if !f.Sent || f.HTTPStatus != status {
		t.Errorf("got %+v, want it sent and with status %d", *f, status)
	}
	return f
}

func TestClassOfEachCode(t *testing.T) {
	for class, codes := range map[tokenbroker.Class][]string{
		dead: {
			"invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_revoked", "account_inactive", "BAD_REFRESH_TOKEN", "BAD_HUB",
			"interaction_required", "consent_required", "login_required", "bad_token", "Invalid_Grant",
		},
		config: {
			"invalid_client", "incorrect_client_credentials", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target",
			"invalid_request", "admin_policy_enforced", "disabled_client", "org_internal", "access_denied", "INVALID_CLIENT", "something_new",
		},
		throttled: {"slow_down", "ratelimited", "rate_limit_reached", "rate_limit_exceeded", "too_many_requests"},
		ambiguous: {
			"server_error", "temporarily_unavailable", "service_unavailable", "internal_failure", "internal_error", "fatal_error", "request_timeout",
		},
	} {
		for _, code := range codes {
			body := fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, replyCanary)
			for _, status := range []int{200, 400, 401, 403} {
				if f := failed(t, provider.Profile{}, refreshRequest(), status, body, nil); f.Class != class || f.Code != strings.ToLower(code) {
					t.Errorf("%d %s: got %+v, want %s", status, code, *f, class)
				}
			}
			want := class
			if class == dead {
				want = config
			}
			if f := failed(t, provider.Profile{}, ccRequest(), 400, body, nil); f.Class != want {
				t.Errorf("client credentials, %s: got %+v, want %s", code, *f, want)
			}
			if f := failed(t, provider.Profile{}, refreshRequest(), 500, body, nil); f.Class != ambiguous {
				t.Errorf("500 %s: got %+v, want ambiguous", code, *f)
			}
			if f := failed(t, provider.Profile{}, refreshRequest(), 429, body, nil); f.Class != throttled {
				t.Errorf("429 %s: got %+v, want throttled", code, *f)
			}
		}
	}
}

func TestClassOfEachStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		wait   string
		class  tokenbroker.Class
		code   string
	}{
		{301, "", transient, "redirect_refused"},
		{302, "", transient, "redirect_refused"},
		{307, "", transient, "redirect_refused"},
		{308, "", transient, "redirect_refused"},
		{304, "", transient, "redirect_refused"},
		{400, "", config, ""},
		{401, "", transient, ""},
		{402, "", transient, ""},
		{403, "", transient, ""},
		{404, "", transient, ""},
		{405, "", config, ""},
		{406, "", config, ""},
		{408, "", ambiguous, ""},
		{410, "", transient, ""},
		{413, "", config, ""},
		{415, "", config, ""},
		{421, "", transient, ""},
		{425, "", transient, ""},
		{429, "", throttled, ""},
		{451, "", transient, ""},
		{500, "", ambiguous, ""},
		{500, "5", ambiguous, ""},
		{501, "", ambiguous, ""},
		{502, "", ambiguous, ""},
		{503, "", ambiguous, ""},
		{503, "5", throttled, ""},
		{503, "0", throttled, ""},
		{504, "", ambiguous, ""},
		{599, "", ambiguous, ""},
	} {
		for _, body := range []string{"", "<html>" + replyCanary, `{"message":"` + replyCanary + `"}`, `{"error":""}`} {
			h := http.Header{}
			if tt.wait != "" {
				h.Set("Retry-After", tt.wait)
			}
			f := failed(t, provider.Profile{}, refreshRequest(), tt.status, body, h)
			if tt.status == http.StatusUnauthorized && strings.HasPrefix(body, "{") {
				tt.class = config // a server that speaks JSON, not a gateway
			}
			if f.Class != tt.class || f.Code != cmp.Or(tt.code, fmt.Sprintf("http_%d", tt.status)) {
				t.Errorf("%d, Retry-After %q, %q: got %+v, want %s", tt.status, tt.wait, body, *f, tt.class)
			}
		}
	}
}

func TestCodesAreCleaned(t *testing.T) {
	for _, tt := range []struct{ given, want string }{
		{`"Custom.Code-1_x"`, "custom.code-1_x"},
		{`"` + strings.Repeat("a", 64) + `"`, strings.Repeat("a", 64)},
		{`"` + strings.Repeat("a", 65) + `"`, "unparsable_error"},
		{`"with blank"`, "unparsable_error"},
		{`"line\nbreak"`, "unparsable_error"},
		{`"` + replyCanary + ` "`, "unparsable_error"},
		{`"<script>"`, "unparsable_error"},
		{`42`, "42"},
		{`["a"]`, "unparsable_error"},
		{`"` + refreshCanary + `"`, "unparsable_error"},
		{`"x.` + refreshCanary + `"`, "unparsable_error"},
		{`"Canary-of-the"`, "unparsable_error"},
	} {
		f := failed(t, provider.Profile{}, refreshRequest(), 400, `{"error":`+tt.given+`}`, nil)
		if f.Code != tt.want {
			t.Errorf("%s: got code %q, want %q", tt.given, f.Code, tt.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	const date = "Tue, 14 Nov 2023 22:13:20 GMT" // 1700000000
	for _, tt := range []struct {
		name   string
		header []string
		want   time.Duration
	}{
		{"seconds", []string{"Retry-After", "120"}, 2 * time.Minute},
		{"seconds with blanks", []string{"Retry-After", " 7 "}, 7 * time.Second},
		{"a date", []string{"Retry-After", "Tue, 14 Nov 2023 22:14:20 GMT", "Date", date}, time.Minute},
		{"a date gone by", []string{"Retry-After", "Tue, 14 Nov 2023 22:12:20 GMT", "Date", date}, 0},
		{"a date without the server's", []string{"Retry-After", "Tue, 14 Nov 2090 22:13:20 GMT"}, time.Hour},
		{"more than an hour", []string{"Retry-After", "86400"}, time.Hour},
		{"more than a number holds", []string{"Retry-After", "99999999999999999999"}, time.Hour},
		{"negative", []string{"Retry-After", "-5"}, 0},
		{"a fraction", []string{"Retry-After", "1.5"}, 0},
		{"a word", []string{"Retry-After", "later"}, 0},
		{"none", nil, 0},
		{"a reset time", []string{"X-RateLimit-Reset", "1700000030", "Date", date}, 30 * time.Second},
		{"a reset time, other spelling", []string{"X-Rate-Limit-Reset", "1700000030", "Date", date}, 30 * time.Second},
		{"a reset time gone by", []string{"X-RateLimit-Reset", "1600000000", "Date", date}, 0},
		{"a reset that is no time", []string{"X-RateLimit-Reset", "30", "Date", date}, 0},
		{"both", []string{"Retry-After", "9", "X-RateLimit-Reset", "1700000030", "Date", date}, 9 * time.Second},
	} {
		h := http.Header{}
		for i := 0; i+1 < len(tt.header); i += 2 {
			h.Set(tt.header[i], tt.header[i+1])
		}
		if f := failed(t, provider.Profile{}, ccRequest(), 429, "", h); f.RetryAfter != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, f.RetryAfter, tt.want)
		}
	}
}

func TestProfileRulesOverride(t *testing.T) {
	p := provider.Profile{Errors: []provider.ErrorRule{
		{Status: 503, Class: transient, RetryAfter: provider.Duration(3 * time.Second)},
		{Code: "invalid_grant", Description: "(?i)try again in", Class: throttled, RetryAfter: provider.Duration(20 * time.Second)},
		{Code: "invalid_grant", Description: "revoked by admin", Class: config},
		{Code: "no_access_token", Class: transient},
		{Status: 200, Description: "maintenance", Class: transient},
	}}
	for _, tt := range []struct {
		name, body string
		status     int
		header     http.Header
		class      tokenbroker.Class
		wait       time.Duration
	}{
		{"by status", "", 503, nil, transient, 3 * time.Second},
		{"the reply's wait wins", "", 503, http.Header{"Retry-After": {"9"}}, transient, 9 * time.Second},
		{"by description", `{"error":"invalid_grant","error_description":"Try again in a minute"}`, 400, nil, throttled, 20 * time.Second},
		{"by message", `{"error":"invalid_grant","message":"revoked by admin"}`, 400, nil, config, 0},
		{"by reason", `{"error":"invalid_grant","reason":"revoked by admin"}`, 400, nil, config, 0},
		{"by summary", `{"error":"invalid_grant","errorSummary":"revoked by admin"}`, 400, nil, config, 0},
		{"none fits", `{"error":"invalid_grant","error_description":"revoked"}`, 400, nil, dead, 0},
		{"a code of ours", `{}`, 200, nil, transient, 0},
		{"a page in place of a reply", "<h1>maintenance</h1>", 200, nil, transient, 0},
	} {
		f := failed(t, p, refreshRequest(), tt.status, tt.body, tt.header)
		if f.Class != tt.class || f.RetryAfter != tt.wait {
			t.Errorf("%s: got %+v, want %s, %v", tt.name, *f, tt.class, tt.wait)
		}
	}
}
