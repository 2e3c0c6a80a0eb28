package agent_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestWhoHalfClosesALoopbackConnectionIsNotTakenForTheAgentsUser(t *testing.T) {
	w := start(t, google, func(c *agent.Config) { c.UnidentifiedAsOwn = true })
	const request = "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nMetadata-Flavor: Google\r\nConnection: close\r\n\r\n"
	_, port, _ := net.SplitHostPort(w.at("metadata"))
	for range 100 {
		c, err := net.Dial("tcp4", w.at("metadata"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, request, port)
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.ReadAll(c)
		_ = c.Close()
	}
	for _, e := range w.records() { // whoever was found out in time is the agent's own user here, and had a token as that
		if e.Identity == "loopback:unidentified" {
			t.Fatalf("got a record of %s by rule %q, %s, want that who hid was refused", e.Identity, e.Rule, e.Decision)
		}
	}
}

func TestAQueryThatCanNotBeReadIsNotLeftOut(t *testing.T) {
	w := start(t)
	for _, query := range []string{"scope=nope%zz", "scope=nope;", "min_validity=20h;", "%"} {
		if r := w.do("GET", "/v1/token/example/api?"+query, ""); r.code() != 400 {
			t.Errorf("%s: got %d, want 400", query, r.code())
		}
	}
}

func TestUsersWhomNoRuleKnowsShareAFewCalls(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "nobody", []uint32{4_000_000}, nil, "none/*")} })
	conn := w.conn()
	refused := 0
	for range 40 {
		s, err := tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{
			Selectors: []*tokenbrokerv1.Selector{{Credential: "none/api"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Recv(); status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	if refused != 40-16 {
		t.Errorf("got %d streams refused, want all but 16", refused)
	}
}

// answered waits for a token at the metadata server's port: behind a flood a connection may be one too many for a while.
func (w *world) answered() {
	w.t.Helper()
	const request = "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1\r\nHost: %s\r\nMetadata-Flavor: Google\r\nConnection: close\r\n\r\n"
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp4", w.at("metadata"))
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(c, request, w.at("metadata"))
		_ = c.SetReadDeadline(end)
		text, _ := io.ReadAll(c)
		_ = c.Close()
		if strings.HasPrefix(string(text), "HTTP/1.1 200 ") {
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("the port does not answer any more")
		}
	}
}

// TestAFloodOfLoopbackConnectionsLeavesTheAgentItsPlaces connects and leaves far more often than a user may have connections: at once, when the
// kernel does not tell any more whose a connection was, and after the first byte of an answer.
func TestAFloodOfLoopbackConnectionsLeavesTheAgentItsPlaces(t *testing.T) {
	w := start(t, google)
	for range 15 {
		for i := range 200 {
			c, err := net.Dial("tcp4", w.at("metadata"))
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", w.at("metadata"))
				_, _ = c.Read(make([]byte, 1))
			}
			_ = c.Close()
		}
		w.answered()
		if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
			t.Errorf("at the socket: got %d, want a token", r.code())
		}
	}
}

// TestASubscriberThatDoesNotReadIsCut has updates of some 12 KB each, so that few of them fill what a connection holds.
func TestASubscriberThatDoesNotReadIsCut(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.SlowReader = time.Second })
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var scopes []string
	for i := range 60 {
		scopes = append(scopes, fmt.Sprintf("files.%03d.%s", i, strings.Repeat("x", 90)))
	}
	w.AddClientCredentials("example/long", scopes...)
	told := make(chan tokenbroker.Generation, 1000)
	stop := w.job().OnChange("example/long", func(c client.Change) {
		if c.Token != nil {
			told <- c.Token.Generation
		}
	})
	defer stop()
	stream, err := tokenbrokerv1.NewTokenServiceClient(w.conn()).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
		Selectors: []*tokenbrokerv1.Selector{{Credential: "example/long"}}})
	if err != nil {
		t.Fatal(err)
	}
	closed := func() bool {
		return slices.ContainsFunc(w.records(), func(e audit.Entry) bool { return e.Kind == audit.KindStreamClose })
	}
	for n := 0; !closed(); n++ { // what is in between takes the first ones
		if n < 100 {
			w.refresh("example/long")
		}
		if ctx.Err() != nil {
			t.Fatal("a subscriber that does not read has its stream for as long as it likes")
		}
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("who did not read: got %v, want UNAVAILABLE of a connection that was cut", err)
	}
	w.refresh("example/long")
	newest := w.Token("example/long").GetGeneration()
	for got := tokenbroker.Generation(0); uint64(got) < newest; {
		select {
		case got = <-told:
		case <-ctx.Done():
			t.Fatalf("who reads has generation %d, want %d", got, newest)
		}
	}
}
