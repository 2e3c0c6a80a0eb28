package fleet_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	domain = "spiffe://tokenbroker.local/"
	secret = "the-secret-of-the-oauth-client-4711"
)

const policyText = `version: 1
rules:
  - name: operators
    identities: ["` + domain + `operator/*"]
    actions: ["credential.*", "oauth_client.*", "token.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
  - name: workers
    identities: ["` + domain + `worker/**"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["**"]
`

// credentialNames are the credentials that the fleet uses.
func credentialNames() []string {
	return []string{"example/one", "example/two", "example/three", "example/four"}
}

// site is a broker, an agent and a provider, over a folder of their own.
type site struct {
	t       testing.TB
	plan    plan
	dir     string
	addr    string // of the broker, the same over restarts
	up      *sandbox.Server
	api     *resource
	ledger  *ledger
	broker  *process
	started int
	ca      *mtls.CA
}

// process is a program that runs, and writes into a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// run starts a program until the test ends.
func (s *site) run(name string, cmd *exec.Cmd) *process {
	s.t.Helper()
	p := &process{cmd: cmd, log: s.path("logs", name), done: make(chan struct{})}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(s.t, err)
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	must(s.t, cmd.Start())
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

// end ends it in order, and waits; nil has ended.
func (p *process) end() {
	if p != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.done
	}
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await waits for a text in what a process wrote.
func (p *process) await(t testing.TB, text string) {
	t.Helper()
	eventually(t, "the words: "+text, func() bool {
		b, err := os.ReadFile(p.log)
		if err == nil && strings.Contains(string(b), text) {
			return true
		}
		if p.over() {
			t.Fatalf("it ended before it said %q: %s", text, b)
		}
		return false
	})
}

// newSite starts everything but the workers.
func newSite(t testing.TB, p plan, l *ledger, api *resource) *site {
	t.Helper()
	s := &site{t: t, plan: p, ledger: l, api: api, dir: filepath.Join(shortDir(t), "tb")}
	if out, err := exec.Command(filepath.Join(bin, "tokenbrokerd"), "init", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	ca, err := mtls.LoadCA(s.read("ca.pem"), s.read("ca.key"))
	must(t, err)
	s.ca = ca
	for _, d := range []string{"logs", "histories", "sinks", "run", "tmp"} {
		must(t, os.Mkdir(s.path(d), 0o700))
	}
	s.write("api.pem", string(api.pem))
	s.write("policy.yaml", policyText)
	s.write("tokenbroker.yaml", fmt.Sprintf(`tls: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem}
store: {file: tokenbroker.db}
kek_file: kek.key
policy_file: policy.yaml
audit: {file: audit.jsonl, checkpoint_file: checkpoints.jsonl, checkpoint_key_file: checkpoint.key}
drain_timeout: 5s
limits:
  calls_per_second: 100000
providers:
  steady: {token_endpoint: %s/steady/token, ca_file: upstream.pem, allow_private: true, rate: 10000, burst: 10000, floor: %v}
`, s.provider(), floor))
	s.addr = freeAddr(t)
	s.start()
	s.furnish()
	return s
}

// shortDir is a folder whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet-") //nolint:usetesting // its name has the test's, and a socket's may have 107 bytes
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *site) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	must(s.t, err)
	return b
}

func (s *site) write(name, text string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), []byte(text), 0o600))
}

// provider serves the sandbox, beside the ledger, and returns its address.
func (s *site) provider() string {
	box, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{{Name: "steady", Rotation: sandbox.RotateNone, AccessLife: s.plan.life,
		Clients: []sandbox.Client{{ID: "job", Secrets: []string{secret}}}}}})
	must(s.t, err)
	srv := httptest.NewUnstartedServer(s.ledger.watch(box))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	s.t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	s.write("upstream.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	s.up = box
	return srv.URL
}

// start starts the broker.
func (s *site) start() {
	s.t.Helper()
	s.started++
	s.broker = s.run(fmt.Sprintf("broker-%d", s.started), exec.Command(filepath.Join(bin, "tokenbrokerd"), "serve", "--config",
		s.path("tokenbroker.yaml"), "--listen", s.addr, "--ops-listen", "127.0.0.1:0"))
	s.broker.await(s.t, `"msg":"serving"`)
	s.ledger.up()
}

// ops is the address of the broker's metrics.
func (s *site) ops() string {
	s.t.Helper()
	b, err := os.ReadFile(s.broker.log)
	must(s.t, err)
	for line := range strings.Lines(string(b)) {
		var m struct{ Msg, Ops string }
		if json.Unmarshal([]byte(line), &m) == nil && m.Msg == "serving" {
			return m.Ops
		}
	}
	s.t.Fatal("the broker does not say where its metrics are")
	return ""
}

// files makes a certificate for a path of the trust domain.
func (s *site) files(path string) mtls.Files {
	s.t.Helper()
	cert, key, err := s.ca.Issue(mtls.Template{SPIFFEID: domain + path, Client: true, NotAfter: time.Now().Add(time.Hour)})
	must(s.t, err)
	name := strings.ReplaceAll(path, "/", "-")
	s.write(name+".pem", string(cert))
	s.write(name+".key", string(key))
	return mtls.Files{CA: s.path("ca.pem"), Cert: s.path(name + ".pem"), Key: s.path(name + ".key")}
}

// client is a client of the broker, as a path of the trust domain.
func (s *site) client(path string) *client.Client {
	s.t.Helper()
	return s.open(client.Config{Addr: s.addr, Files: s.files(path)})
}

func (s *site) open(cfg client.Config) *client.Client {
	s.t.Helper()
	c, err := client.New(cfg)
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// agentConfig is for a client of the agent.
func agentConfig(s *site) client.Config { return client.Config{Addr: "unix://" + s.socket()} }

func (s *site) socket() string { return s.path("run", "agent.sock") }

// agent starts an agent.
func (s *site) agent() *process {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "tokenctl"), "agent", "--socket", s.socket(), "--audit", s.path("agent.jsonl"))
	cmd.Env = s.environ(s.files("worker/agent"))
	p := s.run("agent", cmd)
	p.await(s.t, "READY")
	return p
}

// environ is the environment of somebody who speaks to the broker.
func (s *site) environ(f mtls.Files) []string {
	return append(s.bare(), "TOKENBROKER_ADDR="+s.addr, "TOKENBROKER_CA="+f.CA, "TOKENBROKER_CERT="+f.Cert, "TOKENBROKER_KEY="+f.Key)
}

// bare is an environment without a broker.
func (s *site) bare() []string {
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + s.path("tmp"), "TMPDIR=" + s.path("tmp"), "XDG_RUNTIME_DIR=" + s.path("run")}
}

// furnish adds the credentials, each with a scope by which the ledger knows it.
func (s *site) furnish() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	c := s.client("operator/admin")
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(c.Conn()).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: "steady", ClientSecret: secret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "steady", ClientId: "job",
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
	must(s.t, err)
	for _, name := range credentialNames() {
		_, err := tokenbrokerv1.NewCredentialServiceClient(c.Conn()).CreateCredential(ctx, &tokenbrokerv1.CreateCredentialRequest{Credential: name,
			Spec: &tokenbrokerv1.CredentialSpec{Provider: "steady", OauthClient: "steady", Scopes: []string{scopeOf(name)},
				GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS}})
		must(s.t, err)
		// Not by the client's Token, which would keep a stream open.
		_, err = tokenbrokerv1.NewTokenServiceClient(c.Conn()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: name})
		must(s.t, err)
	}
}

func scopeOf(credential string) string { return strings.TrimPrefix(credential, "example/") + ".read" }
