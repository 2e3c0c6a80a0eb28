package brokertest

import (
	"context"
	"time"

	"google.golang.org/grpc"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// patience is how long a call of the test itself may take on a machine that has much else to do.
const patience = 2 * time.Minute

// AddClientCredentials adds a client_credentials credential of the issuer "fast". Its OAuth client is added when it is missing.
func (b *Broker) AddClientCredentials(name string, scopes ...string) {
	b.t.Helper()
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: name, Spec: &tokenbrokerv1.CredentialSpec{
		Provider: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: scopes}})
}

// AddRefreshToken adds a refresh_token credential of an issuer, with a refresh token that the sandbox has just given, and returns that token.
func (b *Broker) AddRefreshToken(name, issuer string, scopes ...string) string {
	b.t.Helper()
	token := b.Sandbox.SeedRefreshToken(issuer, "job", scopes...)
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: name, RefreshToken: token, Spec: &tokenbrokerv1.CredentialSpec{
		Provider: issuer, GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, Scopes: scopes}})
	return token
}

// Add adds a credential. If it names no OAuth client it gets the one of its provider's name, which is added when it is missing:
// the client "job" with Secret.
func (b *Broker) Add(r *tokenbrokerv1.CreateCredentialRequest) {
	b.t.Helper()
	conn := b.Operator()
	if r.GetSpec().GetOauthClient() == "" && !clientless(r.GetSpec().GetGrantType()) {
		r.Spec.OauthClient = r.GetSpec().GetProvider()
		b.addClient(conn, r.GetSpec().GetProvider())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := tokenbrokerv1.NewCredentialServiceClient(conn).CreateCredential(ctx, r)
	b.must("create credential "+r.GetCredential(), err)
}

func clientless(g tokenbrokerv1.GrantType) bool {
	return g == tokenbrokerv1.GrantType_GRANT_TYPE_STATIC || g == tokenbrokerv1.GrantType_GRANT_TYPE_GOOGLE_ADC
}

func (b *Broker) addClient(conn *grpc.ClientConn, issuer string) {
	b.t.Helper()
	b.mu.Lock()
	made := b.made[issuer]
	b.made[issuer] = true
	b.mu.Unlock()
	if made {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(conn).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: issuer, ClientSecret: Secret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: issuer, ClientId: "job",
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
	b.must("create OAuth client "+issuer, err)
}

// Token gets a token as WorkerID, and fails the test if it can't be had.
func (b *Broker) Token(credential string) *tokenbrokerv1.Token {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: credential})
	b.must("get a token of "+credential, err)
	return r.GetToken()
}
