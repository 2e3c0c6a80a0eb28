package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// fake is a broker without TLS, as an agent is, that does what a real one does only when something is badly wrong.
type fake struct {
	tokenbrokerv1.UnimplementedTokenServiceServer
	get    func(call int) (*tokenbrokerv1.GetTokenResponse, error)
	stream func(call int, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error // nil = it knows no streams

	mu            sync.Mutex
	gets, streams int
}

func (f *fake) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n++
	return *n
}

func (f *fake) GetToken(ctx context.Context, _ *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	n := f.count(&f.gets)
	if f.get == nil {
		return &tokenbrokerv1.GetTokenResponse{Token: token(n, time.Hour), RefreshTime: timestamppb.New(time.Now().Add(50 * time.Minute))}, nil
	}
	resp, err := f.get(n)
	if p := pushback(""); errors.As(err, &p) {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", string(p)))
		return nil, status.Error(codes.Unavailable, "later")
	}
	return resp, err
}

// seen says how many calls there were of each.
func (f *fake) seen() (gets, streams int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets, f.streams
}

// pushback is UNAVAILABLE with a time in milliseconds after which to ask again; -1 = not at all.
type pushback string

func (pushback) Error() string { return "later" }

func (f *fake) Subscribe(r *tokenbrokerv1.SubscribeRequest, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
	n := f.count(&f.streams)
	if f.stream == nil {
		return f.UnimplementedTokenServiceServer.Subscribe(r, out)
	}
	return f.stream(n, out)
}

func token(generation int, life time.Duration) *tokenbrokerv1.Token {
	return &tokenbrokerv1.Token{AccessToken: "a", TokenType: "Bearer", Generation: uint64(generation), ExpireTime: timestamppb.New(time.Now().Add(life))}
}

// serve runs a fake until the function that it returns is called.
func serveFake(f *fake, l net.Listener) (stop func()) {
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	tokenbrokerv1.RegisterTokenServiceServer(server, f)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	return func() { server.Stop(); served.Wait() }
}

// faked runs a test in fake time with a client of a fake.
func faked(t *testing.T, f *fake, do func(*testing.T, *client.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := brokertest.Listen(64 << 10)
		defer serveFake(f, l)()
		c, err := client.New(client.Config{Addr: "unix:///none", Dial: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		do(t, c)
	})
}

func TestASocketNeedsNoCertificate(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the name of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer serveFake(&fake{}, l)()
	for _, name := range []string{"CA", "CERT", "KEY", "WORKLOAD_API"} {
		t.Setenv("TOKENBROKER_"+name, "")
	}
	t.Setenv("TOKENBROKER_ADDR", "unix://"+filepath.Join(dir, "sock"))
	c, err := client.NewFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.Generation != 1 {
		t.Errorf("got generation %d, %v, want a token", tok.Generation, err)
	}
}

func TestWhoHasNoAgentIsAskedWhetherItRuns(t *testing.T) {
	c, err := client.New(client.Config{Addr: "unix://" + filepath.Join(t.TempDir(), "none.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Token(ctx, "example/api"); err == nil || !strings.Contains(err.Error(), "does tokenctl agent run?") {
		t.Errorf("got %v, want where to look", err)
	}
}

func TestWhatIsAskedForAgain(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "later")
	for name, tc := range map[string]struct {
		first error
		calls int
		waits time.Duration // at least
		ok    bool
	}{
		"a broker that can not now":          {unavailable, 2, 0, true},
		"one that names the time":            {pushback("1500"), 2, 1500 * time.Millisecond, true},
		"one that has too much to do":        {status.Error(codes.ResourceExhausted, "too many"), 1, 0, false},
		"one that does not give it":          {status.Error(codes.NotFound, "none"), 1, 0, false},
		"one that needs somebody to consent": {status.Error(codes.FailedPrecondition, "none"), 1, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{get: func(call int) (*tokenbrokerv1.GetTokenResponse, error) {
				if call == 1 {
					return nil, tc.first
				}
				return &tokenbrokerv1.GetTokenResponse{Token: token(call, time.Hour)}, nil
			}}
			faked(t, f, func(t *testing.T, c *client.Client) {
				began := time.Now()
				_, err := c.Token(t.Context(), "example/api")
				gets, _ := f.seen()
				if took := time.Since(began); (err == nil) != tc.ok || gets != tc.calls || took < tc.waits || took > tc.waits+time.Second {
					t.Errorf("got %v after %d calls and %s, want %d calls and %s", err, gets, took, tc.calls, tc.waits)
				}
			})
		})
	}
}

func TestAnErrorThatStaysIsToldInTheWordsOfTheBroker(t *testing.T) {
	said, err := status.New(codes.Unavailable, "the record of this could not be written").WithDetails(&errdetails.ErrorInfo{Reason: "AUDIT_UNAVAILABLE"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{get: func(int) (*tokenbrokerv1.GetTokenResponse, error) { return nil, said.Err() }}
	faked(t, f, func(t *testing.T, c *client.Client) {
		_, err := c.Token(t.Context(), "example/api")
		if gets, _ := f.seen(); gets < 2 || !errors.Is(err, tokenbroker.ErrAuditUnavailable) {
			t.Errorf("got %v after %d calls, want AUDIT_UNAVAILABLE after several", err, gets)
		}
		if !strings.Contains(err.Error(), said.Message()) || strings.Contains(err.Error(), "rpc error") || strings.Contains(err.Error(), "retries") {
			t.Errorf("got %q, want what the broker said and no words of grpc", err)
		}
		if got := status.Convert(err).Message(); got != said.Message() {
			t.Errorf("passed on: got %q, want %q", got, said.Message())
		}
	})
}

func TestABrokerWithoutStreamsIsAskedForWhatSubscribersWant(t *testing.T) {
	f := &fake{}
	faked(t, f, func(t *testing.T, c *client.Client) {
		var told diary
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		c.OnChange("example/api", told.add)
		c.OnChange("example/other", told.add)
		time.Sleep(3 * time.Hour)
		gets, streams := f.seen()
		if n := len(told.tokens()); n < 3 || streams > 30 || gets > 8 {
			t.Errorf("got %d tokens in three hours by %d calls and %d streams, want at least 3 by few", n, gets, streams)
		}
		if i := len(told.all()); i == 0 {
			t.Errorf("want the other to be told that there are no streams")
		}
	})
}

func TestAStreamThatFellSilentIsOpenedAnew(t *testing.T) {
	f := &fake{stream: func(call int, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		for i := range 10 * call {
			if err := out.Send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{
				Selector: &tokenbrokerv1.Selector{Credential: "example/api"}, Generation: uint64(call), Revision: uint64(i), Token: token(call, time.Hour)}}}); err != nil {
				return err
			}
			if err := out.Send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{}}); err != nil {
				return err
			}
			select {
			case <-time.After(30 * time.Second):
			case <-out.Context().Done():
			}
		}
		<-out.Context().Done()
		return nil
	}}
	faked(t, f, func(t *testing.T, c *client.Client) {
		var told diary
		c.OnChange("example/api", told.add)
		time.Sleep(5 * time.Minute)
		if _, streams := f.seen(); streams != 1 {
			t.Errorf("while it speaks: got %d streams, want one", streams)
		}
		time.Sleep(4 * time.Minute)
		_, streams := f.seen()
		if got := told.tokens(); streams != 2 || got[len(got)-1] != 2 {
			t.Errorf("after its silence: got %d streams and generations %d, want a second", streams, got)
		}
	})
}

func TestATokenNeverGoesBackwards(t *testing.T) {
	send := make(chan *tokenbrokerv1.Update)
	f := &fake{stream: func(_ int, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		for u := range send {
			u.Selector = &tokenbrokerv1.Selector{Credential: "example/api"}
			if err := out.Send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: u}}); err != nil {
				return err
			}
		}
		return nil
	}}
	synctestFake(t, f, &send, func(t *testing.T, c *client.Client) {
		var told diary
		c.OnChange("example/api", told.add)
		for _, u := range []*tokenbrokerv1.Update{
			{Generation: 7, Revision: 2, Token: token(7, time.Hour)},
			{Generation: 7, Revision: 1, Token: token(7, time.Hour)},
			{Generation: 6, Revision: 9, Token: token(6, time.Hour)},
			{Generation: 7, Revision: 2, Token: token(7, time.Hour)},
			{Generation: 5, Revision: 1},
			{Generation: 8, Revision: 1, Token: token(8, time.Hour)},
		} {
			send <- u
			synctest.Wait()
			if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.Generation < 7 {
				t.Errorf("got generation %d, %v, want what is newest", tok.Generation, err)
			}
		}
		close(send)
		var orders []tokenbroker.Order
		for _, got := range told.all() {
			orders = append(orders, got.Order)
		}
		if len(orders) != 2 || orders[0].Generation != 7 || orders[1].Generation != 8 {
			t.Errorf("got %v, want generations 7 and 8, each once", orders)
		}
	})
}

// synctestFake is faked with a channel that belongs to the bubble.
func synctestFake[T any](t *testing.T, f *fake, made *chan T, do func(*testing.T, *client.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		*made = make(chan T)
		l := brokertest.Listen(64 << 10)
		defer serveFake(f, l)()
		c, err := client.New(client.Config{Addr: "unix:///none", Dial: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		do(t, c)
	})
}
