package daemon_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// patience is how long a test waits for what must come. It is never waited out when all is well.
const patience = 2 * time.Minute

// ask sends a request to the ops listener: status and text.
func ask(t testing.TB, b *brokertest.Broker, method, path string) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+b.Daemon.OpsAddr().String()+path, nil)
	must(t, err)
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// eventually tries a condition until it holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestOpsListener(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Ops: true})
	eventually(t, "ready", func() bool { code, _ := ask(t, b, http.MethodGet, "/readyz"); return code == http.StatusOK })
	for _, c := range []struct {
		method, path string
		status       int
		text         string
	}{
		{http.MethodGet, "/livez", 200, "ok\n"},
		{http.MethodGet, "/readyz", 200, "ok\n"},
		{http.MethodGet, "/metrics", 200, "# HELP "},
		{http.MethodHead, "/livez", 200, ""},
		{http.MethodPost, "/livez", 405, ""},
		{http.MethodPost, "/readyz", 405, ""},
		{http.MethodDelete, "/metrics", 405, ""},
		{http.MethodGet, "/", 404, ""},
		{http.MethodGet, "/livez/", 404, ""},
		{http.MethodGet, "/debug/pprof/", 404, ""},
		{http.MethodGet, "/tokens", 404, ""},
	} {
		code, text := ask(t, b, c.method, c.path)
		if code != c.status || !strings.HasPrefix(text, c.text) {
			t.Errorf("%s %s: got %d %.40q, want %d %q", c.method, c.path, code, text, c.status, c.text)
		}
	}
}

// TestReadiness: a broker that can't write its audit log is alive, and gets no calls until it can.
func TestReadiness(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Ops: true})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	full := filepath.Join(b.Dir, "full")
	must(t, os.Symlink("/dev/full", full))
	must(t, os.Rename(full, filepath.Join(b.Dir, "audit.jsonl")))
	worker := tokenbrokerv1.NewTokenServiceClient(b.Worker())
	if _, err := worker.GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err == nil {
		t.Errorf("got a token without a record of it")
	}
	code, text := ask(t, b, http.MethodGet, "/readyz")
	if code != 503 || !strings.Contains(text, "audit log") {
		t.Errorf("got %d %q, want 503 and why", code, text)
	}
	if code, _ := ask(t, b, http.MethodGet, "/livez"); code != 200 {
		t.Errorf("got %d from /livez, want 200: a restart would not help", code)
	}
	if _, text := ask(t, b, http.MethodGet, "/metrics"); !strings.Contains(text, "\ntokenbroker_audit_healthy 0\n") {
		t.Error("the metrics do not say that the audit log can't be written")
	}
	must(t, os.Remove(filepath.Join(b.Dir, "audit.jsonl")))
	eventually(t, "ready again", func() bool { code, _ := ask(t, b, http.MethodGet, "/readyz"); return code == 200 })
	b.Token("example/api")
	if _, text := ask(t, b, http.MethodGet, "/metrics"); !strings.Contains(text, "\ntokenbroker_audit_healthy 1\n") {
		t.Error("the metrics do not say that the audit log can be written again")
	}
}

// TestReadinessOnDrain: probes see the drain for as long as it lasts.
func TestReadinessOnDrain(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Ops: true})
	b.Sandbox.Fail("rotating", sandbox.Fault{Hang: true})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	eventually(t, "an exchange in flight", func() bool { return b.Sandbox.Count(sandbox.Filter{Issuer: "rotating"}) == 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Shutdown()
	}()
	eventually(t, "not ready", func() bool { code, _ := ask(t, b, http.MethodGet, "/readyz"); return code == 503 })
	if code, _ := ask(t, b, http.MethodGet, "/livez"); code != 200 {
		t.Errorf("got %d from /livez while draining, want 200", code)
	}
	b.Sandbox.Release("rotating")
	<-done
	if code, _ := ask(t, b, http.MethodGet, "/livez"); code != 0 {
		t.Errorf("got %d from /livez after the end, want no answer", code)
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
