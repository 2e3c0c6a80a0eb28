package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

// A resource indicator says whom a token is for, as an audience does (RFC 8707 §2).
func TestAttackWhoMayNotChooseAnAudienceMayNotChooseAResource(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `  - name: makers
    identities: ["spiffe://brokertest.local/maker/*"]
    actions: ["credential.create", "credential.update", "token.get"]
    credentials: ["mine/**"]
    oauth_clients: ["**"]
    scopes: ["**"]
    audiences: ["https://mine.example/*"]
`})
	b.AddClientCredentials("mine/first", "files.read")
	maker := credentialsOf(b.Conn(domain + "/maker/1"))
	spec := func(resources ...string) *tokenbrokerv1.CredentialSpec {
		return &tokenbrokerv1.CredentialSpec{Provider: "fast", OauthClient: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS,
			Scopes: []string{"files.read"}, Resources: resources}
	}
	create := func(s *tokenbrokerv1.CredentialSpec) error {
		_, err := maker.CreateCredential(brief(t), &tokenbrokerv1.CreateCredentialRequest{Credential: "mine/x", ValidateOnly: true, Spec: s})
		return err
	}
	audience := spec()
	audience.Audience = "https://payroll.example/"
	wantFault(t, create(audience), codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	wantFault(t, create(spec("https://mine.example/a", "https://payroll.example/")), codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	if err := create(spec("https://mine.example/a", "https://mine.example/b")); err != nil {
		t.Errorf("got %v, want the rule's own resources allowed", err)
	}
}

// What the profile asks for besides, to learn whose account it is, is no scope that a rule of a worker has to name: Google's profile does so
// and Google names all of the grant's scopes in each reply.
func TestAttackAWorkerGetsTheTokenOfAConsentThatTheProfileAddedScopesTo(t *testing.T) {
	b := peopleBroker(t, func(c *brokertest.Config) {
		was := c.Profile
		c.Profile = func(name string, p *provider.Profile) { was(name, p); p.ConsentScopes = []string{"openid", "email"} }
		c.Policy += `  - name: narrow
    identities: ["spiffe://brokertest.local/narrow/*"]
    actions: ["token.get"]
    credentials: ["people/**"]
    scopes: ["files.read", "files.write"]
`
	})
	c := consentsOf(b.Operator())
	begun, err := c.BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(),
		CallbackUrl: authorize(t, b, begun, ann)}); err != nil {
		t.Fatal(err)
	}
	_, err = tokensOf(b.Conn(domain+"/narrow/1")).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "people/files"})
	if err != nil {
		t.Errorf("got %v, want the token: the rule covers all that the credential asks for", err)
	}
}
