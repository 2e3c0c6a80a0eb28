package sandbox_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func acme() *sandbox.Server {
	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{{
		Name:    "acme",
		Clients: []sandbox.Client{{ID: "reports", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost}},
	}}})
	if err != nil {
		panic(err)
	}
	return srv
}

// As a round tripper the server needs no listener. Here the answer to a refresh is lost after the token was rotated, so
// that trying again is a replay, which revokes the whole family.
func ExampleServer_RoundTrip() {
	srv := acme()
	refreshToken := srv.SeedRefreshToken("acme", "reports", "files.read")
	srv.Fail("acme", sandbox.Fault{Stage: sandbox.AfterCommit, Drop: true})

	client := &http.Client{Transport: srv}
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
		"client_id":     {"reports"},
		"client_secret": {"s3cret"},
	}
	for range 2 {
		res, err := client.PostForm("https://sandbox.test/acme/token", form)
		if err != nil {
			fmt.Println("no answer")
			continue
		}
		res.Body.Close()
		fmt.Println(res.Status)
	}
	fmt.Println(srv.Redemptions()[sandbox.Fingerprint(refreshToken)])
	// Output:
	// no answer
	// 400 Bad Request
	// {2 1}
}

// As a handler the server goes behind any listener; this one speaks TLS.
func ExampleServer_ServeHTTP() {
	srv := acme()
	listener := httptest.NewTLSServer(srv)
	defer listener.Close()
	srv.Fail("acme", sandbox.Fault{Status: http.StatusTooManyRequests, Body: "slow down", Header: map[string]string{"Retry-After": "7"}})

	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"reports"}, "client_secret": {"s3cret"}}
	for range 2 {
		res, err := listener.Client().PostForm(listener.URL+"/acme/token", form)
		if err != nil {
			panic(err)
		}
		res.Body.Close()
		fmt.Printf("%d %q\n", res.StatusCode, res.Header.Get("Retry-After"))
	}
	fmt.Println(srv.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}))
	// Output:
	// 429 "7"
	// 200 ""
	// 2
}
