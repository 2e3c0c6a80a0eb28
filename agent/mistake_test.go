package agent_test

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/agent"
)

func TestAnAnswerToAMistakeNamesWhatIsWrong(t *testing.T) {
	w := start(t)
	for path, want := range map[string]string{
		"/v1/token/example/api?scopes=files.read":                    `the parameter \"scopes\", which there is not: there are scope, subject, audience, format, min_validity`,
		"/v1/token/example/api?" + strings.Repeat("hush", 20) + "=x": "of another name",
		"/v1/token/example/api?format=xml":                           "format: must be json",
		"/v1/token/example/api?min_validity=long":                    "min_validity: must be a duration",
		"/v1/token/example/api?min_validity=-1s":                     "min_validity: must be from",
		"/v1/token/example/api?subject=a&subject=b":                  "subject: is given twice",
		"/v1/token/example/api?scope=a+b":                            "scope: ",
		"/v1/token/No+Name":                                          "credential: ",
	} {
		if r := w.do("GET", path, ""); r.code() != 400 || !strings.Contains(r.text, want) || strings.Contains(r.text, "hush") {
			t.Errorf("%s: got %d %s, want 400 and %q", path, r.code(), r.text, want)
		}
	}
	if r := w.do("POST", "/v1/rejected/example/api", `{"generation": "1", "http_status": 200}`); !strings.Contains(r.text, "http_status: must be") {
		t.Errorf("a report: got %s, want http_status named", r.text)
	}
	for _, path := range []string{"/", "/v1", "/v2/token/example/api", "/metrics"} {
		if r := w.do("GET", path, ""); r.code() != 404 || !strings.Contains(r.text, "GET /v1/token/CREDENTIAL") || !strings.Contains(r.text, "GET /healthz") {
			t.Errorf("%s: got %d %s, want 404 and the paths that there are", path, r.code(), r.text)
		}
	}
	if r := w.do("POST", "/v1/token/example/api", ""); r.code() != 405 || r.Header.Get("Allow") != "GET" {
		t.Errorf("got %d for another method, Allow %q, want 405 and GET", r.code(), r.Header.Get("Allow"))
	}
}

func TestAHeaderThatIsMissingIsNamedAsTheCallersMistake(t *testing.T) {
	w := start(t, google, loopback(t.TempDir()))
	for front, c := range map[string]struct {
		path, want string
		status     int
	}{
		"metadata": {"/computeMetadata/v1/instance/service-accounts/default/token", "Metadata-Flavor: Google is missing", 403},
		"http":     {"/v1/token/example/api", "Authorization is missing", 401},
	} {
		r := w.tcp(front, "GET", c.path, "")
		if r.code() != c.status || r.field("error", "reason") != "FIELD_VIOLATION" || r.field("error", "recovery_action") != "FIX_CONFIGURATION" ||
			!strings.Contains(r.text, c.want) {
			t.Errorf("%s: got %d %s, want %d and %q", front, r.code(), r.text, c.status, c.want)
		}
	}
}

func TestAUserWhomNoRuleKnowsIsToldWhoseRulesTheyAre(t *testing.T) {
	me := uint32(os.Geteuid())
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "others", []uint32{me + 1}, nil, "**")} })
	for _, name := range []string{"example/api", "example/none"} { // whether there is such a credential is not told
		r := w.do("GET", "/v1/token/"+name, "")
		if r.code() != 404 || r.field("error", "reason") != "CREDENTIAL_NOT_FOUND" || !strings.Contains(r.text, "no rule of the agent on this host (agent.yaml) is for this user") {
			t.Errorf("%s: got %d %s, want 404 and that the agent's own rules decided", name, r.code(), r.text)
		}
	}
	_, err := w.ask("example/api")
	if status.Code(err) != codes.NotFound || originOf(err) != "agent" {
		t.Errorf("got %v of origin %q, want NOT_FOUND of the agent", err, originOf(err))
	}
	if err := w.SetRules(t.Context(), []agent.Rule{rule(t, "mine", []uint32{me}, nil, "example/*")}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ask("example/none"); status.Code(err) != codes.NotFound || originOf(err) != "" {
		t.Errorf("got %v of origin %q, want NOT_FOUND as the broker says it", err, originOf(err))
	}
}

// originOf is who made an error, as its details say.
func originOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetMetadata()["origin"]
		}
	}
	return "no details"
}
