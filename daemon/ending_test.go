package daemon_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestTheLogTellsOfWhatIsToBeReplacedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		b := brokertest.Start(t, brokertest.Config{Log: log, WatchEvery: time.Hour})
		defer b.Stop()
		end := time.Now().Add(48 * time.Hour).Truncate(time.Second)
		b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/key", StaticToken: "hand-made", SecretExpireTime: timestamppb.New(end),
			Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_STATIC}})
		_, err := tokenbrokerv1.NewOAuthClientServiceClient(b.Operator()).CreateOAuthClient(t.Context(), &tokenbrokerv1.CreateOAuthClientRequest{
			OauthClient: "aging", ClientSecret: "hush-hush", SecretExpireTime: timestamppb.New(end), Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast",
				ClientId: "job", AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		if got := log.lines("level=WARN"); len(got) != 0 {
			t.Errorf("with 25 h to go: got %q, want nothing", got)
		}
		time.Sleep(2 * time.Hour)
		dies := end.UTC().Format(time.RFC3339)
		if got := log.lines("the static token ends soon", "example/key", "dies="+dies); len(got) != 1 {
			t.Errorf("got %d lines of the static token, want 1", len(got))
		}
		if got := log.lines("a secret of an OAuth client is to be replaced", "oauth_client=aging", "kind=secret", "fingerprint=", "due="+dies); len(got) != 1 {
			t.Errorf("got %d lines of the client secret, want 1", len(got))
		}
		if got := log.lines("hand-made"); len(got) != 0 || len(log.lines("hush-hush")) != 0 {
			t.Error("the log holds a secret")
		}
	})
}

func TestARevocationThatTheProviderDoesNotKnowIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		b := brokertest.Start(t, brokertest.Config{Log: log})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		b.Token("example/drive")
		list, err := b.Daemon.Broker().Revoke(t.Context(), broker.RevokeQuery{Provider: "rotating"})
		if err != nil || len(list) != 1 || list[0].Outcome != broker.RevokeUnsupported {
			t.Errorf("got %+v, %v; want it not supported there", list, err)
		}
		if got := log.lines("asked to end a grant", "example/drive", "outcome=not_supported", "level=WARN"); len(got) != 1 {
			t.Errorf("got %d lines, want one that says that the provider was of no help", len(got))
		}
		st, err := b.Daemon.Broker().Credential(t.Context(), "example/drive")
		if err != nil || st.Snapshot.State != tokenbroker.StateReauthorize || st.Advice != "Bring a new refresh token, if it is to be used any more." {
			t.Errorf("got %s, advice %q, %v; want REAUTHORIZE and what to do about a refresh token that was brought", st.Snapshot.State, st.Advice, err)
		}
	})
}
