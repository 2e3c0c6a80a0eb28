package grant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// fieldsOf lists the fields at fault.
func fieldsOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var fields []string
	for _, e := range list {
		var p *tokenbroker.Problem
		if !errors.As(e, &p) || p.Detail == "" {
			t.Fatalf("got error %v, want a Problem with a detail", e)
		}
		if strings.Contains(p.Detail, secretCanary) {
			t.Errorf("detail tells the secret: %s", p.Detail)
		}
		fields = append(fields, p.Field)
	}
	slices.Sort(fields)
	return fields
}

func validating(t *testing.T) *grant.Client {
	t.Helper()
	return newClient(t, provider.Profile{
		TokenEndpoint:  "https://login.example.com/token",
		ScopeSeparator: ",",
		AuthMethods:    []tokenbroker.AuthMethod{tokenbroker.AuthClientSecretPost, tokenbroker.AuthNone},
	})
}

func TestValidate(t *testing.T) {
	c := validating(t)
	public := func(cl *tokenbroker.OAuthClient) { cl.Auth, cl.Secrets = tokenbroker.AuthNone, nil }
	for _, tt := range []struct {
		name   string
		cred   func(*tokenbroker.Credential)
		client func(*tokenbroker.OAuthClient)
		none   bool // there is no such client
		want   []string
	}{
		{name: "all is well"},
		{name: "a public client refreshes", cred: func(c *tokenbroker.Credential) { c.Grant = tokenbroker.GrantRefreshToken }, client: public},
		{name: "unknown provider", cred: func(c *tokenbroker.Credential) { c.Provider = "nobody" }, want: []string{"spec.provider"}},
		{name: "unknown grant", cred: func(c *tokenbroker.Credential) { c.Grant = "password" }, want: []string{"spec.grantType"}},
		{name: "unknown client", none: true, want: []string{"spec.oauthClient"}},
		{name: "client of another provider", client: func(c *tokenbroker.OAuthClient) { c.Provider = "other" }, want: []string{"spec.oauthClient"}},
		{name: "client without a secret", client: func(c *tokenbroker.OAuthClient) { c.Secrets = nil }, want: []string{"spec.oauthClient"}},
		{name: "public client by client credentials", client: public, want: []string{"spec.oauthClient"}},
		{name: "bad scope", cred: func(c *tokenbroker.Credential) { c.Scopes = []string{"a b"} }, want: []string{"spec.scopes"}},
		{name: "scopes in one", cred: func(c *tokenbroker.Credential) { c.Scopes = []string{"a,b"} }, want: []string{"spec.scopes"}},
		{name: "a subject", cred: func(c *tokenbroker.Credential) { c.Subject = "somebody" }, want: []string{"spec.subject"}},
		{name: "a bad audience", cred: func(c *tokenbroker.Credential) { c.Audience = "a\n" }, want: []string{"spec.audience"}},
		{name: "all at once", none: true, cred: func(c *tokenbroker.Credential) { c.Grant, c.Scopes = "x", []string{""} },
			want: []string{"spec.grantType", "spec.oauthClient", "spec.scopes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ccRequest("a")
			r.Client.Secrets = []tokenbroker.ClientSecret{r.Secret}
			if tt.cred != nil {
				tt.cred(&r.Credential)
			}
			if tt.client != nil {
				tt.client(&r.Client)
			}
			client := &r.Client
			if tt.none {
				client = nil
			}
			err := c.Validate(r.Credential, client)
			if got := fieldsOf(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got %v (%v), want %v", got, err, tt.want)
			}
		})
	}
	if err := c.Validate(tokenbroker.Credential{Provider: "nobody"}, nil); !errors.Is(err, tokenbroker.ErrUnknownProvider) {
		t.Errorf("got %v, want ErrUnknownProvider", err)
	}
}

func TestValidateClient(t *testing.T) {
	c := validating(t)
	secret := func(s string) []tokenbroker.ClientSecret {
		return []tokenbroker.ClientSecret{{ID: "1", Secret: tokenbroker.NewSecret(s)}}
	}
	for _, tt := range []struct {
		name   string
		change func(*tokenbroker.OAuthClient)
		want   []string
	}{
		{"all is well", func(*tokenbroker.OAuthClient) {}, nil},
		{"no secret yet", func(c *tokenbroker.OAuthClient) { c.Secrets = nil }, nil},
		{"public", func(c *tokenbroker.OAuthClient) { c.Auth, c.Secrets = tokenbroker.AuthNone, nil }, nil},
		{"public with a secret", func(c *tokenbroker.OAuthClient) { c.Auth = tokenbroker.AuthNone }, []string{"spec.authMethod"}},
		{"a method that the provider does not take", func(c *tokenbroker.OAuthClient) { c.Auth = tokenbroker.AuthClientSecretBasic }, []string{"spec.authMethod"}},
		{"no method", func(c *tokenbroker.OAuthClient) { c.Auth = "" }, []string{"spec.authMethod"}},
		{"unknown provider", func(c *tokenbroker.OAuthClient) { c.Provider = "" }, []string{"spec.provider"}},
		{"no client id", func(c *tokenbroker.OAuthClient) { c.ClientID = "" }, []string{"spec.clientId"}},
		{"a client id with a line break", func(c *tokenbroker.OAuthClient) { c.ClientID = "id\n" }, []string{"spec.clientId"}},
		{"a client id too long", func(c *tokenbroker.OAuthClient) { c.ClientID = strings.Repeat("x", 1025) }, []string{"spec.clientId"}},
		{"a secret pasted with a line break", func(c *tokenbroker.OAuthClient) { c.Secrets = secret(secretCanary + "\n") }, []string{"secret"}},
		{"a secret with a control character", func(c *tokenbroker.OAuthClient) { c.Secrets = secret(secretCanary + "\x01x") }, []string{"secret"}},
		{"an empty secret", func(c *tokenbroker.OAuthClient) { c.Secrets = secret("") }, []string{"secret"}},
		{"a secret too long", func(c *tokenbroker.OAuthClient) {
			c.Secrets = secret(strings.Repeat("x", tokenbroker.MaxSecretBytes+1))
		}, []string{"secret"}},
		{"all at once", func(c *tokenbroker.OAuthClient) { c.ClientID, c.Auth = "", "x" }, []string{"spec.authMethod", "spec.clientId"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := ccRequest().Client
			client.Secrets = secret(secretCanary)
			tt.change(&client)
			err := c.ValidateClient(client)
			if got := fieldsOf(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
