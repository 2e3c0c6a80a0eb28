package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// An access token says what its bearer may do at the provider, not who that is: whoever was given one elsewhere could be anybody.
func TestAnAccessTokenIsNoProofOfIdentity(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	token := b.Token("example/api").GetAccessToken()
	ctx := metadata.AppendToOutgoingContext(brief(t), "authorization", "Bearer "+token, "x-goog-iap-jwt-assertion", token)
	stranger := b.Conn(domain + "/stranger/1")
	_, err := tokensOf(stranger).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	_, err = credentialsOf(stranger).ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	if _, err = tokensOf(b.Worker()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
		t.Errorf("got %v, want the header to change nothing for whoever has a certificate", err)
	}
}
