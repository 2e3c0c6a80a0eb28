package agent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/client"
)

// bare is as much of an agent as a front needs: it has no broker, no trail and no socket, and lives in fake time.
type bare struct {
	*Agent
	t   *testing.T
	wg  sync.WaitGroup
	log bytes.Buffer
}

func newBare(t *testing.T) *bare {
	t.Helper()
	c, err := client.New(client.Config{Addr: "unix:///none"})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := newRuleset(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{t: t, Agent: &Agent{lobby: newLobby(), health: newHealthService(func() error { return nil }), ending: make(chan struct{})}}
	b.cfg = Config{Client: c, Log: slog.New(slog.NewJSONHandler(&b.log, nil))}
	b.rules.Store(rules)
	return b
}

// place is a listener with a front behind it.
type place struct {
	b *bare
	*front
	in *inlet
}

// open serves at a listener of connections in memory.
func (b *bare) open(name string, identify func(net.Conn) (Peer, error), h http.Handler, g *grpc.Server) *place {
	in := newInlet(&net.UnixAddr{Name: name, Net: "unix"})
	p := &place{b, b.newFront(name, in, identify, h, g), in}
	b.fronts = append(b.fronts, p.front)
	b.wg.Go(func() { _ = p.serve() })
	return p
}

// dial connects, as soon as somebody takes the connection.
func (p *place) dial() net.Conn {
	mine, theirs := net.Pipe()
	p.b.wg.Go(func() { p.in.put(theirs) })
	return mine
}

// get sends a request and is the answer.
func (p *place) get() string {
	p.b.t.Helper()
	c := p.dial()
	defer c.Close()
	_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	text, _ := io.ReadAll(c)
	if err != nil {
		p.b.t.Errorf("%s: %v", p.name, err)
	}
	return string(text)
}

// end ends all.
func (b *bare) end() {
	for _, f := range b.fronts {
		f.drain(b.t.Context())
	}
	b.lobby.close()
	b.wg.Wait()
	_ = b.cfg.Client.Close()
}

func me(net.Conn) (Peer, error) { return Peer{UID: ownUID()}, nil }

type well struct{}

// ServeHTTP answers anything.
func (well) ServeHTTP(w http.ResponseWriter, _ *http.Request) { text(w, "well") }

func TestAFloodIsFoundOutAFewAtATimeAndHoldsUpNoOtherListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t)
		defer b.end()
		var asked, most atomic.Int32
		answer := make(chan struct{})
		flooded := b.open("flooded", func(net.Conn) (Peer, error) { // a kernel that takes its time
			defer asked.Add(-1)
			most.Store(max(most.Load(), asked.Add(1)))
			<-answer
			return Peer{UID: ownUID()}, nil
		}, well{}, nil)
		other := b.open("other", me, well{}, nil)
		flood := make([]net.Conn, 10*sortAtOnce)
		for i := range flood {
			flood[i] = flooded.dial()
		}
		synctest.Wait()
		if got := most.Load(); got != sortAtOnce {
			t.Errorf("the kernel is asked of %d connections at once, want %d", got, sortAtOnce)
		}
		if got := other.get(); !strings.HasSuffix(got, "well\n") {
			t.Errorf("the other listener: got %q, want an answer", got)
		}
		close(answer)
		if got := flooded.get(); !strings.HasSuffix(got, "well\n") {
			t.Errorf("behind the flood: got %q, want an answer", got)
		}
		for _, c := range flood {
			_ = c.Close()
		}
	})
}

func TestThoseWhoConnectAndSayNothingHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t)
		defer b.end()
		p := b.open("socket", me, well{}, b.newGRPC())
		silent := make([]net.Conn, 10*sortAtOnce)
		for i := range silent {
			silent[i] = p.dial()
		}
		began := time.Now()
		if got := p.get(); !strings.HasSuffix(got, "well\n") || time.Since(began) > 0 {
			t.Errorf("got %q after %s of fake time, want an answer at once", got, time.Since(began))
		}
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("who says nothing is answered")
			}
		}
		if waited := time.Since(began); waited != sortTimeout {
			t.Errorf("who says nothing is cut after %s, want %s", waited, sortTimeout)
		}
	})
}

// hush is what a panic must not tell the log.
const hush = "hush"

// broken is a service whose handlers panic.
func broken(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "broken",
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, _ func(any) error, through grpc.UnaryServerInterceptor) (any, error) {
			return through(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/broken/Unary"}, func(context.Context, any) (any, error) { panic(hush) })
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { panic(hush) }}},
	}, nil)
}

func TestAPanicInAHandlerEndsNoMoreThanItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t)
		g := b.newGRPC()
		broken(g)
		p := b.open("socket", me, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(hush) }), g)
		conn, err := grpc.NewClient("passthrough:///agent", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return p.dial(), nil }))
		if err != nil {
			t.Fatal(err)
		}
		request := &grpc_health_v1.HealthCheckRequest{Service: "liveness"}
		unary := func() error {
			return conn.Invoke(t.Context(), "/broken/Unary", request, &grpc_health_v1.HealthCheckResponse{})
		}
		stream := func() error {
			s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/broken/Stream")
			if err != nil {
				return err
			}
			return s.RecvMsg(&grpc_health_v1.HealthCheckResponse{})
		}
		for name, call := range map[string]func() error{"unary": unary, "stream": stream} {
			if err := call(); status.Code(err) != codes.Internal || reasonOf(status.Convert(err)) != "INTERNAL" || strings.Contains(err.Error(), hush) {
				t.Errorf("%s: got %v, want INTERNAL", name, err)
			}
		}
		if got := p.get(); !strings.HasPrefix(got, "HTTP/1.1 500 ") || !strings.Contains(got, `"INTERNAL"`) || strings.Contains(got, hush) {
			t.Errorf("HTTP: got %q, want 500 INTERNAL", got)
		}
		if r, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), request); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("the agent after three panics: got %v, want it to go on", err)
		}
		_ = conn.Close()
		b.end()
		if got := b.log.String(); strings.Count(got, "panic in a handler") != 3 || strings.Contains(got, hush) || !strings.Contains(got, `"type":"string"`) {
			t.Errorf("got log\n%s\nwant three panics, of which type and where, and not what they said", got)
		}
	})
}
