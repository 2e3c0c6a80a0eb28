package dev_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

const ownPolicy = `version: 1
rules:
  - name: operators
    identities: ["spiffe://corp.example/ops/*"]
    actions: ["credential.*", "oauth_client.*", "reflection.use"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
  - name: jobs
    identities: ["spiffe://corp.example/ns/**/job", "spiffe://other.example/one", "dns:a.example.org"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["read"]
`

// site is an operator's files, of which dev may read the policy alone.
type site struct {
	dir string
	cfg daemon.Config
}

func newSite(t *testing.T, policy string) site {
	t.Helper()
	s := site{dir: t.TempDir()}
	no, grace, idle, floor := false, provider.Duration(time.Minute), provider.Duration(24*time.Hour), provider.Duration(time.Second)
	s.cfg = daemon.Config{
		Listen: "192.0.2.1:443", OpsListen: "192.0.2.1:80", StorePath: s.dir + "/tokenbroker.db", KEKFile: s.dir + "/kek.key",
		AuditFile: s.dir + "/audit.jsonl", PolicyFile: s.dir + "/policy.yaml",
		TLS: mtls.Files{Cert: s.dir + "/none.pem", Key: s.dir + "/none.key", CA: s.dir + "/none-ca.pem"},
		Providers: map[string]provider.Profile{
			"acme.eu": {TokenEndpoint: "https://auth.acme.example/oauth2/token?x=1", TokenPath: "authed_user", ExpiryUnit: "ms", IdleLife: &idle},
			"static":  {TokenEndpoint: "https://static.example/t", Rotates: &no, Floor: &floor, AuthMethods: []tokenbroker.AuthMethod{tokenbroker.AuthClientSecretPost}},
			"public":  {TokenEndpoint: "https://public.example/t", Grace: &grace, AuthMethods: []tokenbroker.AuthMethod{tokenbroker.AuthNone}},
		}}
	s.write(t, "policy.yaml", policy)
	return s
}

func (s site) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// as connects to dev with a certificate of its folder.
func as(t *testing.T, dir, file string) *client.Client {
	t.Helper()
	env, err := os.ReadFile(dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	addr := regexp.MustCompile(`TOKENBROKER_ADDR='(.*)'`).FindSubmatch(env)
	c, err := client.New(client.Config{Addr: string(addr[1]), Files: mtls.Files{CA: dir + "/ca.pem", Cert: dir + "/identities/" + file + ".pem",
		Key: dir + "/identities/" + file + ".key"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func secret(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s: mode %v, want 0600", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// create adds a credential with what dev laid ready.
func create(t *testing.T, c *client.Client, dir, provider string, method tokenbrokerv1.AuthMethod) {
	t.Helper()
	r := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: provider, Spec: &tokenbrokerv1.OAuthClientSpec{
		Provider: provider, ClientId: "sandbox-client", AuthMethod: method}}
	if method != tokenbrokerv1.AuthMethod_AUTH_METHOD_NONE {
		r.ClientSecret = secret(t, dir+"/sandbox/client-secret")
	}
	if _, err := tokenbrokerv1.NewOAuthClientServiceClient(c.Conn()).CreateOAuthClient(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	_, err := tokenbrokerv1.NewCredentialServiceClient(c.Conn()).CreateCredential(t.Context(), &tokenbrokerv1.CreateCredentialRequest{
		Credential: "example/" + provider, RefreshToken: secret(t, dir+"/sandbox/"+provider+".refresh-token"),
		Spec: &tokenbrokerv1.CredentialSpec{Provider: provider, OauthClient: provider, Scopes: []string{"read"},
			GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnOwnConfigRunsWithSandboxProviders(t *testing.T) {
	t.Parallel()
	s := newSite(t, ownPolicy)
	for _, name := range []string{"tokenbroker.db", "kek.key", "audit.jsonl"} {
		s.write(t, name, "not what it should be: whoever opened it would notice")
	}
	before := contents(t, s.dir)
	r := start(t, dev.Config{Own: &s.cfg, Dir: t.TempDir() + "/its"}, false)
	r.await(t, "\nready\n")
	for _, want := range []string{"spiffe://corp.example/ns/example/job", "spiffe://other.example/one", "spiffe://corp.example/ops/example  may create credentials",
		`D='.*'; . "\$D/env"`, "client create acme.eu --provider acme.eu", "credential create example/acme.eu --provider acme.eu", "--auth-method none\n"} {
		if !regexp.MustCompile(want).MatchString(r.String()) {
			t.Errorf("%q is missing in:\n%s", want, r)
		}
	}
	if strings.Contains(r.String(), "ATTENTION") {
		t.Errorf("somebody may create credentials:\n%s", r)
	}
	dir := regexp.MustCompile(`D='([^']+)'`).FindStringSubmatch(r.String())[1]
	operator := as(t, dir, "corp.example_ops_example")
	create(t, operator, dir, "acme.eu", tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC)
	create(t, operator, dir, "static", tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST)
	create(t, operator, dir, "public", tokenbrokerv1.AuthMethod_AUTH_METHOD_NONE)
	for _, name := range []string{"example/acme.eu", "example/static", "example/public"} {
		tok, err := as(t, dir, "corp.example_ns_example_job").Token(t.Context(), name)
		if err != nil || !strings.HasPrefix(tok.AccessToken.Reveal(), "sandbox_at_") {
			t.Errorf("%s: got no sandbox token, %v", name, err)
		}
		url := apiOf(t, dir) + "/" + strings.TrimPrefix(name, "example/")
		for path, want := range map[string]int{"": 200, "/2026/11": 200, "x": 404} {
			if status, _, body := callAPI(t, url+path, tok.AccessToken.Reveal()); status != want {
				t.Errorf("%s: got %d %s from the API, want %d", url+path, status, body, want)
			}
		}
		if status, _, _ := callAPI(t, url, "sandbox_at_dead"); status != 401 {
			t.Errorf("%s: got %d to a dead token, want 401", url, status)
		}
		if _, err := operator.Token(t.Context(), name); err == nil {
			t.Errorf("%s: the policy is not in force", name)
		}
	}
	r.noSecrets(t)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for name, text := range contents(t, s.dir) {
		if text != before[name] {
			t.Errorf("%s: got %q, want it as it was: %q", name, text, before[name])
		}
	}
}

func TestAnOwnConfigNeedsNoFilesButThePolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t, ownPolicy)
	r := start(t, dev.Config{Own: &s.cfg, Dir: t.TempDir() + "/its"}, false)
	r.await(t, "\nready\n")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if all := contents(t, s.dir); len(all) != 1 {
		t.Errorf("got %d files, want the policy alone", len(all))
	}
}

func TestFaultsStrikeAnOwnCredential(t *testing.T) {
	t.Parallel()
	s := newSite(t, ownPolicy)
	dir := t.TempDir() + "/its"
	r := start(t, dev.Config{Own: &s.cfg, Dir: dir}, true)
	r.await(t, "no credential yet")
	r.press(t, "rfk") // nothing to strike
	r.await(t, "no sample worker to kill")
	create(t, as(t, dir, "corp.example_ops_example"), dir, "static", tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST)
	r.await(t, `example/static +got a token`)
	r.await(t, `›1 example/static +READY`)
	r.press(t, "r")
	r.await(t, "you: revoked the grant")
	r.press(t, "n")
	r.await(t, "invalid_grant → REAUTHORIZE")
	r.await(t, "›1 example/static +REAUTHORIZE")
	r.press(t, "c")
	r.await(t, "you: consented anew")
	r.await(t, "example/static +(recovered|1 exchange served)")
	r.press(t, "n")
	r.await(t, "you: 50 callers at once")
	r.press(t, "q")
	if err := r.quit(); err != nil {
		t.Error(err)
	}
	r.noSecrets(t)
}

func TestWhatAnOwnConfigLacksIsSaid(t *testing.T) {
	t.Parallel()
	broken := newSite(t, "version: 1\nrules: nothing\n")
	broken.cfg.Providers = map[string]provider.Profile{"acme": {TokenEndpoint: "http://acme.example"}}
	none := newSite(t, ownPolicy)
	none.cfg.Providers = nil
	nobody := newSite(t, strings.Replace(strings.Split(ownPolicy, "  - name: jobs")[0], "spiffe://corp.example/ops/*", "dns:*.example.org", 1))
	for name, tc := range map[string]struct {
		cfg  daemon.Config
		want []string
	}{
		"a bad policy and a bad provider": {broken.cfg, []string{"rules must be a list", `provider "acme": token_endpoint: must be https`}},
		"no provider":                     {none.cfg, []string{"names no provider"}},
		"nobody with a SPIFFE ID":         {nobody.cfg, []string{"names no SPIFFE identity"}},
	} {
		err := dev.Run(t.Context(), dev.Config{Own: &tc.cfg, Out: io.Discard})
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", name, err, want)
			}
		}
	}
	s := newSite(t, strings.Replace(ownPolicy, `"oauth_client.*", `, "", 1))
	r := start(t, dev.Config{Own: &s.cfg}, false)
	r.await(t, "ATTENTION: no identity of the policy may create both")
	r.await(t, "\nready\n")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}
