package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestARevocationIsShownAndAskedForFirst(t *testing.T) {
	b := newStandIn(t)
	b.revoked = []*tokenbrokerv1.Revocation{{Credential: "example/drive", Outcome: tokenbrokerv1.Revocation_OUTCOME_PLANNED, SubscriberCount: 3,
		TokensLiveUntil: timestamppb.New(time.Now().Add(time.Hour))}}
	wants(t, b.run(t, "", nil, "credential", "revoke", "example/drive", "--dry-run"), 0, "example/drive", "would be revoked", "(in 59m")
	wants(t, b.run(t, "", nil, "credential", "revoke", "--client", "acme"), exitUsage, "would be revoked", "Revoke 1 credential? Confirm with --yes")
	if got := last[*tokenbrokerv1.RevokeCredentialsRequest](t, b); !got.GetValidateOnly() || got.GetOauthClient() != "acme" {
		t.Error("it was revoked, though nobody said yes")
	}
	for outcome, row := range map[tokenbrokerv1.Revocation_Outcome]struct {
		exit int
		says string
	}{
		tokenbrokerv1.Revocation_OUTCOME_REVOKED:       {exitOK, "revoked"},
		tokenbrokerv1.Revocation_OUTCOME_NOT_SUPPORTED: {exitOK, "offers no revocation"},
		tokenbrokerv1.Revocation_OUTCOME_PARKED:        {exitLater, "not revoked at the provider yet"},
		tokenbrokerv1.Revocation_OUTCOME_REFUSED:       {exitFix, "refused (unsupported_token_type)"},
	} {
		b.revoked[0].Outcome, b.revoked[0].Code = outcome, map[bool]string{true: "unsupported_token_type"}[outcome == tokenbrokerv1.Revocation_OUTCOME_REFUSED]
		wants(t, b.run(t, "", nil, "credential", "revoke", "--provider", "acme", "--yes"), row.exit, row.says)
		if got := last[*tokenbrokerv1.RevokeCredentialsRequest](t, b); got.GetValidateOnly() || got.GetProvider() != "acme" {
			t.Error("it was not revoked")
		}
	}
	b.revoked = nil
	wants(t, b.run(t, "", nil, "credential", "revoke", "--provider", "acme"), 0, "no credentials that you may revoke")
	for _, args := range [][]string{{}, {"a", "--client", "b"}, {"--client", "b", "--provider", "c"}} {
		wants(t, b.run(t, "", nil, append([]string{"credential", "revoke"}, args...)...), exitUsage, "name one credential")
	}
}

func TestAVerdictSaysWhoHasToAct(t *testing.T) {
	b := newStandIn(t)
	b.check = &tokenbrokerv1.CheckCredentialResponse{Credential: "example/drive", Active: true, Method: tokenbrokerv1.CheckCredentialResponse_METHOD_INTROSPECTION, Generation: 17,
		Scopes: []string{"files.read"}, MissingScopes: []string{"files.write"}, Account: "reports@corp.example", Audience: []string{"https://api.example/"},
		ExpireTime: timestamppb.New(time.Now().Add(time.Hour)), ClockSkew: durationpb.New(-90 * time.Second)}
	wants(t, b.run(t, "", nil, "credential", "check", "example/drive", "--scope", "files.read"), 0, "accepted", "RFC 7662", "17", "files.write", "reports@corp.example",
		"https://api.example/", "1m30s behind the provider's")
	for code, exit := range map[string]int{"wrong_audience": exitFix, "bad_signature": exitFix, "http_401": exitFix, "http_403": exitFix, "http_503": exitLater, "timeout": exitLater,
		"inactive": exitReauthorize, "": exitFix} {
		b.check.Active, b.check.Code = false, code
		wants(t, b.run(t, "", nil, "credential", "check", "example/drive"), exit, "refused ("+or(code, "inactive")+")", "a resource server would refuse its token")
	}
	b.fails["CheckCredentialRequest"] = refuse(codes.FailedPrecondition, "REAUTHORIZATION_REQUIRED", "the grant is dead")
	wants(t, b.run(t, "", nil, "credential", "check", "example/drive"), exitReauthorize)
}

func TestAScopeThatIsMissingIsAskedForAsTheGrantWants(t *testing.T) {
	b := newStandIn(t)
	for grant, command := range map[string]string{
		"authorization_code": "tokenctl connect example/drive --reauthorize\n",
		"device_code":        "tokenctl connect example/drive --device --reauthorize\n",
		"refresh_token":      "tokenctl credential describe example/drive\n",
	} {
		b.fails["CheckCredentialRequest"] = refuseGrant(codes.FailedPrecondition, "SCOPE_NOT_GRANTED", "the provider did not grant a scope", grant)
		wants(t, b.run(t, "", nil, "credential", "check", "example/drive"), exitReauthorize, "  do      "+command)
	}
}

func TestAProviderIsShownForATerminal(t *testing.T) {
	b := newStandIn(t)
	wants(t, b.run(t, "", nil, "provider", "list"), 0, "acme", "configuration (generic)", "authorization_code device_code", "google", "built in")
	r := b.run(t, "", nil, "provider", "list", "--configured", "--no-headers")
	wants(t, r, 0, "acme")
	if got := len(r.out) - len("x"); got < 0 || r.out[0] != 'a' || count[*tokenbrokerv1.ListProvidersRequest](b) != 2 {
		t.Errorf("got %q, want those of the configuration", r.out)
	}
	wants(t, b.run(t, "", nil, "provider", "show", "acme"), 0, "Provider acme  Acme", "http://127.0.0.1:PORT/callback", "none: the broker has no consent listener",
		"files.read  read files", "Warning: test tokens end after 7 days", "  Register an app at **Settings**.\n\n  * tick `files.read`\\u001b[31m\n", "https://docs.acme.example/oauth")
	wants(t, b.run(t, "", nil, "provider", "show", "acme", "-o", "yaml"), 0, "tokenEndpoint: https://auth.acme.example/token")
}

func TestWhereNobodyConsentsThereIsNoRedirectURI(t *testing.T) {
	for name, got := range map[string]string{"connect": localReturn(&tokenbrokerv1.Provider{}), "connect --link": linkReturn(&tokenbrokerv1.Provider{})} {
		if got != "none: it has no authorization endpoint" {
			t.Errorf("%s: got %q, want that there is none", name, got)
		}
	}
}

func TestWhatACredentialLivesOnIsShown(t *testing.T) {
	b := newStandIn(t)
	now := time.Now()
	b.creds["example/drive"] = &tokenbrokerv1.Credential{Credential: "example/drive",
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "acme", OauthClient: "app", GrantType: grants["authorization_code"], Resources: []string{"https://api.example/"},
			Parameters: map[string]string{"account_id": "5"}},
		Status: &tokenbrokerv1.CredentialStatus{State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE, Code: "invalid_grant", Cause: "token_expired_or_revoked",
			Advice: "Consent again.", Account: "reports@corp.example", ConsentTime: timestamppb.New(now.Add(-time.Hour)), GrantedScopes: []string{"a", "c"}, MissingScopes: []string{"b"},
			RotationSeen: true, HasRefreshToken: true, ClockSkew: durationpb.New(7 * time.Second), RevocationPending: true}}
	wants(t, b.run(t, "", nil, "credential", "describe", "example/drive"), 0, "REAUTHORIZE (invalid_grant token_expired_or_revoked)", "Consent again.",
		"tokenctl connect example/drive --reauthorize", "7s ahead of the provider's", "reports@corp.example", "(1h0m ago)", "has not got through", "account_id=5", "https://api.example/")

	if r := b.run(t, "", nil, "credential", "describe", "example/drive"); strings.Contains(r.out, "Extra") {
		t.Errorf("where nobody asked for scopes, all are the provider's:\n%s", r.out)
	}
	b.creds["example/drive"].Spec.Scopes = []string{"a", "b"}
	wants(t, b.run(t, "", nil, "credential", "describe", "example/drive"), 0, "Extra      c\n")

	b.creds["example/drive"].Status = &tokenbrokerv1.CredentialStatus{State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_PENDING}
	b.creds["example/drive"].Spec.GrantType = grants["device_code"]
	wants(t, b.run(t, "", nil, "credential", "describe", "example/drive"), 0, "tokenctl connect example/drive --device\n", "nobody has")
	for grant, want := range map[string]string{"static": "import example/drive --static-token-stdin", "password": "--password-stdin", "token_exchange": "--subject-token-stdin",
		"refresh_token": "--refresh-token-stdin", "jwt_bearer": "tokenctl credential refresh example/drive"} {
		b.creds["example/drive"].Spec.GrantType = grants[grant]
		b.creds["example/drive"].Status = &tokenbrokerv1.CredentialStatus{State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE, Holds: "subject_token"}
		wants(t, b.run(t, "", nil, "credential", "describe", "example/drive"), 0, want, "subject token")
	}
}

func TestAKeyOfAClientIsShownAndDue(t *testing.T) {
	now := time.Now()
	end, rule := timestamppb.New(now.Add(240*time.Hour)), timestamppb.New(now.Add(48*time.Hour+time.Minute))
	b := newStandIn(t)
	b.clients["robot"] = &tokenbrokerv1.OAuthClient{OauthClient: "robot", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "google-service-account", ClientId: "robot@proj.iam.example",
		AuthMethod: authMethods["service_account"], AccountId: "104857600000000000001"}, Secrets: []*tokenbrokerv1.ClientSecret{
		{SecretId: "OLD", Kind: "key", KeyId: "k0"}, {SecretId: "NEW", Kind: "key", KeyId: "k1", Algorithm: "RS256", Fingerprint: "abcd", ExpireTime: end, RotateTime: rule}}}
	wants(t, b.run(t, "", nil, "client", "describe", "robot"), 0, "104857600000000000001", "key, key id k1, RS256, fingerprint abcd", "expires "+stamp(end.AsTime()), "replace by "+stamp(rule.AsTime()))
	wants(t, b.run(t, "", nil, "client", "list"), 0, "DUE", "in 2d0h")
	b.clients["robot"].Secrets[1].RotateTime = nil
	wants(t, b.run(t, "", nil, "client", "list"), 0, "in 9d23h")
}

func TestAKeyIsAddedWithItsTimes(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	key, chain := put(t, dir, "key.pem", "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n"), put(t, dir, "chain.pem", "chain\n")
	wants(t, b.run(t, "", nil, "client", "create", "acme", "--provider", "acme", "--client-id", "x", "--auth-method", "tls_client_auth", "--private-key-file", key,
		"--certificate-file", chain, "--key-id", "k1", "--expires", "2099-01-01T00:00:00Z", "--rotate-after", "90d"), 0, "tls_client_auth")
	got := last[*tokenbrokerv1.CreateOAuthClientRequest](t, b)
	if got.GetPrivateKey() == "" || got.GetClientSecret() != "" || got.GetCertificate() != "chain\n" || got.GetKeyId() != "k1" || got.GetSecretExpireTime().GetSeconds() != 4070908800 ||
		got.GetRotateAfter().AsDuration() != 90*24*time.Hour {
		t.Error("the key did not get there with all that belongs to it")
	}
	for line, says := range map[string]string{
		"--auth-method private_key_jwt":                         "the private key is missing: give --private-key-file",
		"--private-key-file " + key + " --secret-file " + key:   "give a secret or a private key, not both",
		"--private-key-file " + key + " --rotate-after hush":    "--rotate-after: give a duration such as 90d or 2160h",
		"--private-key-file " + key + " --rotate-after 0d":      "--rotate-after: give a duration",
		"--private-key-file " + key + " --rotate-after -1h":     "--rotate-after: give a duration",
		"--private-key-file " + key + " --expires hush":         "--expires: give a time such as",
		"--private-key-file " + dir + "/no":                     "--private-key-file: no such file",
		"--certificate-file " + dir + "/no --private-key-stdin": "--certificate-file: no such file",
	} {
		wants(t, b.run(t, "", nil, append([]string{"client", "create", "x", "--provider", "acme", "--client-id", "x"}, words(line)...)...), exitUsage, says)
	}
}
