package attack_test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"

	"github.com/tokenbroker/tokenbroker/attack/canary"
	"github.com/tokenbroker/tokenbroker/attack/wire"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// birds is a broker through which secrets go that are found nowhere else.
type birds struct {
	*world
	leak    *leak
	told    canary.Told
	secrets map[string]string // itself → what it is
}

// secret is a new one.
func (b *birds) secret(of string) string {
	text := "canary-" + strings.ReplaceAll(of, " ", "-") + "-" + rand.Text()
	b.secrets[text] = of
	return text
}

// key is a new private key in PEM.
func (b *birds) key(of string) string {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(b.t, err)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	b.secrets[strings.Split(text, "\n")[2]] = of
	return text
}

// TestP25TheCanaryRun brings secrets into the broker by every way in, has things go wrong on every way out, makes it print all its stacks and
// dump its memory if the system lets it, and then searches all that it wrote.
func TestP25TheCanaryRun(t *testing.T) {
	t.Parallel()
	l := newLeak(t)
	b := &birds{leak: l, secrets: map[string]string{}}
	b.world = newWorld(t, plan{others: l.entry(), dump: true})
	before := b.files()
	kek := strings.TrimSpace(b.read("kek.key"))
	raw, err := base64.StdEncoding.DecodeString(kek[strings.Index(kek, ":")+1:])
	must(t, err)
	b.secrets[secret], b.secrets[kek], b.secrets[string(raw)] = "client secret of the world", "key encryption key", "key encryption key, in bytes"
	b.clients()
	for way := range ways {
		b.through(way)
	}
	b.others()
	b.wires()
	b.reloads()
	var pages strings.Builder
	for _, path := range []string{"/metrics", "/readyz", "/livez", "/debug/pprof/goroutine?debug=2", "/debug/vars", "/config"} {
		_, text := b.ask(path)
		pages.WriteString(text)
	}
	b.wantNoCore(t)
	b.crash()
	places := map[string]string{"its output": b.proc.text(), "a page of the ops listener": pages.String(), "what clients were told": b.told.Text(),
		"what it says of a config with secrets in it": b.badConfig()}
	for name, text := range b.files() {
		if old, ok := before[name]; !ok || old != text {
			places[name] = text
		}
	}
	b.search(places)
}

// clients adds OAuth clients with each kind of secret.
func (b *birds) clients() {
	b.t.Helper()
	svc, ctx := tokenbrokerv1.NewOAuthClientServiceClient(b.operator), brief(b.t)
	for _, r := range []*tokenbrokerv1.CreateOAuthClientRequest{
		{OauthClient: "basic", ClientSecret: b.secret("client secret sent by Basic"), Spec: &tokenbrokerv1.OAuthClientSpec{AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}},
		{OauthClient: "post", ClientSecret: b.secret("client secret sent by POST"), Spec: &tokenbrokerv1.OAuthClientSpec{AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST}},
		{OauthClient: "signed", PrivateKey: b.key("private key"), Spec: &tokenbrokerv1.OAuthClientSpec{AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_PRIVATE_KEY_JWT}},
	} {
		r.Spec.Provider, r.Spec.ClientId = "leak", "job"
		got, err := svc.CreateOAuthClient(ctx, r)
		must(b.t, err)
		b.told.Reply(got)
		_, err = svc.CreateOAuthClient(ctx, r) // it is there already
		b.told.Err(err)
		r.OauthClient = "Bad Name"
		_, err = svc.CreateOAuthClient(ctx, r)
		b.told.Err(err)
	}
	added, err := svc.AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "basic", ClientSecret: b.secret("client secret added")})
	must(b.t, err)
	b.told.Reply(added)
	_, err = svc.AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "signed", PrivateKey: b.secret("private key that is none")})
	b.told.Err(err)
	list, err := svc.ListOAuthClients(ctx, &tokenbrokerv1.ListOAuthClientsRequest{})
	must(b.t, err)
	b.told.Reply(list)
}

// through has credentials meet one of the leak's ways, with each client.
func (b *birds) through(way int) {
	b.t.Helper()
	ctx := within(b.t, 10*time.Second) // enough of what is tried again and again
	for _, client := range []string{"basic", "post", "signed"} {
		name := fmt.Sprintf("example/%s-%d", client, way)
		made, err := b.credentials().CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: name,
			RefreshToken: b.secret(fmt.Sprintf("refresh token of %s way %d", client, way)), Spec: &tokenbrokerv1.CredentialSpec{Provider: "leak", OauthClient: client,
				GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, Scopes: []string{"reports.read"}}})
		b.told.Err(err)
		b.told.Reply(made)
		_, err = get(within(b.t, time.Second), b.conn(b.as("worker/bird")), name)
		b.told.Err(err)
		if s, err := subscribe(within(b.t, time.Second), b.operator, name); err == nil && way != good {
			updates, _ := snapshot(s)
			for _, u := range updates {
				u.Token = nil // which is for whoever subscribes
				b.told.Reply(u)
			}
		}
		_, err = b.credentials().RefreshCredential(within(b.t, time.Second), &tokenbrokerv1.RefreshCredentialRequest{Credential: name})
		b.told.Err(err)
		checked, err := b.credentials().CheckCredential(within(b.t, time.Second), &tokenbrokerv1.CheckCredentialRequest{Credential: name})
		b.told.Err(err)
		b.told.Reply(checked)
	}
	eventually(b.t, fmt.Sprintf("the provider was asked in way %d", way), func() bool {
		b.leak.mu.Lock()
		defer b.leak.mu.Unlock()
		return b.leak.asked[way] > 0
	})
}

// others uses what is left of the API.
func (b *birds) others() {
	b.t.Helper()
	ctx := brief(b.t)
	_, err := b.credentials().CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: "example/static", StaticToken: b.secret("static token"),
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "leak", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_STATIC}})
	must(b.t, err)
	_, err = get(ctx, b.operator, "example/static")
	must(b.t, err)
	_, err = b.credentials().ImportRefreshToken(ctx, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: "example/basic-0", RefreshToken: b.secret("refresh token imported")})
	must(b.t, err)
	for _, wrong := range []string{b.secret("secret for a name") + "\n", b.secret("secret for a subject")} {
		_, err = get(ctx, b.operator, wrong)
		b.told.Err(err)
		_, err = tokenbrokerv1.NewTokenServiceClient(b.operator).ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: "example/static", Generation: 1,
			HttpStatus: 401, ErrorCode: wrong + "\x1b"})
		b.told.Err(err)
	}
	list, err := b.credentials().ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{})
	must(b.t, err)
	b.told.Reply(list)
	for _, client := range []string{"basic", "post", "signed"} { // these have refresh tokens to revoke
		_, err = b.credentials().DeleteCredential(ctx, &tokenbrokerv1.DeleteCredentialRequest{Credential: fmt.Sprintf("example/%s-%d", client, good)})
		must(b.t, err)
	}
	eventually(b.t, "tokens are revoked", func() bool {
		b.leak.mu.Lock()
		defer b.leak.mu.Unlock()
		return b.leak.revoked > 0
	})
}

// wires sends secrets where no secret belongs: in headers, paths, and messages that are none.
func (b *birds) wires() {
	b.t.Helper()
	message := wire.Message(0, encode(b.t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}))
	for _, header := range []string{"authorization", "x-api-key", "cookie", "grpc-timeout", "grpc-encoding", "user-agent"} {
		c := b.dial("worker/bird", wire.Options{})
		must(b.t, c.Call(1, message, wire.Fields(getToken, hpack.HeaderField{Name: header, Value: "Bearer " + b.secret("header "+header)})...))
		ended(b.t, c, 1)
		_ = c.Close()
	}
	c := b.dial("worker/bird", wire.Options{})
	must(b.t, c.Call(1, wire.Message(0, []byte("\x0a\xff"+b.secret("message that is none"))), wire.Fields(getToken)...))
	must(b.t, c.Call(3, message, wire.Fields("/"+b.secret("path")+"/GetToken")...))
	ended(b.t, c, 1)
	ended(b.t, c, 3)
	_ = c.Close()
	ctx := metadata.AppendToOutgoingContext(brief(b.t), "x-token-bin", b.secret("header in binary"))
	_, err := get(ctx, b.operator, "example/none")
	b.told.Err(err)
}

// reloads has it meet files with secrets in the place of its own: somebody saved the wrong one.
func (b *birds) reloads() {
	b.t.Helper()
	policy, key := b.read("policy.yaml"), b.read("server.key")
	for _, text := range []string{"version: 1\nrules: [\"%s\"]\n", "%s\n", "version: 1\nmore: %s\n"} {
		b.write("policy.yaml", fmt.Sprintf(text, b.secret("policy file")))
		b.reloaded(0)
		b.write("policy.yaml", policy)
		b.reloaded(1)
	}
	for _, text := range []string{b.secret("key file"), "-----BEGIN PRIVATE KEY-----\n" + b.secret("key file in PEM") + "\n-----END PRIVATE KEY-----\n", b.key("other key")} {
		b.write("server.key", text)
		b.certificates(0)
		b.write("server.key", key)
		b.certificates(1)
	}
}

// crash has it print its stacks and ask the system for a core dump.
func (b *birds) crash() {
	b.t.Helper()
	busy := b.crowd("worker/busy", 2, 10, "example/one")
	b.victim() // asks for tokens until the end
	busy.reach(b.newest("example/one"))
	must(b.t, b.proc.cmd.Process.Signal(syscall.SIGQUIT))
	select {
	case <-b.proc.done:
	case <-time.After(patience):
		b.t.Fatal("it runs on")
	}
	if !strings.Contains(b.proc.text(), "goroutine ") {
		b.t.Errorf("got no stacks, so this shows nothing: %.300q", b.proc.text())
	}
	if state, ok := b.proc.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || state.CoreDump() {
		b.t.Errorf("got %v, want no core dump", b.proc.cmd.ProcessState)
	}
}

// badConfig is what the program says of configs in which secrets stand.
func (b *birds) badConfig() string {
	b.t.Helper()
	var said strings.Builder
	for i, line := range []string{"client_secret: %s\n", "kek_file: %s\nkek_file: again\n", "%s\n", "limits: {streams_per_connection: %s}\n", "listen: [%s]\n"} {
		name := fmt.Sprintf("bad-%d.yaml", i)
		b.write(name, fmt.Sprintf(line, b.secret("config "+name)))
		out, err := exec.Command(program, "serve", "--config", b.path(name)).CombinedOutput()
		if err == nil {
			b.t.Errorf("%q is taken for a config", line)
		}
		said.Write(out)
		must(b.t, os.Remove(b.path(name)))
	}
	return said.String()
}

// files are all that lie where the broker writes.
func (b *birds) files() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	must(b.t, filepath.WalkDir(filepath.Dir(b.dir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	}))
	return all
}

// search looks for every secret in every place.
func (b *birds) search(places map[string]string) {
	b.t.Helper()
	b.leak.mu.Lock()
	for value, what := range b.secrets {
		if (what == "client secret added" || what == "client secret sent by POST") && !b.leak.secrets[value] {
			b.t.Errorf("the provider was never sent the %s, so it could not give it away", what)
		}
	}
	for secret := range b.leak.secrets {
		b.secrets[secret] = cmp.Or(b.secrets[secret], "secret that the provider was sent or gave")
	}
	b.leak.mu.Unlock()
	for place, text := range places {
		if len(text) < 500 {
			b.t.Errorf("%s holds only %d bytes, the search proves nothing", place, len(text))
		}
		for value, what := range b.secrets {
			if len(value) < 16 {
				b.t.Fatalf("%s is too short to look for", what)
			}
			if form, at, found := canary.Find(text, value); found {
				b.t.Errorf("%s holds a %s, as %q: …%q…", place, what, form, text[max(0, at-80):min(len(text), at+60)])
			}
		}
	}
	b.t.Logf("looked for %d secrets in %d places: %q", len(b.secrets), len(places), slices.Sorted(maps.Keys(places)))
}
