package grant

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxRetryAfter  = time.Hour   // a longer wait is cut: the engine asks again and is told again
	maxDescription = 4 << 10     // bytes of an unstructured body that profiles' patterns see
	maxSkew        = time.Minute // more than servers bear with
	unparsable     = "unparsable_error"
)

var codePattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// codeClass is what error codes mean, whatever the status below 500; compared in lower case. A code that is not here is a
// refusal that somebody has to look at: configuration.
var codeClass = map[string]tokenbroker.Class{
	// The grant itself is refused. Without a refresh token in the request these are configuration.
	"invalid_grant":         tokenbroker.ClassDeadGrant,
	"bad_refresh_token":     tokenbroker.ClassDeadGrant,
	"invalid_refresh_token": tokenbroker.ClassDeadGrant,
	"token_revoked":         tokenbroker.ClassDeadGrant,
	"account_inactive":      tokenbroker.ClassDeadGrant,
	"bad_hub":               tokenbroker.ClassDeadGrant,
	"interaction_required":  tokenbroker.ClassDeadGrant,
	"consent_required":      tokenbroker.ClassDeadGrant,
	"login_required":        tokenbroker.ClassDeadGrant,
	"bad_token":             tokenbroker.ClassDeadGrant,

	// What was configured is refused. Nobody has to consent again.
	"invalid_client":               tokenbroker.ClassConfiguration,
	"incorrect_client_credentials": tokenbroker.ClassConfiguration,
	"unauthorized_client":          tokenbroker.ClassConfiguration,
	"unsupported_grant_type":       tokenbroker.ClassConfiguration,
	"invalid_scope":                tokenbroker.ClassConfiguration,
	"invalid_target":               tokenbroker.ClassConfiguration,
	"invalid_request":              tokenbroker.ClassConfiguration,
	"admin_policy_enforced":        tokenbroker.ClassConfiguration,
	"disabled_client":              tokenbroker.ClassConfiguration,
	"org_internal":                 tokenbroker.ClassConfiguration,
	"access_denied":                tokenbroker.ClassConfiguration,

	"slow_down":           tokenbroker.ClassThrottled,
	"ratelimited":         tokenbroker.ClassThrottled,
	"rate_limit_reached":  tokenbroker.ClassThrottled,
	"rate_limit_exceeded": tokenbroker.ClassThrottled,
	"too_many_requests":   tokenbroker.ClassThrottled,

	// The server is in trouble, and may have done part of the work.
	"server_error":            tokenbroker.ClassAmbiguous,
	"temporarily_unavailable": tokenbroker.ClassAmbiguous,
	"service_unavailable":     tokenbroker.ClassAmbiguous,
	"internal_failure":        tokenbroker.ClassAmbiguous,
	"internal_error":          tokenbroker.ClassAmbiguous,
	"fatal_error":             tokenbroker.ClassAmbiguous,
	"request_timeout":         tokenbroker.ClassAmbiguous,
}

// statusClass is what a reply means whose status says all there is to say: always for the first rows, and without an error code
// for the others. A redirect, or a 401 without JSON, a 403 or 404 without a code, comes of a gateway, a maintenance page or a deployment in the way: no
// authorization server speaks there, and it passes as it came.
var statusClass = []struct {
	from, to int
	always   bool
	class    tokenbroker.Class
	code     string // in place of the reply's; "" = the reply's
}{
	{300, 399, true, tokenbroker.ClassTransient, "redirect_refused"},
	{408, 408, true, tokenbroker.ClassAmbiguous, ""},
	{429, 429, true, tokenbroker.ClassThrottled, ""},
	{500, 999, true, tokenbroker.ClassAmbiguous, ""},
	{200, 299, false, tokenbroker.ClassAmbiguous, ""},
	{400, 400, false, tokenbroker.ClassConfiguration, ""},
	{405, 406, false, tokenbroker.ClassConfiguration, ""},
	{411, 415, false, tokenbroker.ClassConfiguration, ""},
	{401, 499, false, tokenbroker.ClassTransient, ""},
}

// refusal is the failure of a reply that says no.
func (q *call) refusal(a answer, top fields) *tokenbroker.Failure {
	given := errorCode(top, q.at.profile.ErrorPath)
	f := &tokenbroker.Failure{HTTPStatus: a.status, Code: q.clean(given), Skew: a.skew, Sent: true}
	if given == "" && a.status >= http.StatusMultipleChoices {
		f.Code = "http_" + strconv.Itoa(a.status) // more than nothing for whoever is on call
	}
	f.Class = q.class(a, f, given != "")
	if given == "" && a.status == http.StatusUnauthorized && len(top.raw) > 0 {
		f.Class = tokenbroker.ClassConfiguration // a server that speaks JSON refuses us in its own words
	}
	return q.finish(f, a, given, description(top, a.body))
}

// fault is the failure of a reply that says yes and is of no use.
func (q *call) fault(a answer, class tokenbroker.Class, code string) *tokenbroker.Failure {
	f := &tokenbroker.Failure{Class: class, Code: code, Skew: a.skew, HTTPStatus: a.status, Sent: true}
	return q.finish(f, a, code, string(a.body[:min(len(a.body), maxDescription)]))
}

// class reads the tables. It may replace the code, where the status says more.
func (q *call) class(a answer, f *tokenbroker.Failure, named bool) tokenbroker.Class {
	if _, waits := retryAfter(a.header); waits && a.status == http.StatusServiceUnavailable {
		return tokenbroker.ClassThrottled
	}
	for _, row := range statusClass {
		if row.from <= a.status && a.status <= row.to && (row.always || !named) {
			if row.code != "" {
				f.Code = row.code
			}
			return row.class
		}
	}
	class, known := codeClass[f.Code]
	if !known || class == tokenbroker.ClassDeadGrant && !q.spends {
		return tokenbroker.ClassConfiguration
	}
	return class
}

// finish lets the profile's rules override the class and reads how long to wait.
func (q *call) finish(f *tokenbroker.Failure, a answer, code, description string) *tokenbroker.Failure {
	f.RetryAfter, _ = retryAfter(a.header)
	if q.blamesClock(f, description) {
		f.Class = tokenbroker.ClassClockSkew
	}
	for _, rule := range q.at.profile.Errors {
		if rule.Matches(a.status, code, description) {
			f.Class, f.Cause = rule.Class, rule.Cause
			if f.RetryAfter == 0 {
				f.RetryAfter = time.Duration(rule.RetryAfter)
			}
			break
		}
	}
	if f.RetryAfter == 0 && f.Class == tokenbroker.ClassThrottled {
		f.RetryAfter = resetAfter(a.header)
	}
	return f
}

// blamesClock reports whether an assertion was refused because clocks differ: the provider says so, or they do.
func (q *call) blamesClock(f *tokenbroker.Failure, description string) bool {
	if !q.signed || f.Code != "invalid_grant" && f.Code != "invalid_client" && f.Code != "invalid_request" {
		return false
	}
	return f.Skew.Abs() > maxSkew || strings.Contains(strings.ToLower(description), "reasonable timeframe")
}

// clean returns an error code that can go into an error: of harmless characters, in lower case, and nothing that was sent.
func (q *call) clean(code string) string {
	if !codePattern.MatchString(code) {
		return unparsable
	}
	code = strings.ToLower(code)
	if _, known := codeClass[code]; !known && slices.ContainsFunc(q.secrets, func(s string) bool { return echoes(code, s) }) {
		return unparsable
	}
	return code
}

// telling is how many bytes of a secret tell something of it.
const telling = 8

// echoes reports whether a code holds a secret, or a good part of one.
func echoes(code, secret string) bool {
	secret = strings.ToLower(secret)
	return code == secret || len(secret) >= telling && strings.Contains(code, secret) ||
		len(code) >= telling && strings.Contains(secret, code)
}

// carries reports whether one of the texts of a reply holds one of the secrets. Such a text is not for people, logs or records.
func carries(texts, secrets []string) bool {
	return slices.ContainsFunc(texts, func(text string) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= telling && strings.Contains(text, s) })
	})
}

// errorCode returns the error code as the server sent it, "" if the reply names none: what is at the profile's path, or
// else where RFC 6749 §5.2 has it.
func errorCode(top fields, path string) string {
	return cmp.Or(codeAt(top, path), codeAt(top, "error"))
}

// codeAt returns the code at a path. Some servers put it inside an object.
func codeAt(top fields, path string) string {
	value := top.value(path)
	if len(value) == 0 {
		return ""
	}
	switch value[0] {
	case '{':
		inner := parseObject(value)
		for _, name := range []string{"code", "type", "error", "status"} {
			if s := inner.text(name); s != "" {
				return s
			}
		}
		return unparsable
	case '[', 't':
		return unparsable
	}
	s := top.scalar(path)
	if s == "false" || s == "0" && value[0] != '"' {
		return ""
	}
	return s
}

// description returns the text that profiles' patterns look at. It goes nowhere else.
func description(top fields, body []byte) string {
	for _, path := range []string{"error_description", "error.message", "message", "detail", "reason", "errorSummary"} {
		if s := top.text(path); s != "" {
			return s
		}
	}
	if top.whole {
		return ""
	}
	return string(body[:min(len(body), maxDescription)])
}

// retryAfter reads Retry-After (RFC 9110 §10.2.3): seconds, or a date that is compared with the reply's own so that clocks
// need not agree. It is at most an hour. Not ok means that there is none.
func retryAfter(h http.Header) (time.Duration, bool) {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return maxRetryAfter, true
		}
		return clampWait(time.Duration(n) * time.Second), true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return clampWait(at.Sub(serverTime(h))), true
}

// resetAfter reads the headers that rate limiters use in place of Retry-After, if they hold seconds of the Unix epoch.
func resetAfter(h http.Header) time.Duration {
	for _, name := range []string{"X-Rate-Limit-Reset", "X-Ratelimit-Reset"} {
		if n, err := strconv.ParseInt(strings.TrimSpace(h.Get(name)), 10, 64); err == nil && n > 1e9 && n < 1e11 {
			return clampWait(time.Unix(n, 0).Sub(serverTime(h)))
		}
	}
	return 0
}

func serverTime(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

func clampWait(d time.Duration) time.Duration { return max(0, min(d, maxRetryAfter)) }
