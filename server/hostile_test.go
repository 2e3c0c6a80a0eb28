package server_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const plainWorker = domain + "/plain/1"

// plainPolicy has a rule without scopes, subjects and audiences: the credential's own only.
const plainPolicy = brokertest.DefaultPolicy + `  - name: plain
    identities: ["spiffe://brokertest.local/plain/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
`

func TestAttackAWaitingCallerGetsNoTokenForWhatIsNoLongerTheCredentialsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: plainPolicy})
		defer b.Stop()
		b.Sandbox.Fail("fast", sandbox.Fault{Delay: 5 * time.Second, Times: 1})
		b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/api", Spec: &tokenbrokerv1.CredentialSpec{
			Provider: "fast", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS,
			Scopes: []string{"files.read"}, Audience: "https://old.example"}})
		ask := func() (*tokenbrokerv1.GetTokenResponse, error) {
			return tokenbrokerv1.NewTokenServiceClient(b.Conn(plainWorker)).GetToken(t.Context(),
				&tokenbrokerv1.GetTokenRequest{Credential: "example/api", Audience: "https://old.example"})
		}
		type answer struct {
			r   *tokenbrokerv1.GetTokenResponse
			err error
			at  time.Time
		}
		got := make(chan answer, 1)
		go func() { r, err := ask(); got <- answer{r, err, time.Now()} }()
		time.Sleep(time.Second)
		_, err := tokenbrokerv1.NewCredentialServiceClient(b.Operator()).UpdateCredential(t.Context(), &tokenbrokerv1.UpdateCredentialRequest{
			Credential: "example/api", Spec: &tokenbrokerv1.CredentialSpec{Audience: "https://new.example"},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"audience"}}})
		if err != nil {
			t.Fatal(err)
		}
		edited := time.Now()
		if _, err := ask(); err == nil {
			t.Error("control: after the edit the old audience is given")
		}
		a := <-got
		if !a.at.After(edited) {
			t.Fatal("the answer came before the edit: this shows nothing")
		}
		if a.err == nil {
			t.Errorf("a token for audience %q left, which no rule lets this identity choose (generation %d)", "https://old.example", a.r.GetToken().GetGeneration())
		}
	})
}

func TestAttackDeniedSelectorsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, testDeniedSelectors) // where no time passes between two calls, however slow the machine is
}

func testDeniedSelectors(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: plainPolicy})
	defer b.Stop()
	conn := b.Conn(plainWorker)
	began, refused := time.Now(), 0
	for call := range 6 {
		var list []*tokenbrokerv1.Selector
		for i := range 200 {
			list = append(list, &tokenbrokerv1.Selector{Credential: fmt.Sprintf("secret/%d-%d", call, i)})
		}
		stream, err := tokensOf(conn).Subscribe(brief(t), &tokenbrokerv1.SubscribeRequest{Selectors: list})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			wantFault(t, err, codes.ResourceExhausted, "TOO_MANY")
			refused++
		}
	}
	if refused == 0 {
		t.Error("each of six calls with 200 denied selectors was let in")
	}
	denied := 0
	for _, l := range auditLines(t, b) {
		if l.Decision == "deny" {
			denied++
		}
	}
	if most := 200 + 10*int(time.Since(began).Seconds()+1) + 10; denied > most {
		t.Errorf("got %d records of denials, want at most %d and the rest summed up", denied, most)
	}
}

func TestAttackHealthWatchesAreBounded(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: plainPolicy})
	conn := b.Conn(plainWorker)
	for i := range 30 {
		w, err := grpc_health_v1.NewHealthClient(conn).Watch(brief(t), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); err != nil {
			wantFault(t, err, codes.ResourceExhausted, "TOO_MANY")
			if i < 16 {
				t.Errorf("refused after %d", i)
			}
			return
		}
	}
	t.Error("30 watches are open on one connection of an identity that may do nothing")
}

func TestAttackWhoMayOnlyReportGetsNoToken(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: plainPolicy, Profile: func(_ string, p *provider.Profile) {
		p.Floor = new(provider.Duration(time.Millisecond))
	}})
	b.AddClientCredentials("example/api", "files.read")
	tokens := tokensOf(b.Conn(plainWorker))
	had, err := tokens.GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if err != nil {
		t.Fatal(err)
	}
	report := &tokenbrokerv1.ReportRejectedRequest{Credential: "example/api", Generation: had.GetToken().GetGeneration(), HttpStatus: 403}
	if got, err := tokens.ReportRejected(brief(t), report); err != nil || got.GetToken().GetAccessToken() == "" {
		t.Fatalf("control: got %v, want the token for whoever may get it", err)
	}
	b.SetPolicy(brokertest.DefaultPolicy + `  - name: plain
    identities: ["spiffe://brokertest.local/plain/*"]
    actions: ["token.report"]
    credentials: ["example/*"]
`)
	eventually(t, "token.get is gone", func() bool {
		_, err := tokens.GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		return err != nil
	})
	got, err := tokens.ReportRejected(brief(t), report)
	if err != nil || got.GetToken() != nil || got.GetOutcome() == tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_UNSPECIFIED {
		t.Errorf("got %v and a token: %v; want the outcome alone", err, got.GetToken() != nil)
	}
}

func TestAttackParametersDoNotGoRoundTheCeiling(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `  - name: team
    identities: ["spiffe://brokertest.local/team"]
    actions: ["credential.update", "credential.get"]
    credentials: ["example/*"]
    oauth_clients: ["fast"]
    scopes: ["files.read"]
`})
	b.AddClientCredentials("example/api", "files.read")
	team := credentialsOf(b.Conn(domain + "/team"))
	for name, value := range map[string]string{"requested_subject": "admin", "authorization_details": "[]", "aud": "https://elsewhere.example", "sub": "admin", "scopes": "files.admin"} {
		_, err := team.UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: "example/api",
			Spec: &tokenbrokerv1.CredentialSpec{Parameters: map[string]string{name: value}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"parameters"}}})
		wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
	}
}

func TestAttackFindTokenHashesNothingForWhoMayNotSeeIt(t *testing.T) {
	records := handedOut()
	for i := range records {
		records[i].Credential = "other/a" // nothing that the team may see
	}
	r := auditRig(t, newMemory(records...), false, nil)
	r.serve(auditor)
	resp, err := auditsOf(r, team).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leakedToken})
	if err != nil || resp.GetKnown() || resp.GetTokenMac() != "" {
		t.Errorf("got %v, known %v, hash %q; want nothing told", err, resp.GetKnown(), resp.GetTokenMac())
	}
}

func TestAttackExplainTellsNothingOfOthersRules(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: tenantsPolicy + `  - name: b-secret-merger-with-acme
    identities: ["spiffe://brokertest.local/b/worker"]
    actions: ["token.get"]
    credentials: ["b/merger"]
`})
	b.AddClientCredentials("a/api", "files.read")
	ask := &tokenbrokerv1.ExplainRequest{Identity: workerB, Action: "token.get", Credential: "a/api"}
	got, err := policiesOf(b.Conn(operatorA)).Explain(brief(t), ask)
	if err != nil || len(got.GetVerdicts()) > 0 || strings.Contains(got.GetAdvice(), "merger") {
		t.Errorf("got %v, %d verdicts and advice %q, want nothing of rules about other credentials", err, len(got.GetVerdicts()), got.GetAdvice())
	}
	if got, err = policiesOf(b.Operator()).Explain(brief(t), ask); err != nil || len(got.GetVerdicts()) == 0 {
		t.Errorf("got %v and %d verdicts for whoever may ask about all", err, len(got.GetVerdicts()))
	}
}
