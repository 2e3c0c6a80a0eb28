package agent_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// tokens are the generations that a subscriber is told of, until ctx ends.
func (w *world) tokens(ctx context.Context, c *client.Client, opts ...client.Option) <-chan tokenbroker.Token {
	told := make(chan tokenbroker.Token, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for u, err := range c.Subscribe(ctx, "example/api", opts...) {
			if err == nil && u.Token != nil {
				told <- *u.Token
			}
		}
	}()
	w.t.Cleanup(func() { <-done })
	return told
}

// next is the next of them.
func (w *world) next(ctx context.Context, told <-chan tokenbroker.Token) tokenbroker.Token {
	w.t.Helper()
	select {
	case tok := <-told:
		return tok
	case <-ctx.Done():
		w.t.Fatal("no token comes")
		return tokenbroker.Token{}
	}
}

func TestLocalJobsOutliveABrokerThatRestarts(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := w.job()
	told := w.tokens(ctx, c)
	first := w.next(ctx, told)
	w.Shutdown()
	if tok, err := c.Token(ctx, "example/api"); err != nil || tok.Generation != first.Generation {
		t.Errorf("while the broker is away: got generation %d, %v, want %d", tok.Generation, err, first.Generation)
	}
	w.Restart()
	w.refresh("example/api")
	for tok := w.next(ctx, told); tok.Generation <= first.Generation; tok = w.next(ctx, told) {
	}
	cancel()
}

func TestLocalJobsOutliveAnAgentThatRestarts(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := w.job()
	told := w.tokens(ctx, c)
	first := w.next(ctx, told)
	w.stop()
	if tok, err := c.Token(ctx, "example/api"); err != nil || tok.Generation != first.Generation {
		t.Errorf("while the agent is away: got generation %d, %v, want %d", tok.Generation, err, first.Generation)
	}
	w.run()
	w.refresh("example/api")
	for tok := w.next(ctx, told); tok.Generation <= first.Generation; tok = w.next(ctx, told) {
	}
	cancel()
}

// A broker that has started anew takes no report of what it does not know to have given. That it gave it is the agent's to see to: jobs get their
// token from the agent's memory, whatever they do. Without the right to subscribe no stream tells the broker of it either.
func TestAReportOfALocalJobReachesABrokerThatHasStartedAnew(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.SetPolicy(`version: 1
rules:
  - name: workers
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: ["token.get", "token.report"]
    credentials: ["example/*"]
`)
	w.denied(ctx, w.Worker())
	c := w.job()
	old, err := c.Token(ctx, "example/api")
	if err != nil {
		t.Fatal(err)
	}
	w.Restart()
	tok, _, err := c.ReportRejected(ctx, "example/api", old, http.StatusUnauthorized)
	if err != nil || tok.Generation <= old.Generation {
		t.Errorf("got generation %d, %v, want one after %d", tok.Generation, err, old.Generation)
	}
}

func TestASubscriberMayAskForLess(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := w.job()
	less := w.next(ctx, w.tokens(ctx, c, client.Scopes("files.read", "files.read")))
	all := w.next(ctx, w.tokens(ctx, c))
	if len(less.Scopes) != 1 || len(all.Scopes) != 2 || less.Generation == all.Generation {
		t.Errorf("got scopes %v and %v, want one and both, as asked", less.Scopes, all.Scopes)
	}
	cancel()
}

// first is what becomes of a stream at its first message.
func (w *world) first(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
		Selectors: []*tokenbrokerv1.Selector{{Credential: "example/none"}}})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// denied waits until the policy that denies streams is in force.
func (w *world) denied(ctx context.Context, conn *grpc.ClientConn) {
	w.t.Helper()
	for status.Code(w.first(ctx, conn)) != codes.PermissionDenied {
		if ctx.Err() != nil {
			w.t.Fatal("the policy does not come in force")
		}
	}
}

func TestAnAgentThatMayNotSubscribeSaysSoAndServesTokens(t *testing.T) {
	w := start(t)
	w.SetPolicy(`version: 1
rules:
  - name: workers
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: ["token.get"]
    credentials: ["example/*"]
`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.denied(ctx, w.Worker())
	if err := w.first(ctx, w.conn()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PERMISSION_DENIED as the broker says it", err)
	}
	if _, err := w.job().Token(ctx, "example/api"); err != nil {
		t.Errorf("got %v, want a token", err)
	}
	if _, err := w.job().Token(ctx, "example/none"); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
