package server_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/attack/canary"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// The secrets that go in.
const (
	canaryRefresh = "canary-refresh-token-in"
	canaryImport  = "canary-refresh-token-imported"
	canarySecret  = "canary-client-secret"
	canaryAdded   = "canary-client-secret-added"
	canaryBody    = "canary-of-a-provider's-reply"
	canaryOut     = "canary-refresh-token-out"
	canaryAccess  = "canary-access-token"
	canaryBad     = "canary in a bad field\n"
	canaryPolicy  = "canary-in-a-policy-file"
	canaryCert    = "canary-in-a-key-file"
)

// reloads has the broker meet files with secrets where none belong: somebody saved the wrong one.
func reloads(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	for name, text := range map[string]string{"policy.yaml": "version: 1\nrules: [\"" + canaryPolicy + "\"]\n", "server.key": "-----BEGIN PRIVATE KEY-----\n" + canaryCert + "\n"} {
		file := filepath.Join(b.Dir, name)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.Daemon.Reload(t.Context())
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		b.Daemon.Reload(t.Context())
	}
}

// dumps is what debuggers of a Go process are shown.
func dumps(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, p := range pprof.Profiles() {
		for _, debug := range []int{0, 1, 2} {
			if err := p.WriteTo(&text, debug); err != nil {
				t.Fatal(err)
			}
		}
	}
	return text.String()
}

func TestP25NoSecretEverShows(t *testing.T) {
	log := &syncBuffer{}
	issuers := []sandbox.Issuer{{Name: "fast", Rotation: sandbox.RotateNone, Downscope: true, Clients: []sandbox.Client{{ID: "job", Secrets: []string{canarySecret, brokertest.Secret}}}},
		{Name: "rotating", Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}}}
	b := brokertest.Start(t, brokertest.Config{Log: log, Ops: true, Issuers: issuers})
	told := &canary.Told{}
	scenario(t, b, told)
	var tokens []string
	w := watch(t, b.Worker(), sel("example/drive"), sel("example/api"))
	tokens = append(tokens, w.ready(0).GetToken().GetAccessToken(), w.ready(0).GetToken().GetAccessToken())
	reloads(t, b)
	metrics, dumps := metricsText(t, b), dumps(t)
	b.Stop()

	secrets := slices.Concat(tokens, []string{canaryRefresh, canaryImport, canarySecret, canaryAdded, canaryBody, canaryOut, canaryAccess, strings.TrimSpace(canaryBad),
		sandbox.AccessPrefix, sandbox.RefreshPrefix, brokertest.Secret})
	secrets = append(secrets, canaryPolicy, canaryCert)
	places := map[string]string{"the log": log.String(), "the audit file": read(t, b, "audit.jsonl"), "what clients were told": told.Text(),
		"/metrics": metrics, "dumps of the process": dumps, "the database file": read(t, b, "tokenbroker.db")}
	for place, text := range places {
		if len(text) < 500 {
			t.Errorf("%s holds only %d bytes, the search proves nothing", place, len(text))
		}
		for _, s := range secrets {
			if form, i, found := canary.Find(text, s); found {
				t.Errorf("%s holds the secret %q as %q: …%q…", place, s, form, text[max(0, i-80):min(len(text), i+60)])
			}
		}
	}
}

func read(t *testing.T, b *brokertest.Broker, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// scenario brings in every canary, by every way in, and has things go wrong.
func scenario(t *testing.T, b *brokertest.Broker, told *canary.Told) {
	t.Helper()
	op, ctx := b.Operator(), brief(t)
	do := func(call attempt) { told.Err(call(ctx, op)) }
	c, err := clientsOf(op).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: "canary", ClientSecret: canarySecret,
		Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast", ClientId: "job", AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
	told.Err(err)
	told.Reply(c)
	a, err := clientsOf(op).AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "canary", ClientSecret: canaryAdded})
	told.Err(err)
	told.Reply(a)
	_, err = clientsOf(op).AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "canary", ClientSecret: canaryAdded})
	told.Err(err)
	do(createClient("canary", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.ClientSecret = canarySecret }))
	do(createClient("big", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.ClientSecret = strings.Repeat(canarySecret, 2000) }))
	do(create("example/bad", func(r *tokenbrokerv1.CreateCredentialRequest) { r.RefreshToken = canaryRefresh }))
	do(create("Bad Name", func(r *tokenbrokerv1.CreateCredentialRequest) { r.RefreshToken = canaryRefresh }))
	do(create("example/bad", func(r *tokenbrokerv1.CreateCredentialRequest) {
		r.Spec.Audience, r.Spec.Scopes = canaryBad, []string{canaryBad}
	}))
	do(get(&tokenbrokerv1.GetTokenRequest{Credential: canaryBad}))
	do(get(&tokenbrokerv1.GetTokenRequest{Credential: "example/api", Subject: canaryBad}))

	// A provider that echoes secrets in errors, and one whose reply can't be read.
	echo := fmt.Sprintf(`{"error":"invalid_request","error_description":%q,"refresh_token":%q}`, canaryBody, canaryOut)
	for _, f := range []sandbox.Fault{
		{Status: 400, Body: echo},
		{Status: 400, Body: fmt.Sprintf(`{"error":%q}`, canaryBody)},
		{Status: 503, Body: canaryBody},
		{Body: canaryBody},
		{Body: fmt.Sprintf(`{"access_token":%q,"expires_in":3600}`, canaryAccess)},
		{Body: fmt.Sprintf(`{"access_token":%q,"token_type":"%s","expires_in":3600}`, canaryAccess, canaryBody)},
		{Redirect: "https://evil.example/?" + canaryBody, Status: 307},
	} {
		tryFault(t, b, told, f)
	}
	imported, err := credentialsOf(op).ImportRefreshToken(ctx, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/f0", RefreshToken: canaryImport})
	told.Err(err)
	told.Reply(imported)
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	b.AddClientCredentials("example/api", "files.read")
	do(get(&tokenbrokerv1.GetTokenRequest{Credential: "example/drive", Scopes: []string{"files.write"}}))
	do(report(&tokenbrokerv1.ReportRejectedRequest{Credential: "example/drive", Generation: 1, HttpStatus: 401, ErrorCode: strings.TrimSpace(canaryBad)}))
	l, err := credentialsOf(op).ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{})
	told.Err(err)
	told.Reply(l)
	o, err := clientsOf(op).ListOAuthClients(ctx, &tokenbrokerv1.ListOAuthClientsRequest{})
	told.Err(err)
	told.Reply(o)
}

// tryFault has one more credential meet a fault at its provider.
func tryFault(t *testing.T, b *brokertest.Broker, told *canary.Told, f sandbox.Fault) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	name := fmt.Sprintf("example/f%d", b.Sandbox.Count(sandbox.Filter{}))
	b.Sandbox.Fail("fast", f)
	r, err := credentialsOf(b.Operator()).CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: name, RefreshToken: canaryRefresh,
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", OauthClient: "canary", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, Scopes: []string{"files.read"}}})
	told.Err(err)
	told.Reply(r)
	_, err = tokensOf(b.Worker()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: name})
	told.Err(err)
	told.Err(subscribe(sel(name))(ctx, b.Worker()))
	got, err := credentialsOf(b.Operator()).GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: name})
	told.Err(err)
	told.Reply(got)
	b.Sandbox.Clear("fast")
}
