package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// put writes a file into a folder and returns its path.
func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const accountFile = `{"type": "service_account", "client_email": "robot@proj.iam.example", "client_id": "104857600000000000001", "private_key_id": "k1",
 "private_key": "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n", "token_uri": "https://oauth2.googleapis.com/token"}`

const userFile = `{"type": "authorized_user", "client_id": "app.example", "client_secret": "hush-secret", "refresh_token": "hush-refresh"}`

func TestAServiceAccountIsImportedInOneStep(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	file := put(t, dir, "sa.json", accountFile)
	r := b.run(t, "", nil, "import", "example/robot", file, "--scope", "https://mail.example/", "--scope", "drive", "--subject", "reports@corp.example")
	wants(t, r, 0, "only copy", "shred -u", "Admin console > Security > Access and data control > API controls > Domain-wide delegation > Add new",
		"Client ID     104857600000000000001", "https://mail.example/,drive", "up to 24 h", "READY")
	client, cred := last[*tokenbrokerv1.CreateOAuthClientRequest](t, b), last[*tokenbrokerv1.CreateCredentialRequest](t, b)
	if client.GetOauthClient() != "example/robot" || client.GetSpec().GetClientId() != "robot@proj.iam.example" || client.GetPrivateKey() != accountFile ||
		client.GetSpec().GetAuthMethod() != authMethods["service_account"] || client.GetSpec().GetProvider() != "google-service-account" {
		t.Errorf("the OAuth client was made as %q of %q", client.GetOauthClient(), client.GetSpec().GetProvider())
	}
	if cred.GetSpec().GetGrantType() != grants["jwt_bearer"] || cred.GetSpec().GetSubject() != "reports@corp.example" || cred.GetSpec().GetOauthClient() != "example/robot" {
		t.Errorf("got the grant %v for %q", cred.GetSpec().GetGrantType(), cred.GetSpec().GetSubject())
	}

	wants(t, b.run(t, accountFile, nil, "import", "example/api", "-", "--client", "robot", "--audience", "https://api.example/"), 0)
	if got := last[*tokenbrokerv1.CreateCredentialRequest](t, b).GetSpec(); got.GetGrantType() != grants["self_signed_jwt"] || got.GetOauthClient() != "robot" {
		t.Errorf("got %v of %q", got.GetGrantType(), got.GetOauthClient())
	}
}

func TestAnAuthorizedUserIsImported(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	wants(t, b.run(t, "", nil, "import", "example/drive", put(t, dir, "adc.json", userFile), "--provider", "acme", "--scope", "drive"), 0, "The refresh token is in the broker")
	client, cred := last[*tokenbrokerv1.CreateOAuthClientRequest](t, b), last[*tokenbrokerv1.CreateCredentialRequest](t, b)
	if client.GetClientSecret() != "hush-secret" || client.GetSpec().GetClientId() != "app.example" || cred.GetRefreshToken() != "hush-refresh" ||
		cred.GetSpec().GetGrantType() != grants["refresh_token"] || cred.GetSpec().GetProvider() != "acme" {
		t.Error("the file was not brought as it is")
	}
}

func TestARefreshTokenIsImportedFromStandardInput(t *testing.T) {
	b := newStandIn(t)
	wants(t, b.run(t, "hush-rt\n", nil, "import", "example/drive", "--provider", "acme", "--client", "app", "--refresh-token-stdin"), 0, "READY")
	if got := last[*tokenbrokerv1.CreateCredentialRequest](t, b); got.GetRefreshToken() != "hush-rt" || got.GetSpec().GetGrantType() != grants["refresh_token"] {
		t.Error("the refresh token did not get there")
	}
	wants(t, b.run(t, "hush-key\n", nil, "import", "example/crm", "--provider", "acme", "--static-token-stdin", "--secret-expires", "2099-01-01T00:00:00Z"), 0)
	if got := last[*tokenbrokerv1.CreateCredentialRequest](t, b); got.GetStaticToken() != "hush-key" || got.GetSecretExpireTime().GetSeconds() != 4070908800 {
		t.Error("the static token did not get there")
	}
}

func TestNothingStaysHalfImported(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	file := put(t, dir, "sa.json", accountFile)
	b.fails["CreateCredentialRequest"] = refuse(codes.InvalidArgument, "FIELD_VIOLATION", "spec.scopes: none")
	wants(t, b.run(t, "", nil, "import", "example/robot", file), exitUsage, "spec.scopes: none")
	if got := last[*tokenbrokerv1.DeleteOAuthClientRequest](t, b).GetOauthClient(); got != "example/robot" {
		t.Errorf("got %q taken back", got)
	}
	delete(b.fails, "CreateCredentialRequest")
	delete(b.clients, "example/robot")

	wants(t, b.run(t, "", nil, "import", "example/robot", file, "--validate-only"), 0, "the OAuth client example/robot is all right")
	if len(b.clients)+len(b.creds) > 0 {
		t.Error("something was stored")
	}

	// What is there and has this key will do; what is there and has another one will not.
	there := &tokenbrokerv1.OAuthClient{OauthClient: "example/robot", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "google-service-account", ClientId: "robot@proj.iam.example"}}
	b.clients["example/robot"] = there
	wants(t, b.run(t, "", nil, "import", "example/robot", file), exitConflict, "without the key of this file", "tokenctl client secret add example/robot --private-key-file FILE")
	there.Secrets = []*tokenbrokerv1.ClientSecret{{SecretId: "1", Kind: "key", KeyId: "k1"}}
	wants(t, b.run(t, "", nil, "import", "example/robot", file), 0)
	there.Spec.ClientId = "another@proj.iam.example"
	wants(t, b.run(t, "", nil, "import", "example/robot2", file, "--client", "example/robot"), exitConflict, "is another one")
}

func TestAFileThatIsNoKeyFileIsRefusedUnquoted(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	for text, says := range map[string]string{
		"hush": "is no JSON of a key file", "-----BEGIN PRIVATE KEY-----\nhush": "is no JSON of a key file", `{"type": "hush"}`: "no \"type\" that can be imported",
		`{"type": 5, "x": "hush"}`: "is no JSON of a key file", `{"type": "authorized_user", "client_id": "hush", "client_secret": "hush"}`: `has no "refresh_token"`,
		`{"type": "service_account", "client_email": "a", "private_key": "hush"}`: `has no "private_key_id"`, strings.Repeat("hush", 5000): "more than 16384 bytes",
	} {
		wants(t, b.run(t, "", nil, "import", "example/x", put(t, dir, "f", text)), exitUsage, says)
	}
	for line, says := range map[string]string{
		"":                                  "name the credential, or give -f",
		"a":                                 "the file is missing",
		"a hush":                            "argument 2: no such file",
		"a " + dir:                          "argument 2: is a directory",
		"a f --refresh-token-stdin":         "give a file or --refresh-token-",
		"a --refresh-token-stdin --dry-run": "--dry-run goes with -f",
		"a -f x":                            "leave out the argument",
		"-f x --scope y":                    "leave out --scope",
		"a --static-token-file x --password-stdin": "a credential lives on one secret",
	} {
		wants(t, b.run(t, "", nil, append([]string{"import"}, strings.Fields(line)...)...), exitUsage, says)
	}
}

const many = `
oauthClients:
- oauthClient: acme-jobs
  spec: {provider: acme, clientId: jobs, authMethod: AUTH_METHOD_CLIENT_SECRET_BASIC}
  clientSecretFile: secret
- oauthClient: acme-old
  spec: {provider: acme, clientId: new-id, authMethod: AUTH_METHOD_CLIENT_SECRET_BASIC}
  clientSecret: hush-inline
credentials:
- credential: example/reports
  spec: {provider: acme, oauthClient: acme-jobs, grantType: GRANT_TYPE_CLIENT_CREDENTIALS, scopes: [b, a], owner: reports team}
- credential: example/drive
  spec: {provider: acme, oauthClient: acme-old, grantType: GRANT_TYPE_REFRESH_TOKEN}
  refresh_token_file: rt
- credential: example/taken
  spec: {provider: acme, oauthClient: acme-old, grantType: GRANT_TYPE_STATIC}
  staticToken: hush-static
`

// half is a stand-in where half of the file is there.
func half(t *testing.T) (b *standIn, file string) {
	b, dir := newStandIn(t), t.TempDir()
	put(t, dir, "secret", "hush-secret\r\n")
	put(t, dir, "rt", "hush-rt\n")
	b.clients["acme-old"] = &tokenbrokerv1.OAuthClient{OauthClient: "acme-old", Etag: "7", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "acme", ClientId: "old-id",
		AuthMethod: authMethods["client_secret_basic"]}}
	b.creds["example/reports"] = &tokenbrokerv1.Credential{Credential: "example/reports", Spec: &tokenbrokerv1.CredentialSpec{Provider: "acme", OauthClient: "acme-jobs",
		GrantType: grants["client_credentials"], Scopes: []string{"a", "b"}, Owner: "reports team"}}
	b.creds["example/taken"] = &tokenbrokerv1.Credential{Credential: "example/taken", Spec: &tokenbrokerv1.CredentialSpec{Provider: "globex", GrantType: grants["static"]}}
	return b, put(t, dir, "many.yaml", many)
}

func TestAnImportOfManyIsShownFirst(t *testing.T) {
	b, file := half(t)
	r := b.run(t, "", nil, "import", "-f", file, "--dry-run", "-o", "json")
	wants(t, r, exitConflict, "1/5 client acme-jobs: create (with client_secret)", "2/5 client acme-old: update (client_id; client_secret not sent again)",
		"3/5 credential example/reports: unchanged", "4/5 credential example/drive: create (with refresh_token)", "5/5 credential example/taken: conflict", "1 of 5 items did not go")
	var list struct {
		Items []struct{ Kind, Name, Action, Detail string }
	}
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Items) != 5 || list.Items[4].Action != "conflict" || !strings.Contains(list.Items[4].Detail, "another provider") {
		t.Errorf("got %v: %+v", err, list)
	}
	if count[*tokenbrokerv1.CreateOAuthClientRequest](b)+count[*tokenbrokerv1.CreateCredentialRequest](b)+count[*tokenbrokerv1.UpdateOAuthClientRequest](b) > 0 {
		t.Error("a dry run changed something")
	}
	wants(t, b.run(t, "", nil, "import", "-f", file, "--validate-only"), exitConflict, "all right, would be created", "would be updated")
	if len(b.creds) != 2 || len(b.clients) != 1 {
		t.Error("--validate-only stored something")
	}
}

func TestAnImportOfManyGoesOnWhereItStopped(t *testing.T) {
	b, file := half(t)
	b.fails["CreateCredentialRequest"] = refuse(codes.InvalidArgument, "FIELD_VIOLATION", "spec.scopes: none")
	r := b.run(t, "", nil, "import", "-f", file)
	wants(t, r, exitOther, "1/5 client acme-jobs: created", "2/5 client acme-old: updated", "4/5 credential example/drive: failed: credential example/drive: spec.scopes: none", "2 of 5 items did not go")
	if got := last[*tokenbrokerv1.CreateOAuthClientRequest](t, b); got.GetClientSecret() != "hush-secret" {
		t.Error("the secret of the file is not what was sent")
	}
	if got := last[*tokenbrokerv1.UpdateOAuthClientRequest](t, b); got.GetEtag() != "7" || !slices.Equal(got.GetUpdateMask().GetPaths(), []string{"client_id"}) {
		t.Errorf("got an update of %v at %q", got.GetUpdateMask().GetPaths(), got.GetEtag())
	}
	b.clients["acme-old"].Spec.ClientId = "new-id"
	delete(b.fails, "CreateCredentialRequest")
	delete(b.creds, "example/taken")
	wants(t, b.run(t, "", nil, "import", "-f", file), 0, "client acme-jobs: unchanged (client_secret not sent again)", "credential example/drive: created", "credential example/taken: created")
	if n := count[*tokenbrokerv1.CreateOAuthClientRequest](b); n != 1 {
		t.Errorf("an OAuth client was made %d times", n)
	}
	wants(t, b.run(t, "", nil, "import", "-f", file), 0, "credential example/drive: unchanged (refresh_token not sent again)")
	if n := count[*tokenbrokerv1.CreateCredentialRequest](b); n != 3 { // one refused, two made
		t.Errorf("%d credentials were sent", n)
	}
}

func TestAFileOfManyIsReadStrictly(t *testing.T) {
	b, dir := newStandIn(t), t.TempDir()
	put(t, dir, "empty", "\n")
	for text, says := range map[string]string{
		"credentials: hush":   "credentials: give a list",
		"credentials: [hush]": "credentials[0]: give an object",
		"hush: []":            "there is a key besides oauthClients and credentials",
		"{}":                  "has no oauthClients and no credentials",
		"credentials: [{credential: a}, {credential: a}]":                              "credential a is there twice",
		"credentials: [{spec: {}}]":                                                    "a credential has no name",
		"credentials: [{credential: a, refreshToken: [hush]}]":                         "credentials[0]: refreshToken: give one string",
		"credentials: [{credential: a, refreshTokenFile: [hush]}]":                     "credentials[0]: refreshTokenFile: give one name of a file",
		"credentials: [{credential: a, refreshTokenFile: hush}]":                       "credentials[0]: refreshTokenFile: the file can't be read",
		"credentials: [{credential: a, refreshTokenFile: empty}]":                      "credentials[0]: refreshTokenFile: the file is empty",
		"credentials: [{credential: a, refreshTokenFile: f, refreshToken: hush}]":      "credentials[0]: refreshToken: it is here and in a file",
		"credentials: [{credential: a, validateOnly: true}]":                           "validateOnly: it is a flag here",
		"credentials: [{credential: a, spec: {grantType: hush}}]":                      "credentials[0]: spec.grantType: give one of",
		"oauthClients: [{oauthClient: a, rotateAfter: hush}]":                          "oauthClients[0]: rotateAfter: give a duration such as 3600s",
		"oauthClients: [{oauthClient: a, clientSecretFile: f, client_secret_file: f}]": "give one name of a file",
		"credentials:\n- credential: a\n  credential: hush":                            "no valid JSON or YAML object at line",
	} {
		wants(t, b.run(t, "", nil, "import", "-f", put(t, dir, "f", text)), exitUsage, says)
	}
	wants(t, b.run(t, "credentials: [{credential: a, spec: {provider: p}}]", nil, "import", "-f", "-"), 0, "1/1 credential a: created")
}

func FuzzItems(f *testing.F) {
	f.Add([]byte(many))
	f.Add([]byte("credentials: [{credential: a, refreshTokenFile: /dev/null}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := parseItems("f", data)
		if err == nil && len(items) == 0 {
			t.Error("nothing was read, and that is no error")
		}
	})
}

func words(line string) []string { return strings.Fields(line) }
