package sandbox_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestConfigurationErrorsComeAllAtOnce(t *testing.T) {
	_, err := sandbox.New(sandbox.Config{JournalSize: -1, Issuers: []sandbox.Issuer{
		{Name: "A"},
		{Name: "a", AccessLife: 1, RefreshLife: -1, Rotation: "sometimes", ScopesSupported: []string{"a b"}},
		{Name: "a", Grace: 1},
		{Name: "b", Rotation: sandbox.RotateGrace},
		{Name: "c", ScopesSupported: []string{"read"}, Clients: []sandbox.Client{
			{}, {ID: "x", Auth: "magic"}, {ID: "x", Auth: sandbox.AuthNone, Secrets: []string{"s"}}, {ID: "y"},
			{ID: "z", Secrets: []string{""}}, {ID: "w", Secrets: []string{"s"}, Scopes: []string{"write"}},
			{ID: "v", Auth: sandbox.AuthNone, Grants: []string{"client_credentials"}}, {ID: "u", Auth: sandbox.AuthNone, Grants: []string{"magic"}},
		}},
	}})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"journal size -1", `issuer "A": name must match`, "access life 1ns", "refresh life -1ns", `unknown rotation "sometimes"`, "scope-token",
		`issuer "a": configured twice`, `grace 1ns with rotation "strict"`, `grace 0s with rotation "grace"`, "id is empty", `auth method "magic"`,
		`client "x": configured twice`, "a public client has no secret", `client "y": needs`, `client "z": needs`, `client "w": a scope`,
		`client "v": grant "client_credentials"`, `client "u": grant "magic"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant it to say %q", err, want)
		}
	}
	if _, err := sandbox.New(sandbox.Config{}); err == nil {
		t.Error("got no error without issuers, want one")
	}
}

func TestNamesThatAreNotThereArePanics(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{ScopesSupported: []string{"read"}})
	for _, f := range []func(){
		func() { w.srv.Release("nobody") },
		func() { w.srv.SeedRefreshToken("acme", "nobody") },
		func() { w.srv.SeedRefreshToken("acme", "post", "write") },
		func() { w.srv.RotateSecret("acme", "public", "x") },
		func() { w.srv.RotateSecret("acme", "post", "") },
	} {
		wantPanic(t, f)
	}
}
