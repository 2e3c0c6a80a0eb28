package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/agent"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// frugal lets a user have three tokens in use.
func frugal(c *agent.Config) { c.TokensPerUser = 3 }

func TestAUserHasNoMoreThanHisShareOfTokens(t *testing.T) {
	var log lines
	w := start(t, frugal, func(c *agent.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	get := func(query string) reply { return w.do("GET", "/v1/token/example/api"+query, "") }
	for _, query := range []string{"", "?scope=files.read", "?scope=files.write", "", "?scope=files.read&format=token"} {
		if r := get(query); r.code() != 200 {
			t.Errorf("within the share, %q: got %d %s, want 200", query, r.code(), r.text)
		}
	}
	const fourth = "?scope=files.read&scope=files.write"
	r := get(fourth)
	if r.code() != 429 || r.field("error", "reason") != "TOO_MANY" || r.Header.Get("Retry-After") != "10" || !strings.Contains(r.text, "may be 3: ask for fewer different scopes") {
		t.Errorf("a fourth token: got %d %s, want 429 and what to do", r.code(), r.text)
	}
	if e := w.last("token.get"); e.Code != "TOO_MANY" || e.Generation != 0 || len(e.ScopesAsked) != 2 {
		t.Errorf("got record %+v, want the refusal", e.Record)
	}
	_, err := tokenbrokerv1.NewTokenServiceClient(w.conn()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{"files.write", "files.read"}})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("by gRPC: got %v, want RESOURCE_EXHAUSTED", err)
	}
	if r := get(""); r.code() != 200 {
		t.Errorf("what is in use: got %d, want 200", r.code())
	}
	if got := log.text(); strings.Count(got, "as many different tokens in use") != 1 || !strings.Contains(got, fmt.Sprintf(`"uid":%d`, uid)) {
		t.Errorf("got log\n%s\nwant one line with the user", got)
	}
	out, err := w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/example/api"+fourth)
	if strings.Contains(out, "TOO_MANY") {
		t.Errorf("another user: got %v %s, want a share of his own", err, out)
	}
}

func TestWhatThereIsNotTakesNoShare(t *testing.T) {
	w := start(t, frugal)
	for i := range 9 {
		if r := w.do("GET", fmt.Sprintf("/v1/token/example/none-%d", i), ""); r.code() != 404 {
			t.Errorf("%d: got %d %s, want 404", i, r.code(), r.text)
		}
	}
}

func TestASubscriberIsToldOfASelectorThatIsTooMany(t *testing.T) {
	w := start(t, frugal)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 3 {
		w.AddClientCredentials(fmt.Sprintf("example/api-%d", i), "files.read")
	}
	service := tokenbrokerv1.NewTokenServiceClient(w.conn())
	all := &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{{Credential: "example/api-0"}, {Credential: "example/api-1"},
		{Credential: "example/api-2"}, {Credential: "example/api"}}}
	stream, err := service.Subscribe(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	var tokens, removed int
	for tokens+removed < 4 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetUpdate().GetToken() != nil {
			tokens++
		}
		if r := m.GetRemoved(); r != nil {
			if removed++; r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY || r.GetSelector().GetCredential() != "example/api" {
				t.Errorf("got %s removed by %s, want example/api by TOO_MANY", r.GetSelector().GetCredential(), r.GetReason())
			}
		}
	}
	if tokens != 3 || removed != 1 {
		t.Errorf("got %d tokens and %d removals, want 3 and 1", tokens, removed)
	}
	if _, err := w.job().Token(ctx, "example/api"); !errors.Is(err, tokenbroker.ErrTooMany) {
		t.Errorf("a call while they are in use: got %v, want ErrTooMany", err)
	}
}

func TestCallsOverAUsersPaceAreRefusedByAnyProtocolAndNotRecorded(t *testing.T) {
	w := start(t)
	w.do("GET", "/v1/token/example/api", "")
	before := len(w.records())
	w.Spend(uint32(uid))
	for path, body := range map[string]string{"/v1/token/example/api": "", "/v1/rejected/example/api": `{"generation": "1", "http_status": 401}`} {
		method := map[bool]string{true: "GET", false: "POST"}[body == ""]
		if r := w.do(method, path, body); r.code() != 429 || r.field("error", "reason") != "TOO_MANY" || r.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: got %d %s, want 429 TOO_MANY", path, r.code(), r.text)
		}
	}
	stream, err := tokenbrokerv1.NewTokenServiceClient(w.conn()).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{
		Selectors: []*tokenbrokerv1.Selector{{Credential: "example/api"}}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a stream: got %v, want RESOURCE_EXHAUSTED", err)
	}
	if got := len(w.records()); got != before {
		t.Errorf("got %d records of refused calls, want none", got-before)
	}
	if r := w.do("GET", "/healthz", ""); r.code() != 200 {
		t.Errorf("healthz: got %d, want 200", r.code())
	}
}

func TestAUserMakesAsManyCallsAsTheConfigSays(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.CallsPerUser = 1 })
	for range 300 { // which no machine takes five minutes for
		if r := w.do("GET", "/v1/token/example/api", ""); r.code() == 429 {
			if !strings.Contains(r.text, "which may be 1") {
				t.Errorf("got %q, want how many there may be", r.text)
			}
			return
		}
	}
	t.Error("300 calls passed, want 10 at once and then one a second")
}
