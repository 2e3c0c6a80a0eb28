package sandbox_test

import (
	"crypto/sha256"
	"encoding/base64"
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

// Authorize is the browser and the person in it. Here it is followed by the exchange that the application would do.
func ExampleServer_Authorize() {
	const verifier = "a-verifier-that-is-long-enough-for-RFC-7636-s4.1"
	sum := sha256.Sum256([]byte(verifier))
	authorizationURL := "https://sandbox.test/acme/authorize?" + url.Values{
		"response_type":         {"code"},
		"client_id":             {"app"},
		"redirect_uri":          {"http://127.0.0.1:8400/callback"},
		"scope":                 {"files.read"},
		"state":                 {"xyz"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
	}.Encode()

	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{{
		Name:    "acme",
		Clients: []sandbox.Client{{ID: "app", Auth: sandbox.AuthNone, RedirectURIs: []string{"http://127.0.0.1/callback"}}},
	}}})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: srv}

	// Your code makes the authorization URL and listens at the redirect URI; Authorize is the browser and the person.
	callback, err := srv.Authorize("acme", authorizationURL, sandbox.DefaultAccount().Email)
	if err != nil {
		panic(err)
	}
	u, err := url.Parse(callback)
	if err != nil {
		panic(err)
	}
	fmt.Println(u.Host, u.Query().Get("state"), u.Query().Get("iss"))
	res, err := client.PostForm("https://sandbox.test/acme/token", url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {"app"},
		"redirect_uri":  {"http://127.0.0.1:8400/callback"},
		"code":          u.Query()["code"],
		"code_verifier": {verifier},
	})
	if err != nil {
		panic(err)
	}
	res.Body.Close()
	fmt.Println(res.Status)
	// Output:
	// 127.0.0.1:8400 xyz https://sandbox.test/acme
	// 200 OK
}
