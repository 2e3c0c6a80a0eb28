package load_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/bench/load"
	"github.com/tokenbroker/tokenbroker/bench/subject"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokens is a server whose answers the test chooses.
type tokens struct {
	tokenbrokerv1.UnimplementedTokenServiceServer
	get       func(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error)
	subscribe func(grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error
}

func (s *tokens) GetToken(ctx context.Context, r *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	return s.get(ctx, r)
}

func (s *tokens) Subscribe(_ *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
	return s.subscribe(out)
}

// serve serves tokens and connects to it.
func serve(t *testing.T, s *tokens) (*load.Conn, *grpc.Server) {
	t.Helper()
	site, err := subject.NewSite(t.TempDir())
	fatal(t, err)
	source, err := mtls.Open(mtls.Files{Cert: site.Dir + "/server.pem", Key: site.Dir + "/server.key", CA: site.Dir + "/ca.pem"})
	fatal(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(source.ServerTLS(mtls.ServerOptions{}))))
	tokenbrokerv1.RegisterTokenServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		fatal(t, <-done)
	})
	client, err := site.ClientTLS()
	fatal(t, err)
	c, err := load.Dial(t.Context(), load.Target{Addr: l.Addr().String(), TLS: client})
	fatal(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, server
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token is an answer with an access token of n bytes.
func token(n int) *tokenbrokerv1.GetTokenResponse {
	return &tokenbrokerv1.GetTokenResponse{Token: &tokenbrokerv1.Token{AccessToken: strings.Repeat("x", n)}}
}

// plan checks that tokens have n bytes.
func plan(t *testing.T, inFlight, n int) load.Plan {
	t.Helper()
	request, err := proto.Marshal(&tokenbrokerv1.GetTokenRequest{Credential: "bench/a"})
	fatal(t, err)
	return load.Plan{Method: tokenbrokerv1.TokenService_GetToken_FullMethodName, Request: request, InFlight: inFlight, Check: func(msg []byte) error {
		r := &tokenbrokerv1.GetTokenResponse{}
		if err := proto.Unmarshal(msg, r); err != nil {
			return err
		}
		if got := len(r.GetToken().GetAccessToken()); got != n {
			return errors.New("a token of another length")
		}
		return nil
	}}
}

func TestEveryCallIsMadeAndChecked(t *testing.T) {
	for _, size := range []int{1, 1024, 200 << 10} { // the last comes in many frames
		asked := make(chan string, 1000)
		c, _ := serve(t, &tokens{get: func(ctx context.Context, r *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a call came without a deadline")
			}
			asked <- r.GetCredential()
			return token(size), nil
		}})
		got, err := c.Call(plan(t, 16, size))
		fatal(t, err)
		if got.Calls != 16 || got.Errors != 0 || len(got.Latencies) != 16 || len(asked) != 16 {
			t.Errorf("%d bytes: got %d calls, %d errors, %d latencies, %d requests; want 16, 0, 16, 16", size, got.Calls, got.Errors, len(got.Latencies), len(asked))
		}
		if name := <-asked; name != "bench/a" {
			t.Errorf("the server was asked for %q", name)
		}
	}
}

func TestCallsFollowEachOtherUntilTheTimeIsOver(t *testing.T) {
	c, _ := serve(t, &tokens{get: func(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
		return token(3), nil
	}})
	p := plan(t, 2, 3)
	p.For = 200 * time.Millisecond
	began := time.Now()
	got, err := c.Call(p)
	fatal(t, err)
	if took := time.Since(began); took < p.For || got.Calls < 2 || got.Errors > 0 {
		t.Errorf("got %d calls with %d errors in %s", got.Calls, got.Errors, took)
	}
}

func TestAWrongReplyIsAnError(t *testing.T) {
	c, _ := serve(t, &tokens{get: func(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
		return token(4), nil
	}})
	got, err := c.Call(plan(t, 3, 5))
	fatal(t, err)
	if got.Calls != 3 || got.Errors != 3 || got.First == nil || len(got.Latencies) != 0 {
		t.Errorf("got %d calls, %d errors, first %v, %d latencies", got.Calls, got.Errors, got.First, len(got.Latencies))
	}
}

func TestARefusalIsAnError(t *testing.T) {
	c, _ := serve(t, &tokens{get: func(context.Context, *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
		return nil, status.Error(codes.NotFound, "no such credential")
	}})
	got, err := c.Call(plan(t, 1, 5))
	fatal(t, err)
	if got.Errors != 1 || !strings.Contains(got.First.Error(), `grpc-status "5"`) {
		t.Errorf("got %d errors, first %v", got.Errors, got.First)
	}
}

func TestAGoodMessageBeforeABadStatusIsAnError(t *testing.T) {
	c, _ := serve(t, &tokens{subscribe: func(out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		_ = out.Send(update(1))
		return status.Error(codes.Internal, "after all")
	}})
	got, err := c.Call(load.Plan{Method: tokenbrokerv1.TokenService_Subscribe_FullMethodName, InFlight: 1, Check: func([]byte) error { return nil }})
	fatal(t, err)
	if got.Errors != 1 || !strings.Contains(got.First.Error(), `grpc-status "13" after 1 messages`) {
		t.Errorf("got %d errors, first %v", got.Errors, got.First)
	}
}

func TestALostConnectionEndsTheCalls(t *testing.T) {
	held := make(chan struct{})
	c, server := serve(t, &tokens{get: func(ctx context.Context, _ *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
		close(held)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	go func() {
		<-held
		server.Stop()
	}()
	if _, err := c.Call(plan(t, 1, 5)); err == nil {
		t.Error("got no error")
	}
}

func update(generation uint64) *tokenbrokerv1.SubscribeResponse {
	return &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{Generation: generation}}}
}

func TestEveryMessageOfEveryStreamComes(t *testing.T) {
	const streams, messages = 20, 50
	c, _ := serve(t, &tokens{subscribe: func(out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		for i := range messages {
			u := update(uint64(i + 1))
			u.GetUpdate().Selector = &tokenbrokerv1.Selector{Credential: strings.Repeat("x", i%3*10_000)} // some come in more than one frame
			if err := out.Send(u); err != nil {
				return err
			}
		}
		<-out.Context().Done()
		return out.Context().Err()
	}})
	next := make([]uint64, streams)
	left := streams * messages
	err := c.Streams(tokenbrokerv1.TokenService_Subscribe_FullMethodName, make([][]byte, streams), func(stream int, msg []byte) error {
		m := &tokenbrokerv1.SubscribeResponse{}
		if err := proto.Unmarshal(msg, m); err != nil {
			return err
		}
		if next[stream]++; m.GetUpdate().GetGeneration() != next[stream] {
			t.Errorf("stream %d: got %d, want %d", stream, m.GetUpdate().GetGeneration(), next[stream])
		}
		if left--; left == 0 {
			return c.Close()
		}
		return nil
	})
	if err != nil || left != 0 {
		t.Errorf("got %v with %d messages left, want none", err, left)
	}
}

func TestAStreamThatEndsIsAnError(t *testing.T) {
	c, _ := serve(t, &tokens{subscribe: func(grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		return status.Error(codes.ResourceExhausted, "too many")
	}})
	err := c.Streams(tokenbrokerv1.TokenService_Subscribe_FullMethodName, make([][]byte, 1), func(int, []byte) error { return nil })
	if err == nil || !strings.Contains(err.Error(), `grpc-status "8"`) {
		t.Errorf("got %v", err)
	}
}

func TestAMessageThatIsNotWantedEndsTheStreams(t *testing.T) {
	c, _ := serve(t, &tokens{subscribe: func(out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		err := out.Send(update(1))
		<-out.Context().Done()
		return err
	}})
	wrong := errors.New("not this one")
	err := c.Streams(tokenbrokerv1.TokenService_Subscribe_FullMethodName, make([][]byte, 1), func(int, []byte) error { return wrong })
	if !errors.Is(err, wrong) {
		t.Errorf("got %v, want %v", err, wrong)
	}
}

func TestDialRefusesAServerThatSpeaksNoHTTP2(t *testing.T) {
	site, err := subject.NewSite(t.TempDir())
	fatal(t, err)
	source, err := mtls.Open(mtls.Files{Cert: site.Dir + "/server.pem", Key: site.Dir + "/server.key", CA: site.Dir + "/ca.pem"})
	fatal(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", source.ServerTLS(mtls.ServerOptions{}))
	fatal(t, err)
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	client, err := site.ClientTLS()
	fatal(t, err)
	if c, err := load.Dial(t.Context(), load.Target{Addr: l.Addr().String(), TLS: client}); err == nil {
		_ = c.Close()
		t.Error("got a connection")
	}
	<-done
}
