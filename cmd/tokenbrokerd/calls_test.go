package main_test

import (
	"context"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// addClient adds an OAuth client.
func addClient(t testing.TB, conn *grpc.ClientConn, name, provider, id, secret string, auth tokenbrokerv1.AuthMethod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(conn).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: name, ClientSecret: secret,
		Spec: &tokenbrokerv1.OAuthClientSpec{Provider: provider, ClientId: id, AuthMethod: auth}})
	if err != nil {
		t.Fatalf("create OAuth client: %v", err)
	}
}

// addJob adds the sandbox's client "job", under its provider's name.
func addJob(t testing.TB, conn *grpc.ClientConn, provider string) {
	t.Helper()
	addClient(t, conn, provider, provider, "job", secret, tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC)
}

// add adds a credential. Without a refresh token it is one of client_credentials.
func add(t testing.TB, conn *grpc.ClientConn, name, provider, client, refreshToken string, scopes ...string) {
	t.Helper()
	if err := tryAdd(t, conn, name, provider, client, refreshToken, scopes...); err != nil {
		t.Fatalf("create credential %s: %v", name, err)
	}
}

func tryAdd(t testing.TB, conn *grpc.ClientConn, name, provider, client, refreshToken string, scopes ...string) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	grant := tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS
	if refreshToken != "" {
		grant = tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN
	}
	_, err := tokenbrokerv1.NewCredentialServiceClient(conn).CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{
		Credential: name, RefreshToken: refreshToken, Spec: &tokenbrokerv1.CredentialSpec{
			Provider: provider, OauthClient: client, GrantType: grant, Scopes: scopes}})
	return err
}

// get asks for a token.
func get(t testing.TB, conn *grpc.ClientConn, credential string) (*tokenbrokerv1.GetTokenResponse, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return tokenbrokerv1.NewTokenServiceClient(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: credential})
}

// mustGet asks for a token that must be there.
func mustGet(t testing.TB, conn *grpc.ClientConn, credential string) *tokenbrokerv1.Token {
	t.Helper()
	r, err := get(t, conn, credential)
	if err != nil {
		t.Fatalf("get a token of %s: %v", credential, err)
	}
	return r.GetToken()
}

// reason is the reason of an error's ErrorInfo, "" if it has none.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// subscribe opens a stream on credentials, which ends with the test or with cancel.
func subscribe(t testing.TB, conn *grpc.ClientConn, names ...string) (stream grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse], cancel func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(ctx, subscribeRequest(names...), grpc.WaitForReady(true))
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	return stream, cancel
}

func subscribeRequest(names ...string) *tokenbrokerv1.SubscribeRequest {
	r := &tokenbrokerv1.SubscribeRequest{}
	for _, n := range names {
		r.Selectors = append(r.Selectors, &tokenbrokerv1.Selector{Credential: n})
	}
	return r
}

// snapshot reads a stream up to the end of its snapshot and returns the updates by credential.
func snapshot(t testing.TB, stream grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse]) map[string]*tokenbrokerv1.Update {
	t.Helper()
	updates := map[string]*tokenbrokerv1.Update{}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("before the end of the snapshot: %v", err)
		}
		if u := m.GetUpdate(); u != nil {
			updates[u.GetSelector().GetCredential()] = u
		}
		if m.GetSnapshotEnd() != nil {
			return updates
		}
	}
}
