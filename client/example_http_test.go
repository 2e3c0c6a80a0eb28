package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
)

// An http.Client that calls an API, and gets past a token which the API refuses. For an API at https it needs no option.
func ExampleClient_HTTPClient() {
	defer withBroker()()
	api := exampleAPI()
	defer api.Close()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	resp, err := c.HTTPClient("example/reports", client.LoopbackHTTP()).Get(api.URL + "/reports/today")
	if err != nil {
		log.Panic(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output: 200 all is well
}

// A Transport is one layer of a client: it takes what sends as its Base, names the hosts that may see the token, and fits into others.
func ExampleClient_Transport() {
	defer withBroker()()
	api := exampleAPI()
	defer api.Close()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = 10 * time.Second
	hc := &http.Client{Transport: c.Transport("example/reports",
		client.Base(base), client.LoopbackHTTP(), client.AllowHosts("api.example.com"), client.For(client.Scopes("reports.read")))}
	defer hc.CloseIdleConnections()
	resp, err := hc.Get(api.URL)
	if err == nil {
		resp.Body.Close()
	}
	fmt.Println(errors.Is(err, tokenbroker.ErrInvalidArgument)) // only api.example.com may see it
	// Output: true
}

// Where no refresh can help the error says so, and names the scope.
func ExampleScopeError() {
	defer withBroker()()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="reports.read reports.write"`)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer api.Close()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	resp, err := c.HTTPClient("example/reports", client.LoopbackHTTP()).Post(api.URL, "text/plain", nil)
	if err == nil {
		resp.Body.Close()
	}
	if e, ok := errors.AsType[*client.ScopeError](err); ok {
		fmt.Println("ask an operator for", e.Missing, "of", e.Credential)
	}
	// Output: ask an operator for [reports.write] of example/reports
}

// Each call of a gRPC connection carries the token.
func ExampleClient_PerRPCCredentials() {
	defer withBroker()()
	api, encrypted := exampleGRPC()
	defer api.Close()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	conn, err := grpc.NewClient(api.Addr, grpc.WithTransportCredentials(encrypted), grpc.WithPerRPCCredentials(c.PerRPCCredentials("example/reports")))
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(r.GetStatus(), api.Scheme())
	// Output: SERVING Bearer
}

// authToken has the shape of cloud.google.com/go/auth.Token.
type authToken struct {
	Value    string
	Type     string
	Expiry   time.Time
	Metadata map[string]any
}

// A Google library takes what this makes as its auth.TokenProvider.
func ExampleProviderOf() {
	defer withBroker()()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	provider := client.ProviderOf(c, "example/reports", func(t tokenbroker.Token) *authToken {
		return &authToken{Value: t.AccessToken.Reveal(), Type: t.Type, Expiry: t.Expiry}
	})
	tok, err := provider.Token(context.Background())
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(tok.Type, time.Until(tok.Expiry) > 0)
	// Output: Bearer true
}
