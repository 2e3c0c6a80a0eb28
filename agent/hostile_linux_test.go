package agent_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/agent"
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
	if refused < 40-16 {
		t.Errorf("got %d streams refused, want all but 16", refused)
	}
}

// TestAFloodOfLoopbackConnectionsLeavesTheAgentItsTime has another process connect and leave, as fast as it can.
func TestAFloodOfLoopbackConnectionsLeavesTheAgentItsTime(t *testing.T) {
	w := start(t, google)
	host, port, _ := net.SplitHostPort(w.at("metadata"))
	flood := exec.Command("bash", "-c", "for i in {1..2000}; do exec 3<>/dev/tcp/"+host+"/"+port+"; exec 3>&-; done")
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flood.Wait() }()
	for n := range 20 {
		if r := w.do("GET", "/v1/token/example/api?format="+[]string{"json", "token"}[n%2], ""); r.code() != 200 {
			t.Errorf("call %s: got %d, want a token", strconv.Itoa(n), r.code())
		}
	}
	if r := w.tcp("metadata", "GET", "/computeMetadata/v1/instance/service-accounts/default/token", "", "Metadata-Flavor", "Google"); r.code() != 200 {
		t.Errorf("got %d of the port itself, want a token", r.code())
	}
}
