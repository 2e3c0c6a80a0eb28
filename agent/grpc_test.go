package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// job is a client of the agent, as a job makes one.
func (w *world) job() *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{Addr: "unix://" + w.socket})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// conn is a bare connection to the agent.
func (w *world) conn() *grpc.ClientConn {
	w.t.Helper()
	c, err := grpc.NewClient("unix://"+w.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestTheGoClientWorksAgainstAnAgent(t *testing.T) {
	w := start(t)
	c := w.job()
	tok, err := c.Token(t.Context(), "example/api", client.Scopes("files.read"))
	if err != nil || !w.Sandbox.Valid(tok.AccessToken.Reveal()) || !slices.Equal(tok.Scopes, []string{"files.read"}) {
		t.Fatalf("got scopes %v, %v, want a token of files.read", tok.Scopes, err)
	}
	for name, tc := range map[string]struct {
		credential string
		opts       []client.Option
		want       error
	}{
		"unknown":                {"example/none", nil, tokenbroker.ErrNotFound},
		"malformed":              {"Not A Name", nil, tokenbroker.ErrInvalidArgument},
		"a scope it has not":     {"example/api", []client.Option{client.Scopes("files.burn")}, tokenbroker.ErrScopeNotAllowed},
		"a validity beyond life": {"example/api", []client.Option{client.MinValidity(20 * time.Hour)}, tokenbroker.ErrMinValidity},
	} {
		if _, err := c.Token(t.Context(), tc.credential, tc.opts...); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	current, wait, err := c.ReportRejected(t.Context(), "example/api", tok, 401, client.Scopes("files.read"), client.ErrorCode("invalid_token"))
	if err != nil || current.Generation < tok.Generation || current.Generation == tok.Generation && wait == 0 {
		t.Errorf("a report: got generation %d after %d, wait %v, %v, want a newer one or how long to wait", current.Generation, tok.Generation, wait, err)
	}
}

func TestAFreshTokenIsPushedToLocalSubscribers(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var first tokenbroker.Generation
	for u, err := range w.job().Subscribe(ctx, "example/api") {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case u.Token == nil:
		case first == 0:
			first = u.Order.Generation
			if u.State != tokenbroker.StateReady || u.RefreshTime.IsZero() || len(u.Scopes) != 2 {
				t.Errorf("got %s, refresh at %v, scopes %v, want all that the broker tells", u.State, u.RefreshTime, u.Scopes)
			}
			w.refresh("example/api")
		case u.Order.Generation > first:
			cancel()
		}
	}
	if ctx.Err() != context.Canceled {
		t.Fatal("no fresh token came")
	}
	opened, delivered := w.last("token.subscribe"), 0
	for _, e := range w.records() {
		if e.Kind == audit.KindDeliver && e.Generation > 0 && slices.Equal(e.Streams, opened.Streams) && strings.HasPrefix(e.Identity, "unix:uid=") {
			delivered++
		}
	}
	if delivered < 2 {
		t.Errorf("got records of %d deliveries, want one of each token", delivered)
	}
}

// refresh has the broker fetch another token.
func (w *world) refresh(credential string) {
	w.t.Helper()
	_, err := tokenbrokerv1.NewCredentialServiceClient(w.Operator()).RefreshCredential(w.t.Context(),
		&tokenbrokerv1.RefreshCredentialRequest{Credential: credential})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestAStreamIsAnsweredAsTheBrokerWould(t *testing.T) {
	w := start(t, func(c *agent.Config) {
		c.Rules = []agent.Rule{rule(t, "some", []uint32{0, uint32(uid)}, nil, "example/*")}
	})
	service := tokenbrokerv1.NewTokenServiceClient(w.conn())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := service.Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{
		{Credential: "example/api"}, {Credential: "example/none"}, {Credential: "other/api"}}})
	if err != nil {
		t.Fatal(err)
	}
	var updates, removed, ends int
	for updates+removed+ends < 4 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch e := m.GetEvent().(type) {
		case *tokenbrokerv1.SubscribeResponse_Update:
			if u := e.Update; u.GetToken() != nil {
				updates++
				if !u.GetDefaultScopes() || u.GetSelector().GetCredential() != "example/api" {
					t.Errorf("got an update of %v, default scopes %v", u.GetSelector().GetCredential(), u.GetDefaultScopes())
				}
			}
		case *tokenbrokerv1.SubscribeResponse_Removed:
			removed++
		case *tokenbrokerv1.SubscribeResponse_SnapshotEnd:
			ends++
		}
	}
	if updates != 1 || removed != 2 || ends != 1 {
		t.Errorf("got %d updates, %d removals, %d ends of a snapshot, want 1, 2 and 1", updates, removed, ends)
	}
	// Rules that no longer give it take it off the stream.
	if err := w.SetRules(t.Context(), []agent.Rule{rule(t, "none", []uint32{uint32(uid)}, nil, "elsewhere/*")}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetRemoved().GetSelector().GetCredential() != "example/api" {
		t.Errorf("got %v, want example/api removed", err)
	}
	// A drain tells the stream before it ends.
	go w.stop()
	if m, err := stream.Recv(); err != nil || m.GetGoingAway() == nil {
		t.Errorf("got %v, want going away", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestRequestsThatNoBrokerTakesAreRefused(t *testing.T) {
	w := start(t)
	service := tokenbrokerv1.NewTokenServiceClient(w.conn())
	if _, err := service.GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api", MinValidity: durationpb.New(-1)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want INVALID_ARGUMENT for a validity below 0", err)
	}
	for name, selectors := range map[string][]*tokenbrokerv1.Selector{
		"none":       nil,
		"twice":      {{Credential: "example/api"}, {Credential: "example/api"}},
		"malformed":  {{Credential: "No Name"}},
		"a blank":    {{Credential: "example/api", Scopes: []string{"a b"}}},
		"a long one": {{Credential: "example/api", Subject: strings.Repeat("x", 400)}},
	} {
		stream, err := service.Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{Selectors: selectors})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

func TestHealthIsServedUntilTheDrain(t *testing.T) {
	w := start(t)
	service := grpc_health_v1.NewHealthClient(w.conn())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := service.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "tokenbroker.v1.TokenService"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v, want SERVING", m.GetStatus(), err)
	}
	w.stop() // which a watch does not hold up
}

// grpcurl runs the real thing against the socket.
func (w *world) grpcurl(args ...string) (string, error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "grpcurl", append([]string{"-unix", "-plaintext"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestGrpcurlWorksAgainstAnAgent(t *testing.T) {
	w := start(t)
	out, err := w.grpcurl(w.socket, "list")
	if err != nil || !strings.Contains(out, "tokenbroker.v1.TokenService") || !strings.Contains(out, "grpc.health.v1.Health") {
		t.Errorf("list: got %v\n%s", err, out)
	}
	out, err = w.grpcurl("-d", `{"credential": "example/api"}`, w.socket, "tokenbroker.v1.TokenService/GetToken")
	var got struct {
		Token struct{ AccessToken, Generation string }
		State string
	}
	if json.Unmarshal([]byte(out), &got) != nil || err != nil || !w.Sandbox.Valid(got.Token.AccessToken) || got.State != "CREDENTIAL_STATE_READY" {
		t.Errorf("GetToken: got %v, state %s, want a token that the provider takes", err, got.State)
	}
	out, err = w.grpcurl("-d", `{"credential": "example/none"}`, w.socket, "tokenbroker.v1.TokenService/GetToken")
	if err == nil || !strings.Contains(out, "CREDENTIAL_NOT_FOUND") || !strings.Contains(out, "recoveryAction") {
		t.Errorf("an unknown one: got %v\n%s\nwant NotFound with its details", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "grpcurl", "-unix", "-plaintext", "-d", `{"selectors": [{"credential": "example/api"}]}`, w.socket,
		"tokenbroker.v1.TokenService/Subscribe")
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan() && !strings.Contains(text.String(), "snapshotEnd"); {
		text.WriteString(lines.Text())
	}
	cancel()
	_ = cmd.Wait()
	if !strings.Contains(text.String(), `"accessToken"`) || !strings.Contains(text.String(), "snapshotEnd") {
		t.Errorf("Subscribe: got %d bytes, want a token and the end of the snapshot", text.Len())
	}
}
