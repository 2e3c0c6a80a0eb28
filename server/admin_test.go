package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

func credential(t *testing.T, b *brokertest.Broker, name string) *tokenbrokerv1.Credential {
	t.Helper()
	r, err := credentialsOf(b.Operator()).GetCredential(brief(t), &tokenbrokerv1.GetCredentialRequest{Credential: name})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetCredential()
}

func TestCreateGetUpdateDelete(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/other", "files.read")
	creds := credentialsOf(b.Operator())
	spec := &tokenbrokerv1.CredentialSpec{Provider: "graceful", OauthClient: "graceful", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN,
		Scopes: []string{"files.read"}, Labels: map[string]string{"team": "ops"}, Owner: "ops@example.org"}
	if err := createClient("graceful", func(r *tokenbrokerv1.CreateOAuthClientRequest) {
		r.Spec.Provider, r.ClientSecret = "graceful", brokertest.Secret
	})(brief(t), b.Operator()); err != nil {
		t.Fatal(err)
	}
	dies := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	req := &tokenbrokerv1.CreateCredentialRequest{Credential: "example/drive", Spec: spec, ValidateOnly: true,
		RefreshToken: b.Sandbox.SeedRefreshToken("graceful", "job", "files.read"), RefreshTokenExpireTime: timestamppb.New(dies)}

	dry, err := creds.CreateCredential(brief(t), req)
	if err != nil || dry.GetCredential().GetUid() != "" || dry.GetCredential().GetSpec().GetOwner() != spec.GetOwner() {
		t.Errorf("validate_only: got %v, %v; want the credential as it would be", dry, err)
	}
	_, err = creds.GetCredential(brief(t), &tokenbrokerv1.GetCredentialRequest{Credential: "example/drive"})
	wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")

	req.ValidateOnly = false
	if _, err = creds.CreateCredential(brief(t), req); err != nil {
		t.Fatal(err)
	}
	_, err = creds.CreateCredential(brief(t), req)
	wantFault(t, err, codes.AlreadyExists, "ALREADY_EXISTS")
	b.Token("example/drive")
	c := credential(t, b, "example/drive")
	st := c.GetStatus()
	if c.GetUid() == "" || c.GetEtag() == "" || c.GetCreateTime() == nil || c.GetSpec().GetLabels()["team"] != "ops" || c.GetSpec().GetGrantType() != spec.GetGrantType() {
		t.Errorf("got %v, want what was created", c)
	}
	if !st.GetHasRefreshToken() || st.GetSerial() != 2 || st.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY ||
		st.GetRecoveryAction() != tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_NONE || st.GetGeneration() == 0 || st.GetExpireTime() == nil || st.GetVariantCount() != 1 {
		t.Errorf("got status %v, want READY with the second refresh token", st)
	}

	up, err := creds.UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: "example/drive", Etag: c.GetEtag(),
		Spec: &tokenbrokerv1.CredentialSpec{Owner: "new", Labels: map[string]string{"a": "b"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"owner"}}})
	if err != nil || up.GetCredential().GetSpec().GetOwner() != "new" || up.GetCredential().GetSpec().GetLabels()["team"] != "ops" || up.GetCredential().GetEtag() == c.GetEtag() {
		t.Errorf("got %v, %v; want only the owner changed, and another etag", up, err)
	}
	_, err = creds.UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: "example/drive", Etag: c.GetEtag(), Spec: &tokenbrokerv1.CredentialSpec{Owner: "x"}})
	wantFault(t, err, codes.Aborted, "ETAG_MISMATCH")
	_, err = creds.DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/drive", Etag: c.GetEtag()})
	wantFault(t, err, codes.Aborted, "ETAG_MISMATCH")
	all, err := creds.UpdateCredential(brief(t), &tokenbrokerv1.UpdateCredentialRequest{Credential: "example/drive", Etag: up.GetCredential().GetEtag(),
		Spec: &tokenbrokerv1.CredentialSpec{OauthClient: "graceful", Scopes: []string{"files.read"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}}})
	if err != nil || all.GetCredential().GetSpec().GetOwner() != "" || len(all.GetCredential().GetSpec().GetLabels()) != 0 {
		t.Errorf("got %v, %v; want all fields replaced", all, err)
	}
	if _, err = creds.DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/drive", Etag: all.GetCredential().GetEtag()}); err != nil {
		t.Errorf("delete: %v", err)
	}
	_, err = tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
	wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
}

func TestListsShowPagesOfWhatTheCallerMayList(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `  - name: listers
    identities: ["spiffe://brokertest.local/lister/*"]
    actions: ["credential.list", "oauth_client.list"]
    credentials: ["mine/**"]
    oauth_clients: ["none-*"]
`})
	var want []string
	for i := range 5 {
		b.AddClientCredentials(fmt.Sprintf("mine/c%d", i), "files.read")
		b.AddClientCredentials(fmt.Sprintf("example/c%d", i), "files.read")
		want = append(want, fmt.Sprintf("mine/c%d", i))
	}
	conn := b.Conn(domain + "/lister/1")
	var got []string
	pages := 0
	for token := ""; pages == 0 || token != ""; pages++ {
		r, err := credentialsOf(conn).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.GetCredentials() {
			got = append(got, c.GetCredential())
		}
		if token = r.GetNextPageToken(); token != "" {
			_, err = clientsOf(conn).ListOAuthClients(brief(t), &tokenbrokerv1.ListOAuthClientsRequest{PageToken: token})
			wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("got %v in %d pages, want %v in 3", got, pages, want)
	}
	r, err := credentialsOf(b.Operator()).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{PageSize: 1 << 30})
	if err != nil || len(r.GetCredentials()) != 10 || r.GetNextPageToken() != "" {
		t.Errorf("got %d credentials, %v; want all 10", len(r.GetCredentials()), err)
	}
	c, err := clientsOf(conn).ListOAuthClients(brief(t), &tokenbrokerv1.ListOAuthClientsRequest{})
	if err != nil || len(c.GetOauthClients()) != 0 {
		t.Errorf("got %v, %v; want no OAuth client shown", c, err)
	}
	_, err = credentialsOf(b.Worker()).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestDisableAndEnable(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	w := watch(t, b.Worker(), sel("example/drive"))
	first := w.ready(0)
	if got := credential(t, b, "example/drive").GetStatus().GetSubscriberCount(); got != 1 {
		t.Errorf("got %d subscribers, want 1", got)
	}
	disable(t, b, "example/drive")
	u := w.update()
	if u.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED || u.GetToken() != nil || u.GetRecoveryAction() != tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_ASK_OPERATOR {
		t.Errorf("got %v, want DISABLED and no token", u)
	}
	_, err := tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
	f := wantFault(t, err, codes.FailedPrecondition, "CREDENTIAL_DISABLED")
	if f.Recovery != "ASK_OPERATOR" {
		t.Errorf("got %s, want ASK_OPERATOR", f.Recovery)
	}
	if st := credential(t, b, "example/drive").GetStatus(); !st.GetDisabled() || st.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED || !st.GetHasRefreshToken() {
		t.Errorf("got %v, want disabled with its grant kept", st)
	}
	if _, err := credentialsOf(b.Operator()).EnableCredential(brief(t), &tokenbrokerv1.EnableCredentialRequest{Credential: "example/drive"}); err != nil {
		t.Fatal(err)
	}
	if u := w.update(); u.GetToken().GetAccessToken() != first.GetToken().GetAccessToken() {
		t.Errorf("got state %v, want the token that is still good", u.GetState())
	}
	w.cancel()
	eventually(t, "no subscriber is counted", func() bool { return credential(t, b, "example/drive").GetStatus().GetSubscriberCount() == 0 })
}

func TestRefreshIsHeldToTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		time.Sleep(5 * time.Second)
		b.Token("example/drive")
		if got := time.Since(credential(t, b, "example/drive").GetStatus().GetLastUseTime().AsTime()); got < 0 || got > time.Second {
			t.Errorf("the last use was %v ago, want just now", got)
		}
		creds := credentialsOf(b.Operator())
		refresh := func() (*tokenbrokerv1.RefreshCredentialResponse, error) {
			return creds.RefreshCredential(brief(t), &tokenbrokerv1.RefreshCredentialRequest{Credential: "example/drive"})
		}
		_, err := refresh()
		f := wantFault(t, err, codes.Unavailable, "REFRESH_IN_BACKOFF")
		if f.Retry <= 0 || f.Retry > 30*time.Second {
			t.Errorf("got RetryInfo %v, want up to the floor", f.Retry)
		}
		time.Sleep(f.Retry)
		before := credential(t, b, "example/drive").GetStatus()
		r, err := refresh()
		if err != nil || r.GetCredential().GetStatus().GetGeneration() <= before.GetGeneration() || r.GetCredential().GetStatus().GetSerial() != before.GetSerial()+1 {
			t.Errorf("got %v, %v after the floor, want a new generation and serial", r, err)
		}
		if n := b.Sandbox.Count(sandbox.Filter{}); n != 2 {
			t.Errorf("got %d exchanges, want 2", n)
		}
	})
}

func TestImportEndsReauthorize(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	dead := b.Sandbox.SeedRefreshToken("rotating", "job", "files.read")
	b.Sandbox.RevokeFamily(dead) // before the broker tries it
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/drive", RefreshToken: dead, Spec: &tokenbrokerv1.CredentialSpec{
		Provider: "rotating", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, Scopes: []string{"files.read"}}})
	w := watch(t, b.Worker(), sel("example/drive"))
	w.until(func(e *tokenbrokerv1.SubscribeResponse) bool {
		return e.GetUpdate().GetState() == tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE
	})
	_, err := tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
	wantFault(t, err, codes.FailedPrecondition, "REAUTHORIZATION_REQUIRED")
	creds := credentialsOf(b.Operator())
	r, err := creds.ImportRefreshToken(brief(t), &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/drive",
		RefreshToken: b.Sandbox.SeedRefreshToken("rotating", "job", "files.read")})
	if err != nil || r.GetCredential().GetStatus().GetSerial() < 2 {
		t.Errorf("got %v, %v; want a higher serial", r, err)
	}
	w.ready(0)
	b.AddClientCredentials("example/api", "files.read")
	_, err = creds.ImportRefreshToken(brief(t), &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/api", RefreshToken: "r"})
	wantFault(t, err, codes.FailedPrecondition, "GRANT_NOT_SUPPORTED")
	_, err = creds.ImportRefreshToken(brief(t), &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/drive"})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
}

func TestAClientSecretIsRotatedWithoutAGap(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	clients := clientsOf(b.Operator())
	r, err := clients.AddClientSecret(brief(t), &tokenbrokerv1.AddClientSecretRequest{OauthClient: "fast", ClientSecret: "new one"})
	if err != nil || len(r.GetOauthClient().GetSecrets()) != 2 {
		t.Fatalf("got %v, %v; want two secrets", r, err)
	}
	old, young := r.GetOauthClient().GetSecrets()[0], r.GetOauthClient().GetSecrets()[1]
	if old.GetFingerprint() == young.GetFingerprint() || old.GetSecretId() == young.GetSecretId() || young.GetAddTime() == nil {
		t.Errorf("got %v and %v, want them told apart", old, young)
	}
	_, err = clients.AddClientSecret(brief(t), &tokenbrokerv1.AddClientSecretRequest{OauthClient: "fast", ClientSecret: "new one"})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
	b.Sandbox.RotateSecret("fast", "job", "new one")
	b.AddClientCredentials("example/second", "files.read")
	b.Token("example/second")
	retire := func(id string) error {
		_, err := clients.RetireClientSecret(brief(t), &tokenbrokerv1.RetireClientSecretRequest{OauthClient: "fast", SecretId: id})
		return err
	}
	wantFault(t, retire("none"), codes.NotFound, "OAUTH_CLIENT_NOT_FOUND")
	if err := retire(old.GetSecretId()); err != nil {
		t.Error(err)
	}
	wantFault(t, retire(young.GetSecretId()), codes.FailedPrecondition, "IN_USE")
	b.AddClientCredentials("example/third", "files.read")
	b.Token("example/third")

	c, err := clients.GetOAuthClient(brief(t), &tokenbrokerv1.GetOAuthClientRequest{OauthClient: "fast"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.DeleteOAuthClient(brief(t), &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: "fast"})
	wantFault(t, err, codes.FailedPrecondition, "IN_USE")
	_, err = clients.UpdateOAuthClient(brief(t), &tokenbrokerv1.UpdateOAuthClientRequest{OauthClient: "fast", Etag: "99", Spec: &tokenbrokerv1.OAuthClientSpec{ClientId: "x"}})
	wantFault(t, err, codes.Aborted, "ETAG_MISMATCH")
	up, err := clients.UpdateOAuthClient(brief(t), &tokenbrokerv1.UpdateOAuthClientRequest{OauthClient: "fast", Etag: c.GetOauthClient().GetEtag(),
		Spec: &tokenbrokerv1.OAuthClientSpec{Labels: map[string]string{"a": "b"}}})
	if err != nil || up.GetOauthClient().GetSpec().GetClientId() != "job" || up.GetOauthClient().GetSpec().GetLabels()["a"] != "b" || len(up.GetOauthClient().GetSecrets()) != 1 {
		t.Errorf("got %v, %v; want the labels alone changed", up, err)
	}
	if err := createClient("spare", nil)(brief(t), b.Operator()); err != nil {
		t.Fatal(err)
	}
	if _, err = clients.DeleteOAuthClient(brief(t), &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: "spare"}); err != nil {
		t.Error(err)
	}
	_, err = clients.DeleteOAuthClient(brief(t), &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: "spare"})
	wantFault(t, err, codes.NotFound, "OAUTH_CLIENT_NOT_FOUND")
}

func TestAStoreThatCanNotBeWrittenIsToldAndLogged(t *testing.T) {
	log := &syncBuffer{}
	b := brokertest.Start(t, brokertest.Config{StoreSize: 256 << 10, Log: log})
	b.AddClientCredentials("example/api", "files.read")
	tok := b.Token("example/api")
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = createClient(fmt.Sprintf("big-%d", i), func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.ClientSecret = strings.Repeat("s", 16<<10) })(brief(t), b.Operator())
	}
	f := wantFault(t, err, codes.Unavailable, "STORE_UNAVAILABLE")
	if f.Retry == 0 || strings.Contains(f.Text, b.Dir) || !strings.Contains(log.String(), "the store refuses") {
		t.Errorf("got %+v and log %q, want RetryInfo, no path, and the reason in the log", f, log)
	}
	if again := b.Token("example/api"); again.GetAccessToken() != tok.GetAccessToken() {
		t.Error("got another token, want the one that is still good")
	}
	if _, err := credentialsOf(b.Operator()).DeleteCredential(brief(t), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"}); err != nil {
		t.Errorf("delete a credential: %v", err)
	}
	clients := tokenbrokerv1.NewOAuthClientServiceClient(b.Operator())
	for i := 0; err != nil && i < 1000; i++ { // and whoever deletes gets out of it
		_, err = clients.DeleteOAuthClient(brief(t), &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: fmt.Sprintf("big-%d", i)})
		must(t, err)
		err = createClient("small", func(*tokenbrokerv1.CreateOAuthClientRequest) {})(brief(t), b.Operator())
	}
	must(t, err)
}
