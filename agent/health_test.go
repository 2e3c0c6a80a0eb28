package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/brokertest"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// until reads a watch until it says so.
func until(t *testing.T, watch grpc_health_v1.Health_WatchClient, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatalf("a watch that waits for %s ends with %v", want, err)
		}
		if m.GetStatus() == want {
			return
		}
	}
}

func TestHealthSaysTheSameOverHTTPAndGRPC(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	service := grpc_health_v1.NewHealthClient(w.conn())
	check := func(name string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		r, err := service.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetStatus()
	}
	names := []string{"", "readiness", "tokenbroker.v1.TokenService"}
	watch, err := service.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "readiness"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, watch, serving)
	if err := errors.Join(os.Remove(w.trail), os.Mkdir(w.trail, 0o700)); err != nil { // where the trail was is a folder now
		t.Fatal(err)
	}
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 503 {
		t.Errorf("a token without a record: got %d, want 503", r.code())
	}
	if r := w.do("GET", "/healthz", ""); r.code() != 503 || r.field("error", "reason") != "AUDIT_UNAVAILABLE" {
		t.Errorf("healthz: got %d %s, want 503 AUDIT_UNAVAILABLE", r.code(), r.text)
	}
	until(t, watch, notServing)
	for _, name := range names {
		if got := check(name); got != notServing {
			t.Errorf("health of %q: got %s, want NOT_SERVING", name, got)
		}
	}
	if got := check("liveness"); got != serving {
		t.Errorf("liveness: got %s, want SERVING: a restart mends no disk", got)
	}
	if err := os.Remove(w.trail); err != nil {
		t.Fatal(err)
	}
	until(t, watch, serving)
	if r := w.do("GET", "/healthz", ""); r.code() != 200 || check("") != serving {
		t.Errorf("with a trail again: got %d and %s, want 200 and SERVING", r.code(), check(""))
	}
}

func TestABrokerThatIsNotThereAtTheStartIsToldOfBeforeAJobAsks(t *testing.T) {
	w := start(t)
	w.stop()
	w.Shutdown()
	var log lines
	w.run(func(c *agent.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	if r := w.do("GET", "/healthz", ""); r.code() != 200 {
		t.Errorf("got %d, want an agent that is ready all the same", r.code())
	}
	await := func(text string) {
		t.Helper()
		for end := time.Now().Add(2 * patience); !strings.Contains(log.text(), text); {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q:\n%s", text, log.text())
			}
			w.do("GET", "/healthz", "")
		}
	}
	await("the broker can't be reached")
	for _, want := range []string{`"level":"WARN"`, `"broker":"` + brokertest.Target, "tokenctl get", `"error":"`} {
		if !strings.Contains(log.text(), want) {
			t.Errorf("got log\n%s\nwant %s", log.text(), want)
		}
	}
	w.Restart()
	await("the broker is reached")
	if got := log.text(); strings.Count(got, "can't be reached") != 1 || strings.Count(got, "is reached") != 1 {
		t.Errorf("got log\n%s\nwant one line of each", got)
	}
}

func TestABrokerThatIsThereAtTheStartIsNotWorthALine(t *testing.T) {
	var log lines
	w := start(t, func(c *agent.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
		t.Errorf("got %d, want a token", r.code())
	}
	w.stop()
	if got := log.text(); strings.Contains(got, "reached") {
		t.Errorf("got log\n%s\nwant nothing of the broker", got)
	}
}
