package server_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// readersPolicy lets workers have one scope only.
var readersPolicy = strings.Replace(brokertest.DefaultPolicy, `credentials: ["example/*"]
    scopes: ["**"]`, `credentials: ["example/*"]
    scopes: ["files.read"]`, 1)

// wantCode checks the code of an error.
func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestATokenIsJudgedByTheScopesThatItHasWhenItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: readersPolicy})
		defer b.Stop()
		b.Sandbox.Fail("fast", sandbox.Fault{}, sandbox.Fault{Set: map[string]any{"scope": "files.read files.admin"}})
		b.AddClientCredentials("example/api", "files.read")
		b.Token("example/api")
		time.Sleep(55 * time.Minute) // the refresh brings more than was asked
		_, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if err == nil { // nobody used it meanwhile: this call gets the old token, and the next one the new
			time.Sleep(10 * time.Minute)
			_, err = tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		}
		wantFault(t, err, codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE")
		if _, err := tokenbrokerv1.NewTokenServiceClient(b.Operator()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
			t.Errorf("an identity that may have all the scopes: %v", err)
		}
	})
}

func TestAnEditWhileACallerWaitsGivesItNothingThatItMayNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: readersPolicy})
		defer b.Stop()
		b.Sandbox.Fail("fast", sandbox.Fault{Delay: 5 * time.Second, Times: 2})
		b.AddClientCredentials("example/api", "files.read")
		got := make(chan error, 1)
		go func() {
			r, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			if err == nil && strings.Contains(strings.Join(r.GetToken().GetScopes(), " "), "files.write") {
				err = errors.New("the worker got files.write")
			} else if status.Code(err) == codes.PermissionDenied {
				err = nil
			}
			got <- err
		}()
		time.Sleep(time.Second)
		_, err := tokenbrokerv1.NewCredentialServiceClient(b.Operator()).UpdateCredential(t.Context(), &tokenbrokerv1.UpdateCredentialRequest{
			Credential: "example/api", Spec: &tokenbrokerv1.CredentialSpec{Scopes: []string{"files.read", "files.write"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"scopes"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

func TestAPolicyThatChangesWhileACallerWaitsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.Sandbox.Fail("fast", sandbox.Fault{Delay: 5 * time.Second})
		b.AddClientCredentials("example/api", "files.read")
		got := make(chan error, 1)
		go func() {
			_, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			got <- err
		}()
		time.Sleep(time.Second)
		b.SetPolicy(strings.ReplaceAll(brokertest.DefaultPolicy, "worker/*", "nobody/*"))
		wantCode(t, <-got, codes.NotFound)
	})
}

func TestAnOperatorIsHeldToItsScopesAndClients(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `
  - name: team
    identities: ["spiffe://brokertest.local/team"]
    actions: ["credential.*"]
    credentials: ["team/*"]
    oauth_clients: ["fast"]
    scopes: ["files.read"]
`})
	b.AddClientCredentials("team/api", "files.read")
	b.AddRefreshToken("team/drive", "rotating", "files.read") // of a client that the team may not use
	team := tokenbrokerv1.NewCredentialServiceClient(b.Conn("spiffe://brokertest.local/team"))
	update := func(name string, spec *tokenbrokerv1.CredentialSpec) error {
		_, err := team.UpdateCredential(t.Context(), &tokenbrokerv1.UpdateCredentialRequest{Credential: name, Spec: spec})
		return err
	}
	if err := update("team/api", &tokenbrokerv1.CredentialSpec{Owner: "the team"}); err != nil {
		t.Errorf("an edit within its rule: %v", err)
	}
	wantCode(t, update("team/api", &tokenbrokerv1.CredentialSpec{Scopes: []string{"files.read", "files.write"}}), codes.PermissionDenied)
	wantCode(t, update("team/api", &tokenbrokerv1.CredentialSpec{OauthClient: "rotating"}), codes.NotFound)
	wantCode(t, update("team/api", &tokenbrokerv1.CredentialSpec{Audience: "https://elsewhere.example"}), codes.PermissionDenied)
	wantCode(t, update("team/drive", &tokenbrokerv1.CredentialSpec{Scopes: []string{"files.read"}}), codes.NotFound)
}

func TestNothingChangesWithoutARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		b.Token("example/api")
		operator := tokenbrokerv1.NewCredentialServiceClient(b.Operator())
		breakAudit(t, b)
		_, err := operator.DeleteCredential(t.Context(), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"})
		wantCode(t, err, codes.Unavailable)
		mendAudit(t, b)
		if _, err := operator.GetCredential(t.Context(), &tokenbrokerv1.GetCredentialRequest{Credential: "example/api"}); err != nil {
			t.Errorf("the delete that could not be recorded: the credential is gone: %v", err)
		}
	})
}

// breakAudit has a folder stand where the audit log was, so that the log can't be opened anew.
func breakAudit(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	if err := errors.Join(os.Rename(b.Dir+"/audit.jsonl", b.Dir+"/audit.old"), os.Mkdir(b.Dir+"/audit.jsonl", 0o700)); err != nil {
		t.Fatal(err)
	}
}

func mendAudit(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	if err := os.Remove(b.Dir + "/audit.jsonl"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
}

func TestAChangeIsRecordedBeforeAndAfter(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Stop()
	text, err := os.ReadFile(b.Dir + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Index(string(text), `"kind":"call_intent"`)
	after := strings.Index(string(text), `"action":"credential.create","credential":"example/api","oauth_client":"fast"`)
	if before < 0 || after < 0 {
		t.Errorf("want an intent and a result of credential.create in\n%s", text)
	}
}

func TestDenialsDoNotFillTheLog(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	stranger := tokenbrokerv1.NewTokenServiceClient(b.Conn("spiffe://brokertest.local/stranger"))
	scopes := make([]string, 100)
	for i := range scopes {
		scopes[i] = strings.Repeat("s", 250) + string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	refused := map[codes.Code]int{}
	for range 400 {
		_, err := stranger.GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: scopes,
			Audience: strings.Repeat("a", 1000)})
		refused[status.Code(err)]++
	}
	b.Stop()
	info, err := os.Stat(b.Dir + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if refused[codes.NotFound] < 100 || refused[codes.ResourceExhausted] == 0 || len(refused) != 2 {
		t.Errorf("got %v, want some NOT_FOUND and then RESOURCE_EXHAUSTED", refused)
	}
	if limit := int64(1 << 20); info.Size() > limit {
		t.Errorf("400 denied calls of 26 kB wrote %d bytes, want at most %d", info.Size(), limit)
	}
}

func TestAnOpenReflectionStreamDoesNotHoldUpADrain(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	stream, err := reflectionv1.NewServerReflectionClient(b.Operator()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		b.Shutdown()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("the drain waits for a reflection stream")
	}
	_, err = stream.Recv()
	wantCode(t, err, codes.Unavailable)
}

func TestADNSNameIsAnIdentityWhereItIsAllowed(t *testing.T) {
	policy := strings.Replace(brokertest.DefaultPolicy, "spiffe://brokertest.local/worker/*", "dns:*.brokertest.local", 1)
	certificate := mtls.Template{DNSNames: []string{"jobs.brokertest.local"}, Client: true}
	for _, allowed := range []bool{true, false} {
		b := brokertest.Start(t, brokertest.Config{Policy: policy, AllowDNS: allowed})
		b.AddClientCredentials("example/api", "files.read")
		conn := b.ConnWith(certificate)
		_, err := tokenbrokerv1.NewTokenServiceClient(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if (err == nil) != allowed {
			t.Errorf("allowed = %v: got %v", allowed, err)
		}
		b.Stop()
	}
}

func TestAStreamLosesATokenThatHasMoreThanItsHolderMayHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: readersPolicy, Limits: server.Limits{ConnectionAge: 24 * time.Hour}})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		first := b.Token("example/api")
		b.Sandbox.Fail("fast", sandbox.Fault{Set: map[string]any{"scope": "files.read files.admin"}})
		stream, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{
			Selectors: []*tokenbrokerv1.Selector{{Credential: "example/api"}}})
		if err != nil {
			t.Fatal(err)
		}
		next := func() *tokenbrokerv1.SubscribeResponse {
			for {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if m.GetUpdate() != nil || m.GetRemoved() != nil {
					return m
				}
			}
		}
		if got := next().GetUpdate().GetGeneration(); got != first.GetGeneration() {
			t.Errorf("the snapshot: got generation %d, want %d", got, first.GetGeneration())
		}
		if m := next(); m.GetRemoved().GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_SCOPES_TOO_WIDE {
			t.Errorf("the refresh: got %v, want it removed as too wide", m.GetEvent())
		}
		b.SetPolicy(brokertest.DefaultPolicy)
		if u := next().GetUpdate(); u.GetGeneration() <= first.GetGeneration() || len(u.GetToken().GetScopes()) != 2 {
			t.Errorf("after the policy allows it: got generation %d with %v, want the wide token", u.GetGeneration(), u.GetToken().GetScopes())
		}
	})
}
