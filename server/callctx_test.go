package server_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// An error with an ErrorInfo is the broker's own: what gRPC says of a deadline has none.
func TestACallIsAnsweredBeforeItsCallerGivesUp(t *testing.T) {
	for _, tt := range []struct{ allowed, took time.Duration }{
		{time.Second, 900 * time.Millisecond}, {2 * time.Second, 1800 * time.Millisecond}, {10 * time.Second, 9800 * time.Millisecond},
		{0, 15 * time.Second},
	} {
		t.Run(tt.allowed.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := brokertest.Start(t, brokertest.Config{})
				defer b.Stop()
				b.Sandbox.Fail("rotating", sandbox.Fault{Delay: 25 * time.Second})
				b.AddRefreshToken("example/drive", "rotating", "files.read")
				conn := b.Worker()
				ctx := t.Context()
				began := time.Now()
				if tt.allowed > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.allowed)
					defer cancel()
				}
				_, err := tokensOf(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
				f := wantFault(t, err, codes.DeadlineExceeded, "DEADLINE_EXCEEDED")
				if f.Retry == 0 {
					t.Error("got no word of when to ask again")
				}
				if took := time.Since(began); took < tt.took || took > tt.took+50*time.Millisecond {
					t.Errorf("answered after %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestACallThatComesTooLateIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		b.Token("example/api")
		conn := b.Worker()
		ask := func(within time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			_, err := tokensOf(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			return err
		}
		if err := ask(time.Second); err != nil {
			t.Fatal(err)
		}
		wantFault(t, ask(4*time.Millisecond), codes.DeadlineExceeded, "DEADLINE_EXCEEDED")
		if err := ask(6 * time.Millisecond); err != nil {
			t.Errorf("got %v with 6 ms left for a token in memory, want it", err)
		}
		if n := tokenCalls(t, b); n < 2 {
			t.Errorf("%d calls reached the guard, want those in time", n)
		}
	})
}
