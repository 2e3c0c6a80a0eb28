package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
)

// check calls the API with credentials of the call.
func check(t *testing.T, conn *grpc.ClientConn, ctx context.Context, creds credentials.PerRPCCredentials) error {
	t.Helper()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.PerRPCCredentials(creds))
	return err
}

func dial(t *testing.T, a *grpcAPI, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(a.Addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestACallCarriesTheToken(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a, encrypted := exampleGRPC()
	defer a.Close()
	conn := dial(t, a, encrypted)
	old := w.revoke(t)
	if err := check(t, conn, t.Context(), w.c.PerRPCCredentials("example/api")); err != nil || a.last("authorization") != "Bearer "+old {
		t.Errorf("got %v and a header of %d bytes, want the token", err, len(a.last("authorization")))
	}
	if err := check(t, conn, t.Context(), w.c.PerRPCCredentials("example/key")); err != nil || a.last("x-api-key") != "key-1" || a.last("authorization") != "" {
		t.Errorf("got %v and %q, want the key in its own header", err, a.last("x-api-key"))
	}
}

func TestNoTokenGoesOverAConnectionInTheClear(t *testing.T) {
	w := newWorld(t, 0)
	a := startGRPC()
	defer a.Close()
	creds := w.c.PerRPCCredentials("example/api")
	if err := check(t, dial(t, a, insecure.NewCredentials()), t.Context(), creds); status.Code(err) != codes.Unauthenticated || len(a.seen) != 0 {
		t.Errorf("got %v after %d calls, want UNAUTHENTICATED and none", err, len(a.seen))
	}
	if _, err := grpc.NewClient(a.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(creds)); err == nil {
		t.Errorf("of a connection: want an error")
	}
	if md, err := creds.GetRequestMetadata(t.Context()); status.Code(err) != codes.Unauthenticated || md != nil {
		t.Errorf("of nobody knows what: got %v, want UNAUTHENTICATED", err)
	}
}

func TestACallWithoutATokenSaysWhy(t *testing.T) {
	w := newWorld(t, 0)
	a, encrypted := exampleGRPC()
	defer a.Close()
	conn := dial(t, a, encrypted)
	err := check(t, conn, t.Context(), w.c.PerRPCCredentials("example/none"))
	if status.Code(err) != codes.Unauthenticated || !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("an unknown credential: got %v, want UNAUTHENTICATED and ErrNotFound", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := check(t, conn, over, w.c.PerRPCCredentials("example/api", client.MinValidity(time.Minute))); status.Code(err) != codes.Canceled {
		t.Errorf("a call that is over: got %v, want CANCELED", err)
	}
	w.b.Shutdown()
	if err := check(t, conn, t.Context(), w.c.PerRPCCredentials("example/api")); status.Code(err) != codes.Unavailable {
		t.Errorf("no broker: got %v, want UNAVAILABLE", err)
	}
	if len(a.seen) != 0 {
		t.Errorf("got %d calls, want none", len(a.seen))
	}
}

func TestAProviderHasTheShapeThatALibraryAsksFor(t *testing.T) {
	w := newWorld(t, 0)
	shape := func(t tokenbroker.Token) *authToken {
		return &authToken{Value: t.AccessToken.Reveal(), Type: t.Type, Expiry: t.Expiry}
	}
	var provider interface { // auth.TokenProvider
		Token(ctx context.Context) (*authToken, error)
	} = client.ProviderOf(w.c, "example/api", shape, client.Scopes("files.read"))
	tok, err := provider.Token(t.Context())
	if err != nil || !w.b.Sandbox.Valid(tok.Value) || tok.Type != "Bearer" || time.Until(tok.Expiry) < time.Minute {
		t.Errorf("got %v, want a good token", err)
	}
	if tok, err := client.ProviderOf(w.c, "example/none", shape).Token(t.Context()); tok != nil || !errors.Is(err, tokenbroker.ErrNotFound) {
		t.Errorf("an unknown credential: got %v, want ErrNotFound", err)
	}
	if tok, err := client.ProviderOf(w.c, "example/key", shape).Token(t.Context()); tok != nil || !errors.Is(err, tokenbroker.ErrGrantNotSupported) || !strings.Contains(err.Error(), "X-Api-Key") {
		t.Errorf("a key with a header of its own: got %v, want ErrGrantNotSupported that names it", err)
	}
}
