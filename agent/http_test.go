package agent_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/audit"
)

func TestAJobGetsATokenOverTheSocket(t *testing.T) {
	w := start(t)
	r := w.do("GET", "/v1/token/example/api", "")
	token, _ := r.field("access_token").(string)
	if r.code() != 200 || !w.Sandbox.Valid(token) || r.field("token_type") != "Bearer" || r.field("scope") != "files.read files.write" {
		t.Fatalf("got %d, type %v, scope %v, want 200 and a token that the provider takes", r.code(), r.field("token_type"), r.field("scope"))
	}
	if left, _ := r.field("expires_in").(float64); left < 3000 || left > 3600 {
		t.Errorf("got expires_in %v, want nearly an hour", left)
	}
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	if got := w.do("GET", "/v1/token/example/api?format=token", "").text; got != token+"\n" {
		t.Errorf("format=token: got %d bytes, want the token and a line feed", len(got))
	}
	if got := w.do("GET", "/v1/token/example/api?format=header", "").text; got != "Authorization: Bearer "+token+"\n" {
		t.Errorf("format=header: got %d bytes, want a header", len(got))
	}
	e := w.last("token.get")
	want := fmt.Sprintf("unix:uid=%d", os.Getuid())
	if e.Identity != want || e.Peer != fmt.Sprintf("pid=%d", os.Getpid()) || fmt.Sprint(uint64(e.Generation)) != r.field("generation") ||
		e.Rule != "own-uid" || e.Decision != audit.Allow || e.Code != "OK" || len(e.ScopesGranted) != 2 || e.Credential != "example/api" {
		t.Errorf("got record %+v, want who was given which generation", e.Record)
	}
	if data, _ := os.ReadFile(w.trail); strings.Contains(string(data), token) {
		t.Error("the trail holds the token")
	}
}

func TestWhatCanNotBeAnsweredSaysWhy(t *testing.T) {
	w := start(t)
	w.AddRefreshToken("example/dead", "rotating", "files.read")
	w.Sandbox.RevokeFamily(w.Token("example/dead").GetAccessToken())
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		reason             string
	}{
		"no such credential":     {"GET", "/v1/token/example/none", "", nil, 404, "CREDENTIAL_NOT_FOUND"},
		"no name of one":         {"GET", "/v1/token/No+Name", "", nil, 400, "FIELD_VIOLATION"},
		"a scope it has not":     {"GET", "/v1/token/example/api?scope=files.burn", "", nil, 403, "SCOPE_NOT_ALLOWED"},
		"too long a validity":    {"GET", "/v1/token/example/api?min_validity=20h", "", nil, 409, "MIN_VALIDITY_UNATTAINABLE"},
		"no duration":            {"GET", "/v1/token/example/api?min_validity=long", "", nil, 400, "FIELD_VIOLATION"},
		"a misspelt parameter":   {"GET", "/v1/token/example/api?scopes=files.read", "", nil, 400, "FIELD_VIOLATION"},
		"a parameter twice":      {"GET", "/v1/token/example/api?subject=a&subject=b", "", nil, 400, "FIELD_VIOLATION"},
		"a format there is not":  {"GET", "/v1/token/example/api?format=xml", "", nil, 400, "FIELD_VIOLATION"},
		"a token in the URL":     {"GET", "/v1/token/example/api?access_token=x", "", nil, 400, "FIELD_VIOLATION"},
		"a page's script":        {"GET", "/v1/token/example/api", "", []string{"Origin", "https://evil.example"}, 403, "CALLER_NOT_ALLOWED"},
		"a browser":              {"GET", "/v1/token/example/api", "", []string{"Sec-Fetch-Site", "none"}, 403, "CALLER_NOT_ALLOWED"},
		"another method":         {"POST", "/v1/token/example/api", "", nil, 405, ""},
		"only the head":          {"HEAD", "/v1/token/example/api", "", nil, 405, ""},
		"another path":           {"GET", "/v2/token/example/api", "", nil, 404, ""},
		"a report that is none":  {"POST", "/v1/rejected/example/api", `{"token": "x"}`, nil, 400, "FIELD_VIOLATION"},
		"a report of no status":  {"POST", "/v1/rejected/example/api", `{"generation": "1", "http_status": 200}`, nil, 400, "FIELD_VIOLATION"},
		"a generation not given": {"POST", "/v1/rejected/example/api", `{"generation": "999", "http_status": 401}`, nil, 409, "GENERATION_NOT_HANDED"},
		"a report that is long":  {"POST", "/v1/rejected/example/api", `{"error_code": "` + strings.Repeat("x", 5000) + `"}`, nil, 400, "FIELD_VIOLATION"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.do(c.method, c.path, c.body, c.headers...)
			reason, _ := r.field("error", "reason").(string)
			if r.code() != c.status || reason != c.reason || r.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("got %d %q, want %d %q\n%s", r.code(), reason, c.status, c.reason, r.text)
			}
			if c.reason != "" && (r.field("error", "recovery_action") == "" || r.field("error", "message") == "") {
				t.Errorf("got %s, want a message and what to do", r.text)
			}
		})
	}
}

func TestAReportBringsANewerToken(t *testing.T) {
	w := start(t)
	first := w.do("GET", "/v1/token/example/api", "")
	generation, _ := first.field("generation").(string)
	body := func(code string) string {
		return fmt.Sprintf(`{"generation": %q, "http_status": 401, "error_code": %q}`, generation, code)
	}
	r := w.do("POST", "/v1/rejected/example/api", body("invalid_token"))
	if r.code() != http.StatusOK || r.field("access_token") != nil {
		t.Fatalf("got %d %s, want 200 without a token", r.code(), r.text)
	}
	if wait, _ := r.field("retry_after_seconds").(float64); r.field("newer") != true && wait <= 0 {
		t.Errorf("got %s, want a newer generation or how long to wait", r.text)
	}
	if e := w.last("token.report"); e.Credential != "example/api" || e.Code != "OK" || e.Decision != audit.Allow {
		t.Errorf("got record %+v, want the report", e.Record)
	}
	if r := w.do("POST", "/v1/rejected/example/api", body("not a code")); r.code() != http.StatusBadRequest {
		t.Errorf("got %d for a code with blanks, want 400", r.code())
	}
}

func TestAReportOfWhatWasNotHandedIsNotToBeSentAgain(t *testing.T) {
	w := start(t)
	r := w.do("POST", "/v1/rejected/example/api", `{"generation": "999", "http_status": 401}`)
	if r.code() != http.StatusConflict || r.field("error", "recovery_action") != "FIX_CONFIGURATION" || !strings.Contains(r.text, "ask the agent for the token first") {
		t.Errorf("got %d %s, want 409 and what to do first", r.code(), r.text)
	}
	if after := r.field("error", "retry_after_seconds"); after != nil || r.Header.Get("Retry-After") != "" {
		t.Errorf("got retry_after_seconds %v, want none: to wait does not help", after)
	}
}

func TestTheAgentIsWellWhileTheBrokerIsAway(t *testing.T) {
	w := start(t)
	before := w.do("GET", "/v1/token/example/api", "")
	w.Shutdown()
	if r := w.do("GET", "/healthz", ""); r.code() != http.StatusOK {
		t.Errorf("healthz: got %d, want 200", r.code())
	}
	after := w.do("GET", "/v1/token/example/api", "")
	if after.code() != http.StatusOK || after.field("generation") != before.field("generation") {
		t.Errorf("got %d %v, want the last good token, generation %v", after.code(), after.field("generation"), before.field("generation"))
	}
	r := w.do("GET", "/v1/token/example/other", "")
	if r.code() != http.StatusServiceUnavailable || r.field("error", "reason") != "TRANSPORT" || r.Header.Get("Retry-After") == "" {
		t.Errorf("what nobody holds: got %d %s, want 503 TRANSPORT with Retry-After", r.code(), r.text)
	}
	report := fmt.Sprintf(`{"generation": "%v", "http_status": 401}`, before.field("generation"))
	r = w.do("POST", "/v1/rejected/example/api", report)
	if r.code() != http.StatusServiceUnavailable || !strings.Contains(r.text, "does not answer: report again later") || strings.Contains(r.text, "no token is held") {
		t.Errorf("a report of a token that is held: got %d %s, want 503 and that the report has to come again", r.code(), r.text)
	}
	w.Restart()
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != http.StatusOK {
		t.Errorf("after the restart: got %d %s, want 200", r.code(), r.text)
	}
}
