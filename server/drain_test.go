package server_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// seen is something that happened during a drain, and when.
type seen struct {
	what string
	at   time.Time
	err  error
}

func TestADrainEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		b.Token("example/drive")
		b.AddRefreshToken("example/slow", "rotating", "files.read")
		b.Token("example/slow")
		happened := make(chan seen, 100)
		tell := func(what string, err error) { happened <- seen{what, time.Now(), err} }

		conn := b.Operator()
		health, err := grpc_health_v1.NewHealthClient(conn).Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: "readiness"})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := health.Recv(); err != nil || r.GetStatus() != serving {
			t.Fatalf("got %v, %v; want SERVING", r, err)
		}
		go func() {
			for {
				r, err := health.Recv()
				if err != nil {
					tell("health ended", err)
					return
				}
				tell("health "+r.GetStatus().String(), nil)
			}
		}()
		w := watch(t, b.Worker(), sel("example/drive"))
		w.ready(0)
		time.Sleep(time.Minute)
		b.Sandbox.Fail("rotating", sandbox.Fault{Delay: 10 * time.Second})
		go func() {
			_, err := credentialsOf(conn).RefreshCredential(context.Background(), &tokenbrokerv1.RefreshCredentialRequest{Credential: "example/slow"})
			tell("refresh ended", err)
		}()
		time.Sleep(time.Second) // the exchange is in flight now
		before := credential(t, b, "example/slow").GetStatus()

		began := time.Now()
		down := make(chan struct{})
		go func() { b.Shutdown(); close(down) }()
		w.until(func(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetGoingAway() != nil })
		if took := time.Since(began); took > time.Second {
			t.Errorf("got going_away after %v, want it at once", took)
		}
		_, err = tokensOf(b.Worker()).GetToken(context.Background(), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
		if err != nil {
			t.Errorf("got %v while draining, want the token in memory", err)
		}
		f := wantFault(t, w.end(), codes.Unavailable, "SHUTTING_DOWN")
		if f.Retry == 0 || time.Since(began) < 8*time.Second {
			t.Errorf("the stream ended after %v with %+v, want it to last while the exchange is in flight", time.Since(began), f)
		}
		<-down
		synctest.Wait()
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the drain took %v, want hardly longer than the exchange", took)
		}
		checkDrain(t, began, happened)
		b.Restart()
		after := credential(t, b, "example/slow").GetStatus()
		if after.GetSerial() != before.GetSerial()+1 || after.GetGeneration() <= before.GetGeneration() {
			t.Errorf("got serial %d, generation %d after %d, %d; want the exchange in flight committed",
				after.GetSerial(), after.GetGeneration(), before.GetSerial(), before.GetGeneration())
		}
	})
}

func checkDrain(t *testing.T, began time.Time, happened chan seen) {
	t.Helper()
	got := map[string]seen{}
	for range len(happened) {
		s := <-happened
		got[s.what] = s
	}
	if s, ok := got["health NOT_SERVING"]; !ok || s.at.Sub(began) > time.Second {
		t.Errorf("health said NOT_SERVING %v (%v), want first of all", s.at.Sub(began), ok)
	}
	if s, ok := got["health ended"]; !ok || status.Code(s.err) == codes.OK {
		t.Errorf("the watch of health ended=%v with %v", ok, s.err)
	}
	if s, ok := got["refresh ended"]; !ok || s.err != nil {
		t.Errorf("the call in flight ended=%v with %v, want its answer", ok, s.err)
	}
}

func TestADrainWithoutEndIsCut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	r := newRig(t, b, nil)
	conn := r.serve(brokertest.OperatorID)
	w := watch(t, conn, sel("example/api"))
	w.ready(0)
	b.Sandbox.Fail("fast", sandbox.Fault{Hang: true})
	b.AddClientCredentials("example/hangs", "files.read")
	asked := make(chan error, 1)
	go func() {
		_, err := tokensOf(conn).GetToken(context.Background(), &tokenbrokerv1.GetTokenRequest{Credential: "example/hangs"})
		asked <- err
	}()
	eventually(t, "an exchange hangs", func() bool { return b.Sandbox.Count(sandbox.Filter{Unanswered: true}) > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	r.Drain(ctx)
	if took := time.Since(began); took < 250*time.Millisecond || took > 3*time.Second {
		t.Errorf("the drain took %v, want about its deadline", took)
	}
	if err := <-asked; err == nil {
		t.Error("the call that hung was answered")
	}
	_ = w.end()
	b.Sandbox.Release("fast")
}
