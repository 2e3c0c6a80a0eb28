package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	ann         = "ann@people.test"
	bob         = "bob@people.test"
	catcher     = "http://127.0.0.1:41234/callback"
	helperID    = domain + "/helper/test"
	readerID    = domain + "/operator/other"
	consentRule = `
  - name: helpers
    identities: ["spiffe://brokertest.local/helper/*"]
    actions: ["consent.*"]
    credentials: ["people/files"]
    oauth_clients: ["people"]
    scopes: ["files.read"]
`
)

// peopleBroker is a broker at whose provider "people" Ann and Bob can consent.
func peopleBroker(t *testing.T, change func(*brokertest.Config)) *brokertest.Broker {
	t.Helper()
	cfg := brokertest.Config{Policy: brokertest.DefaultPolicy + consentRule[1:], Issuers: []sandbox.Issuer{{Name: "people", Rotation: sandbox.RotateStrict,
		Clients:  []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}, RedirectURIs: []string{"http://127.0.0.1/callback"}}},
		Accounts: []sandbox.Account{{ID: "1", Email: ann}, {ID: "2", Email: bob}}}},
		Profile: func(_ string, p *provider.Profile) {
			floor := provider.Duration(1) // an exchange that was tried when the credential was created must not forbid the trial refresh
			p.Floor = &floor
			p.Title, p.Scopes = "People & Files", []provider.ScopeInfo{{Name: "files.read", Meaning: "See your files"}}
		}}
	if change != nil {
		change(&cfg)
	}
	b := brokertest.Start(t, cfg)
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "people/files", Spec: &tokenbrokerv1.CredentialSpec{Provider: "people",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE, Scopes: []string{"files.read", "files.write"}}})
	return b
}

func consentsOf(c grpc.ClientConnInterface) tokenbrokerv1.ConsentServiceClient {
	return tokenbrokerv1.NewConsentServiceClient(c)
}

func loopbackRequest() *tokenbrokerv1.BeginConsentRequest {
	return &tokenbrokerv1.BeginConsentRequest{Credential: "people/files", Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK, RedirectUri: catcher}
}

// authorize is a person who consents to what was begun: the URL that the browser is sent to.
func authorize(t *testing.T, b *brokertest.Broker, begun *tokenbrokerv1.BeginConsentResponse, account string, scopes ...string) string {
	t.Helper()
	callback, err := b.Sandbox.Authorize("people", begun.GetAuthorizationUrl(), account, scopes...)
	if err != nil {
		t.Fatal(err)
	}
	return callback
}

func TestAConsentByLoopbackEndsWithATokenAndASummary(t *testing.T) {
	b := peopleBroker(t, nil)
	c := consentsOf(b.Operator())
	begun, err := c.BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	if begun.GetConsent().GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_PENDING || begun.GetRedirectUri() != catcher {
		t.Errorf("begun: %s, redirect URI %s", begun.GetConsent().GetState(), begun.GetRedirectUri())
	}
	done, err := c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(),
		CallbackUrl: authorize(t, b, begun, ann, "files.read", "openid")})
	if err != nil {
		t.Fatal(err)
	}
	got := done.GetConsent()
	if got.GetState() != tokenbrokerv1.ConsentState_CONSENT_STATE_DONE || got.GetAccount() != ann || got.GetTrial() != "READY" {
		t.Errorf("consent: %s of %q, trial %q", got.GetState(), got.GetAccount(), got.GetTrial())
	}
	if len(got.GetMissingScopes()) != 1 || got.GetMissingScopes()[0] != "files.write" {
		t.Errorf("missing scopes: %v", got.GetMissingScopes())
	}
	if who := strings.Join(got.GetPermitted(), " "); who != "spiffe://brokertest.local/operator/*" {
		t.Errorf("permitted: %s", who)
	}
	if st := done.GetCredential().GetStatus(); st.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY || st.GetGeneration() == 0 {
		t.Errorf("credential: %s, generation %d", st.GetState(), st.GetGeneration())
	}
	token, err := tokensOf(b.Operator()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "people/files"})
	if err != nil || !strings.HasPrefix(token.GetToken().GetAccessToken(), sandbox.AccessPrefix) {
		t.Errorf("no token: %v", err)
	}
	_, err = c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: got.GetConsentId(), CallbackUrl: authorize(t, b, begun, ann)})
	if f := wantFault(t, err, codes.FailedPrecondition, "CONSENT_ENDED"); f.Meta["consentState"] != "DONE" {
		t.Errorf("metadata: %v", f.Meta)
	}
}

func TestAConsentIsOfWhoeverBeganItAndOfWhomTheRulesCover(t *testing.T) {
	b := peopleBroker(t, nil)
	begun, err := consentsOf(b.Operator()).BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	id, callback := begun.GetConsent().GetConsentId(), authorize(t, b, begun, ann)
	for _, who := range []string{readerID, helperID} {
		_, err := consentsOf(b.Conn(who)).CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: id, CallbackUrl: callback})
		wantFault(t, err, codes.NotFound, "CONSENT_NOT_FOUND")
	}
	worker := consentsOf(b.Worker())
	_, err = worker.GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{ConsentId: id})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	_, err = worker.BeginConsent(brief(t), loopbackRequest())
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	if got, err := consentsOf(b.Conn(readerID)).GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{ConsentId: id}); err != nil || got.GetPollInterval().AsDuration() <= 0 {
		t.Errorf("another operator may look: %v", err)
	}
	_, err = consentsOf(b.Operator()).GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{ConsentId: "none"})
	wantFault(t, err, codes.NotFound, "CONSENT_NOT_FOUND")
	_, err = consentsOf(b.Operator()).GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestBeginIsJudgedByScopesAndOAuthClient(t *testing.T) {
	b := peopleBroker(t, nil)
	helper := consentsOf(b.Conn(helperID))
	_, err := helper.BeginConsent(brief(t), loopbackRequest()) // the credential's own scopes are more than a helper may
	if f := wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED"); f.Meta["scope"] != "files.write" {
		t.Errorf("metadata: %v", f.Meta)
	}
	narrow := loopbackRequest()
	narrow.Scopes = []string{"files.read"}
	if _, err := helper.BeginConsent(brief(t), narrow); err != nil {
		t.Errorf("what it may: %v", err)
	}
	b.SetPolicy(strings.Replace(brokertest.DefaultPolicy+consentRule[1:], `oauth_clients: ["people"]`, `oauth_clients: ["other"]`, 1))
	eventually(t, "the policy comes in force", func() bool {
		_, err = helper.BeginConsent(brief(t), narrow)
		return err != nil
	})
	wantFault(t, err, codes.NotFound, "OAUTH_CLIENT_NOT_FOUND")
	last := auditLines(t, b)
	if l := last[len(last)-1]; l.Decision != "deny" || l.Action != "consent.begin" || l.Credential != "people/files" {
		t.Errorf("audit: %+v", l)
	}
}

func TestBeginSaysWhatIsWrong(t *testing.T) {
	b := peopleBroker(t, nil)
	c := consentsOf(b.Operator())
	for reason, change := range map[string]func(*tokenbrokerv1.BeginConsentRequest){
		"CREDENTIAL_NOT_FOUND": func(r *tokenbrokerv1.BeginConsentRequest) { r.Credential = "people/none" },
		"CONSENT_NOT_OFFERED": func(r *tokenbrokerv1.BeginConsentRequest) {
			r.Flow, r.RedirectUri = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK, ""
		},
		"GRANT_NOT_SUPPORTED": func(r *tokenbrokerv1.BeginConsentRequest) {
			r.Flow, r.RedirectUri = tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE, ""
		},
	} {
		r := loopbackRequest()
		change(r)
		_, err := c.BeginConsent(brief(t), r)
		if f := faultOf(t, err); f.Reason != reason {
			t.Errorf("got %s, want %s", f.Reason, reason)
		}
	}
	for field, change := range map[string]func(*tokenbrokerv1.BeginConsentRequest){
		"flow":          func(r *tokenbrokerv1.BeginConsentRequest) { r.Flow = 0 },
		"redirectUri":   func(r *tokenbrokerv1.BeginConsentRequest) { r.RedirectUri = "https://evil.example/callback" },
		"scopes":        func(r *tokenbrokerv1.BeginConsentRequest) { r.Scopes = []string{"a b"} },
		"expectAccount": func(r *tokenbrokerv1.BeginConsentRequest) { r.ReplaceAccount = true },
	} {
		r := loopbackRequest()
		change(r)
		_, err := c.BeginConsent(brief(t), r)
		if f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); len(f.Fields) != 1 || f.Fields[0] != field {
			t.Errorf("fields %v, want %s", f.Fields, field)
		}
	}
}

func TestAnotherAccountOnReauthorizeIsRefused(t *testing.T) {
	b := peopleBroker(t, nil)
	c := consentsOf(b.Operator())
	consent := func(account, expect string, replace bool) error {
		r := loopbackRequest()
		r.ExpectAccount, r.ReplaceAccount = expect, replace
		begun, err := c.BeginConsent(brief(t), r)
		if err != nil {
			return err
		}
		_, err = c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(), CallbackUrl: authorize(t, b, begun, account)})
		return err
	}
	if err := consent(ann, "", false); err != nil {
		t.Fatal(err)
	}
	wantFault(t, consent(bob, "", false), codes.FailedPrecondition, "ACCOUNT_MISMATCH")
	wantFault(t, consent(bob, bob, false), codes.FailedPrecondition, "ACCOUNT_MISMATCH")
	if err := consent(bob, bob, true); err != nil {
		t.Errorf("in its place: %v", err)
	}
	if err := consent(bob, "", false); err != nil {
		t.Errorf("the new one again: %v", err)
	}
}

func TestADeniedConsentSaysSo(t *testing.T) {
	b := peopleBroker(t, nil)
	c := consentsOf(b.Operator())
	begun, err := c.BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	no, err := b.Sandbox.RefuseAuthorization("people", begun.GetAuthorizationUrl())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(), CallbackUrl: no})
	if f := wantFault(t, err, codes.FailedPrecondition, "CONSENT_ENDED"); f.Meta["consentState"] != "DENIED" || f.Meta["code"] != "access_denied" {
		t.Errorf("metadata: %v", f.Meta)
	}
	list, err := c.ListConsents(brief(t), &tokenbrokerv1.ListConsentsRequest{})
	if err != nil || len(list.GetConsents()) != 1 || list.GetConsents()[0].GetAdvice() == "" {
		t.Errorf("list: %v (%v)", len(list.GetConsents()), err)
	}
}

func TestADeviceConsentIsPolledByTheBroker(t *testing.T) {
	b := peopleBroker(t, func(c *brokertest.Config) { c.Issuers[0].DeviceInterval = 1e9 })
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "people/device", Spec: &tokenbrokerv1.CredentialSpec{Provider: "people",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE, Scopes: []string{"files.read"}}})
	c := consentsOf(b.Operator())
	begun, err := c.BeginConsent(brief(t), &tokenbrokerv1.BeginConsentRequest{Credential: "people/device", Flow: tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sandbox.Approve("people", begun.GetUserCode(), ann); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker finds out", func() bool {
		got, err := c.GetConsent(brief(t), &tokenbrokerv1.GetConsentRequest{ConsentId: begun.GetConsent().GetConsentId()})
		return err == nil && got.GetConsent().GetState() == tokenbrokerv1.ConsentState_CONSENT_STATE_DONE && got.GetConsent().GetAccount() == ann && got.GetConsent().GetTrial() != ""
	})
	if n := len(linesOf(t, b, "consent.device")); n != 1 {
		t.Errorf("%d audit records of what the device brought, want 1", n)
	}
}

// linesOf are the audit records of an action.
func linesOf(t *testing.T, b *brokertest.Broker, action string) (list []auditLine) {
	t.Helper()
	for _, l := range auditLines(t, b) {
		if l.Action == action {
			list = append(list, l)
		}
	}
	return list
}

func TestNoConsentLeavesASecretInTheAuditLog(t *testing.T) {
	log := &syncBuffer{}
	b := peopleBroker(t, func(c *brokertest.Config) { c.Log = log })
	c := consentsOf(b.Operator())
	begun, err := c.BeginConsent(brief(t), loopbackRequest())
	if err != nil {
		t.Fatal(err)
	}
	callback := authorize(t, b, begun, ann)
	if _, err := c.CompleteConsent(brief(t), &tokenbrokerv1.CompleteConsentRequest{ConsentId: begun.GetConsent().GetConsentId(), CallbackUrl: callback}); err != nil {
		t.Fatal(err)
	}
	trail, err := os.ReadFile(filepath.Join(b.Dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(callback, "?")
	for _, part := range append(strings.Split(query, "&"), sandbox.AccessPrefix, sandbox.RefreshPrefix) {
		_, value, _ := strings.Cut(part, "=")
		if strings.HasPrefix(part, "iss=") {
			continue
		}
		if value == "" {
			value = part
		}
		if strings.Contains(log.String(), value) || strings.Contains(string(trail), value) {
			t.Errorf("%s is logged", part[:min(len(part), 12)])
		}
	}
}

func TestProvidersAreShown(t *testing.T) {
	b := peopleBroker(t, nil)
	p := tokenbrokerv1.NewProviderServiceClient(b.Operator())
	list, err := p.ListProviders(brief(t), &tokenbrokerv1.ListProvidersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]*tokenbrokerv1.Provider{}
	for _, one := range list.GetProviders() {
		names[one.GetProvider()] = one
		if one.GetNotes() != "" {
			t.Errorf("%s is listed with its notes", one.GetProvider())
		}
	}
	if !names["people"].GetConfigured() || names["google"] == nil || names["google"].GetConfigured() {
		t.Errorf("people configured: %v; google: %v", names["people"].GetConfigured(), names["google"] != nil)
	}
	got, err := p.GetProvider(brief(t), &tokenbrokerv1.GetProviderRequest{Provider: "google"})
	if err != nil || got.GetProvider().GetNotes() == "" || len(got.GetProvider().GetScopes()) == 0 || got.GetProvider().GetLoopbackRedirect() == "" || got.GetProvider().GetLinkRedirect() != "" {
		t.Errorf("google: %v", err)
	}
	_, err = p.GetProvider(brief(t), &tokenbrokerv1.GetProviderRequest{Provider: "none"})
	wantFault(t, err, codes.InvalidArgument, "UNKNOWN_PROVIDER")
	_, err = tokenbrokerv1.NewProviderServiceClient(b.Worker()).ListProviders(brief(t), &tokenbrokerv1.ListProvidersRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}
