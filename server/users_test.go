package server_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

var tokenRequests = sandbox.Filter{Endpoint: sandbox.EndpointToken}

func usersOf(t *testing.T, b *brokertest.Broker, identity, credential string) *tokenbrokerv1.ListCredentialUsersResponse {
	t.Helper()
	r, err := credentialsOf(b.Conn(identity)).ListCredentialUsers(brief(t), &tokenbrokerv1.ListCredentialUsersRequest{Credential: credential})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func identities(r *tokenbrokerv1.ListCredentialUsersResponse) (all []string) {
	for _, u := range r.GetDid() {
		all = append(all, u.GetIdentity())
	}
	return all
}

func TestTheUsersOfACredentialAreThoseWhoMayAndThoseWhoDid(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read")
	if got := usersOf(t, b, operatorA, "a/api"); len(got.GetDid()) != 0 {
		t.Errorf("got %v before anybody was given a token", got.GetDid())
	}
	if _, err := tokensOf(b.Conn(workerA)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "a/api"}); err != nil {
		t.Fatal(err)
	}
	_, err := tokensOf(b.Conn(workerB)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "a/api"})
	wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	got := usersOf(t, b, operatorA, "a/api")
	if may := got.GetMay(); len(may) != 2 || may[0].GetRule() != "operators" || may[1].GetRule() != "a-workers" || may[1].GetIdentities()[0] != workerA ||
		!slices.Equal(may[1].GetActions(), []string{"token.get", "token.subscribe"}) || len(may[1].GetScopes()) != 0 {
		t.Errorf("may: got %v", may)
	}
	did := got.GetDid()
	if len(did) != 1 || did[0].GetIdentity() != workerA || did[0].GetRule() != "a-workers" || !did[0].GetAllowed() || did[0].GetSubscribed() {
		t.Fatalf("did: got %v, want the worker of a", did)
	}
	if first, last := did[0].GetFirstTime().AsTime(), did[0].GetLastTime().AsTime(); time.Since(first) > time.Minute || last.Before(first) || got.GetUsageSince().AsTime().After(first) {
		t.Errorf("first %v, last %v, since %v", first, last, got.GetUsageSince().AsTime())
	}
}

func TestWhoMayHaveLessThanAllScopesMayStillUseACredential(t *testing.T) {
	rule := `
  - name: a-workers
    identities: ["` + workerA + `"]
    actions: [token.get]
    credentials: ["a/*"]
    scopes: [`
	operators := `version: 1
rules:
  - name: operators
    identities: ["` + brokertest.OperatorID + `"]
    actions: ["credential.*", "oauth_client.*"]
    credentials: ["a/*"]
    oauth_clients: ["**"]
    scopes: ["**"]` + rule
	b := brokertest.Start(t, brokertest.Config{Policy: operators + "\"files.*\"]\n"})
	b.AddClientCredentials("a/api", "files.read", "files.write")
	if _, err := tokensOf(b.Conn(workerA)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "a/api"}); err != nil {
		t.Fatal(err)
	}
	for _, now := range []struct {
		scopes string
		may    bool
	}{{"files.read", true}, {"mail.read", false}} {
		b.SetPolicy(operators + "\"" + now.scopes + "\"]\n")
		eventually(t, "the rule is in force", func() bool {
			return slices.ContainsFunc(usersOf(t, b, brokertest.OperatorID, "a/api").GetMay(), func(g *tokenbrokerv1.CredentialGrantee) bool {
				return slices.Equal(g.GetScopes(), []string{now.scopes})
			})
		})
		did := usersOf(t, b, brokertest.OperatorID, "a/api").GetDid()
		if len(did) != 1 || did[0].GetAllowed() != now.may {
			t.Errorf("with a rule for %s: got %v, want allowed %v", now.scopes, did, now.may)
		}
	}
}

func TestASubscriberIsAUserOnceItIsGivenAToken(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read")
	b.Sandbox.Fail("fast", sandbox.Fault{Status: 503, Times: sandbox.Forever})
	b.AddClientCredentials("a/broken", "files.read")
	watch(t, b.Conn(workerA), sel("a/broken")).next()
	if got := usersOf(t, b, operatorA, "a/broken"); len(got.GetDid()) != 0 {
		t.Errorf("got %v, and nobody was given a token", got.GetDid())
	}
	b.Sandbox.Clear("fast")
	w := watch(t, b.Conn(workerA), sel("a/api"))
	w.ready(0)
	eventually(t, "the subscriber is a user", func() bool {
		did := usersOf(t, b, operatorA, "a/api").GetDid()
		return len(did) == 1 && did[0].GetSubscribed() && did[0].GetRule() == "a-workers"
	})
	w.cancel()
	_ = w.end()
	eventually(t, "it is seen to have gone", func() bool { return !usersOf(t, b, operatorA, "a/api").GetDid()[0].GetSubscribed() })
	b.SetPolicy(brokertest.DefaultPolicy)
	eventually(t, "it is seen that it may no more", func() bool {
		return !usersOf(t, b, brokertest.OperatorID, "a/api").GetDid()[0].GetAllowed()
	})
}

func TestWhoUsedACredentialOutlivesARestartAndEndsWithIt(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("a/api", "files.read")
	if _, err := tokensOf(b.Conn(workerA)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "a/api"}); err != nil {
		t.Fatal(err)
	}
	since := usersOf(t, b, operatorA, "a/api").GetUsageSince().AsTime()
	b.Restart()
	if got := usersOf(t, b, operatorA, "a/api"); !slices.Equal(identities(got), []string{workerA}) || !got.GetUsageSince().AsTime().Equal(since) {
		t.Errorf("after a restart: got %v since %v, want %v", identities(got), got.GetUsageSince().AsTime(), since)
	}
	if _, err := credentialsOf(b.Operator()).DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "a/api"}); err != nil {
		t.Fatal(err)
	}
	b.AddClientCredentials("a/api", "files.read")
	if got := identities(usersOf(t, b, operatorA, "a/api")); len(got) != 0 {
		t.Errorf("the new credential of that name has users %v", got)
	}
	b.Restart()
	if got := identities(usersOf(t, b, operatorA, "a/api")); len(got) != 0 {
		t.Errorf("after another restart it has users %v", got)
	}
}

func TestTheUsersOfAnothersCredentialAreHidden(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy})
	b.AddClientCredentials("b/api", "files.read")
	creds := credentialsOf(b.Conn(operatorA))
	_, err := creds.ListCredentialUsers(brief(t), &tokenbrokerv1.ListCredentialUsersRequest{Credential: "b/api"})
	wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	_, own := creds.ListCredentialUsers(brief(t), &tokenbrokerv1.ListCredentialUsersRequest{Credential: "a/none"})
	if wire(t, err) != wire(t, own) {
		t.Error("what is not there and what is another's answer otherwise")
	}
}
