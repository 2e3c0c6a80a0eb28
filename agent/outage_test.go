package agent_test

import (
	"context"
	"errors"
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
	first := func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
			Selectors: []*tokenbrokerv1.Selector{{Credential: "example/none"}}})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for status.Code(first(w.Worker())) != codes.PermissionDenied { // until the policy is in force
		if ctx.Err() != nil {
			t.Fatal("the policy does not come in force")
		}
	}
	if err := first(w.conn()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PERMISSION_DENIED as the broker says it", err)
	}
	if _, err := w.job().Token(ctx, "example/api"); err != nil {
		t.Errorf("got %v, want a token", err)
	}
	if _, err := w.job().Token(ctx, "example/none"); !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
