package server_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// What is refused grows as memory grows short, and what was there before goes on.
func TestWhatIsRefusedWhileMemoryIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Int64
		log := &syncBuffer{}
		b := brokertest.Start(t, brokertest.Config{Log: log, Limits: server.Limits{Memory: 100}, Lives: func(bool) int64 { return used.Load() }})
		defer b.Stop()
		b.AddClientCredentials("example/warm", "files.read")
		b.AddClientCredentials("example/cold", "files.read", "files.write")
		b.Token("example/warm")
		set := func(n int64) {
			used.Store(n)
			time.Sleep(time.Second)
		}
		conn, operator := b.Worker(), b.Operator()
		if _, err := credentialsOf(operator).ListCredentials(t.Context(), &tokenbrokerv1.ListCredentialsRequest{}); err != nil {
			t.Fatal(err)
		}
		w := watch(t, conn, sel("example/warm"))
		defer w.cancel()
		w.ready(0)
		ask := func(c *grpc.ClientConn, name string) error {
			_, err := tokensOf(c).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: name, Scopes: []string{"files.read"}})
			return err
		}
		refused := func(what string, err error) {
			t.Helper()
			f := wantFault(t, err, codes.ResourceExhausted, "TOO_MANY")
			if f.Retry == 0 || f.Meta["limit"] != "memory" {
				t.Errorf("%s: got %+v, want when to try again, and that it is for memory", what, f)
			}
		}
		set(79)
		watch(t, b.Conn(worker("79")), sel("example/warm")).ready(0)

		set(80)
		refused("a new connection at 80 %", ask(b.Conn(worker("80")), "example/warm"))
		refused("a new subscription at 80 %", watch(t, conn, sel("example/warm")).end())
		set(70) // not yet less enough
		refused("a new subscription at 70 %", watch(t, conn, sel("example/warm")).end())

		set(90)
		refused("a token that has to be fetched at 90 %", ask(conn, "example/cold"))
		if err := ask(conn, "example/warm"); err != nil {
			t.Errorf("got %v for a token in memory, want it", err)
		}
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("got %v for a health check, want an answer", err)
		}
		if _, err := credentialsOf(operator).DisableCredential(t.Context(), &tokenbrokerv1.DisableCredentialRequest{Credential: "example/warm"}); err != nil {
			t.Errorf("got %v for an operator's call on a connection that was there before, want it done", err)
		}
		w.next() // the stream that was there before goes on

		set(80) // not yet less enough
		refused("a token that has to be fetched at 80 % after 90 %", ask(conn, "example/cold"))
		set(79)
		if err := ask(conn, "example/cold"); err != nil {
			t.Errorf("got %v below 80 %%, want a token", err)
		}
		set(69)
		watch(t, b.Conn(worker("69")), sel("example/cold")).ready(0)
		if n := strings.Count(log.String(), "memory is short"); n != 2 {
			t.Errorf("the log says %d times that memory is short, want once for each time that it grew shorter", n)
		}
	})
}

// The memory that is judged is what lives: garbage that will be collected when there is need is none.
func TestMemoryInUseIsWhatLives(t *testing.T) {
	base := server.LivingMemory(true)
	var kept [][]byte
	for range 64 {
		kept = append(kept, make([]byte, 1<<20))
	}
	full := server.LivingMemory(true)
	if full-base < 48<<20 {
		t.Errorf("64 MiB count as %d", full-base)
	}
	clear(kept)
	if rest := server.LivingMemory(true); rest-base > 10<<20 {
		t.Errorf("%d bytes are left of 64 MiB that were given up", rest-base)
	}
}

func TestOperatorsComeInWhileMemoryIsShort(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	r := newRig(t, b, func(c *server.Config) {
		c.Admin, c.Limits.Memory, c.Lives = c.TLS, 100, func(bool) int64 { return 95 }
	})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	r.WatchMemory(ctx) // looks once
	served := make(chan error, 1)
	t.Cleanup(func() { // after the drain
		if err := <-served; err != nil {
			t.Errorf("ServeAdmin: %v", err)
		}
	})
	worker := r.serve(brokertest.WorkerID)
	_, err := tokensOf(worker).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a worker got %v, want no connection", err)
	}
	r.mem = brokertest.Listen(1 << 20)
	go func() { served <- r.ServeAdmin(r.mem) }()
	operator := r.conn(brokertest.OperatorID)
	defer func() { _ = operator.Close() }()
	if _, err := credentialsOf(operator).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{}); err != nil {
		t.Errorf("an operator got %v, want an answer", err)
	}
}
