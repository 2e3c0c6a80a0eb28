package agent_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// ask asks for a token with a bare call, and returns the trailer too.
func (w *world) ask(credential string) (metadata.MD, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var trailer metadata.MD
	_, err := tokenbrokerv1.NewTokenServiceClient(w.conn()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: credential}, grpc.Trailer(&trailer))
	return trailer, err
}

func TestAnAgentSaysThatItsOwnCertificateHasEnded(t *testing.T) {
	var log lines
	ends := time.Now().Add(5 * time.Second).Truncate(time.Second)
	w := start(t)
	w.stop()
	w.run(func(c *agent.Config) {
		short, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID, Dial: []grpc.DialOption{w.Dialer()},
			Files: w.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: ends})})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = short.Close() })
		c.Client, c.Log = short, slog.New(slog.NewJSONHandler(&log, nil))
	})
	for end := time.Now().Add(patience); w.do("GET", "/healthz", "").code() == 200; {
		if time.Now().After(end) {
			t.Fatal("the agent is well with a certificate that has ended")
		}
	}
	if got := log.text(); !strings.Contains(got, "certificate ends") || !strings.Contains(got, "not_after") {
		t.Errorf("got log %q, want a warning ahead", got)
	}
	want := "the agent's certificate ended at " + ends.UTC().Format(time.RFC3339)
	if _, err := w.ask("example/api"); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want UNAUTHENTICATED and %q", err, want)
	}
	for _, path := range []string{"/healthz", "/v1/token/example/api"} {
		if r := w.do("GET", path, ""); r.code() != 503 || r.field("error", "reason") != "CERTIFICATE_EXPIRED" || !strings.Contains(r.text, want) {
			t.Errorf("%s: got %d %s, want 503 and %q", path, r.code(), r.text, want)
		}
	}
	if e := w.last("token.get"); e.Code != "CERTIFICATE_EXPIRED" {
		t.Errorf("got a record with %s, want the reason", e.Code)
	}
}

func TestAJobIsNotToHaveItsLibraryAskAgainForABrokerThatIsAway(t *testing.T) {
	w := start(t)
	w.Shutdown()
	trailer, err := w.ask("example/api")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the agent's broker "+brokertest.Target+" does not answer") {
		t.Errorf("got %v, want UNAVAILABLE with the broker's address", err)
	}
	if got := trailer.Get("grpc-retry-pushback-ms"); len(got) != 1 || got[0] != "-1" {
		t.Errorf("got pushback %v, want -1", got)
	}
	_, err = w.job().Token(t.Context(), "example/api")
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the Go client: got %v, want UNAVAILABLE", err)
	}
	asked := 0
	for _, e := range w.records() {
		if e.Action == "token.get" {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("got %d questions in the trail, want one of each client", asked)
	}
	w.Restart()
}
