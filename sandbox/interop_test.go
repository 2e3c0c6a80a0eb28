package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// These tests use a client that others wrote, golang.org/x/oauth2, so that the sandbox is not judged by its own reading alone.

func (w *world) theirs(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, w.client)
}

func (w *world) endpoint() oauth2.Endpoint {
	return oauth2.Endpoint{
		AuthURL: w.base + "/acme/authorize", TokenURL: w.base + "/acme/token", DeviceAuthURL: w.base + "/acme/device", AuthStyle: oauth2.AuthStyleInParams,
	}
}

func TestAnotherClientGetsACodeAndRefreshes(t *testing.T) {
	w := newWorld(t, people())
	ctx := w.theirs(t.Context())
	cfg := oauth2.Config{ClientID: "native", Endpoint: w.endpoint(), RedirectURL: "http://127.0.0.1:49152/cb", Scopes: []string{"openid", "read"}}
	secret := oauth2.GenerateVerifier()
	to, err := w.srv.Authorize("acme", cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(secret)), "ann@corp.test")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil || u.Host != "127.0.0.1:49152" || u.Query().Get("state") != "st" {
		t.Fatalf("got %s, %v", to, err)
	}
	tok, err := cfg.Exchange(ctx, u.Query().Get("code"), oauth2.VerifierOption(secret))
	if err != nil || !tok.Valid() || tok.Extra("id_token") == nil {
		t.Fatalf("got %v", err)
	}
	w.wantValid(tok.AccessToken, true)
	tok.Expiry = time.Now().Add(-time.Second)
	fresh, err := cfg.TokenSource(ctx, tok).Token()
	if err != nil || fresh.RefreshToken == tok.RefreshToken {
		t.Fatalf("got %v, or the token was not rotated", err)
	}
	w.wantValid(fresh.AccessToken, true)
}

func TestAnotherClientGetsAnErrorWithItsCode(t *testing.T) {
	w := newWorld(t, people())
	cfg := oauth2.Config{ClientID: "web", ClientSecret: "s3cret", Endpoint: w.endpoint(), RedirectURL: callback}
	_, err := cfg.Exchange(w.theirs(t.Context()), "sandbox_code_unknown")
	if e := new(oauth2.RetrieveError); !errors.As(err, &e) || e.ErrorCode != "invalid_grant" {
		t.Errorf("got %v", err)
	}
}

func TestAnotherClientWaitsForItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, people())
		ctx := w.theirs(t.Context())
		cfg := oauth2.Config{ClientID: "native", Endpoint: w.endpoint(), Scopes: []string{"read"}}
		d, err := cfg.DeviceAuth(ctx)
		if err != nil {
			t.Fatal(err)
		}
		w.srv.Fail("acme", sandbox.Fault{GrantType: sandbox.GrantDeviceCode, Status: 400, Body: `{"error":"slow_down"}`})
		approved := make(chan error)
		go func() {
			time.Sleep(30 * time.Second)
			approved <- w.srv.Approve("acme", d.UserCode, "bob@corp.test")
		}()
		tok, err := cfg.DeviceAccessToken(ctx, d)
		if err := <-approved; err != nil {
			t.Fatal(err)
		}
		if err != nil || tok.RefreshToken == "" {
			t.Fatalf("got %v", err)
		}
		if n := w.srv.Count(sandbox.Filter{Code: "authorization_pending"}); n < 2 {
			t.Errorf("got %d polls that were too early, want some", n)
		}
		if n := w.srv.Count(sandbox.Filter{Code: "slow_down"}); n != 1 {
			t.Errorf("got %d slow_down, want the scripted one alone: this client keeps its interval", n)
		}
	})
}

func TestAnotherClientActsForAServiceAccount(t *testing.T) {
	iss := people()
	iss.ServiceAccounts = []sandbox.ServiceAccount{{Email: robot, Delegated: []string{"read"}}}
	w := newWorld(t, iss)
	var file struct {
		Email    string `json:"client_email"`
		KeyID    string `json:"private_key_id"`
		Key      string `json:"private_key"`
		TokenURI string `json:"token_uri"`
	}
	if err := json.Unmarshal(w.srv.AddServiceAccountKey("acme", robot, w.base), &file); err != nil {
		t.Fatal(err)
	}
	cfg := jwt.Config{Email: file.Email, PrivateKey: []byte(file.Key), PrivateKeyID: file.KeyID, TokenURL: file.TokenURI, Scopes: []string{"read"}, Subject: "ann@corp.test"}
	tok, err := cfg.TokenSource(w.theirs(t.Context())).Token()
	if err != nil {
		t.Fatal(err)
	}
	if got := w.get("/acme/resource", tok.AccessToken); got.str("sub") != "7" || got.str("scope") != "read" {
		t.Errorf("got %s", got.text)
	}
	cfg.Subject = "nobody@corp.test"
	if _, err := cfg.TokenSource(w.theirs(t.Context())).Token(); err == nil || !strings.Contains(err.Error(), "Not a valid email.") {
		t.Errorf("got %v", err)
	}
}

func TestAnotherClientHasItsCredentials(t *testing.T) {
	w := newWorld(t, people()).overTLS()
	cfg := clientcredentials.Config{ClientID: "basic", ClientSecret: "a+b/c %:é", TokenURL: w.base + "/acme/token", Scopes: []string{"read", "write"}, AuthStyle: oauth2.AuthStyleInHeader}
	tok, err := cfg.Token(w.theirs(t.Context()))
	if err != nil || tok.Extra("scope") != "read write" {
		t.Fatalf("got %v", err)
	}
	client := oauth2.NewClient(w.theirs(t.Context()), oauth2.StaticTokenSource(tok))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.base+"/acme/resource", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", res.StatusCode)
	}
}
