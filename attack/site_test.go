package attack_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// domain is the trust domain of every site.
const domain = "spiffe://tokenbroker.local/"

const secret = "the-secret-of-the-oauth-client-4711"

// policyText lets every worker have what lies under example/, and operators everything.
const policyText = `version: 1
rules:
  - name: operators
    identities: ["` + domain + `operator/*"]
    actions: ["credential.*", "oauth_client.*", "token.*", "reflection.use"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
    subjects: ["**"]
    audiences: ["**"]
  - name: workers
    identities: ["` + domain + `worker/**"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["**"]
`

// site is a broker over a folder of its own, and the provider that it speaks to.
type site struct {
	t      testing.TB
	dir    string
	up     *sandbox.Server
	flags  []string
	dump   bool
	proc   *process
	ca     *mtls.CA
	roots  *x509.CertPool
	ops    string
	admin  string // the listener of operators, if there is one
	served sync.Mutex
	addr   string // of the newest process
}

// plan is what a test wants of its site. The zero value is a provider whose tokens live for an hour.
type plan struct {
	limits string        // lines of the config's limits, without indent
	more   string        // further lines of the config
	others string        // further entries of the config's providers, without indent
	life   time.Duration // of access tokens
	floor  time.Duration // between exchanges that callers cause; 0 = the broker's default
	flags  []string      // of "tokenbrokerd serve"
	dump   bool          // as if somebody wanted its memory in a file when it crashes
}

// newSite makes the folder and the provider. The broker is not started.
func newSite(t testing.TB, p plan) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "tb"), flags: p.flags, dump: p.dump, roots: x509.NewCertPool()}
	if out, err := exec.Command(program, "init", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	ca, err := mtls.LoadCA([]byte(s.read("ca.pem")), []byte(s.read("ca.key")))
	must(t, err)
	s.ca = ca
	s.roots.AppendCertsFromPEM(ca.CertPEM())
	limits := ""
	if p.limits != "" {
		limits = "limits:\n" + indent(p.limits)
	}
	s.write("tokenbroker.yaml", fmt.Sprintf(`tls: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem}
store: {file: tokenbroker.db}
kek_file: kek.key
policy_file: policy.yaml
audit: {file: audit.jsonl, checkpoint_file: checkpoints.jsonl, checkpoint_key_file: checkpoint.key}
drain_timeout: 5s
providers:
%s%s%s`, indent(s.provider(p)+p.others), limits, p.more))
	s.write("policy.yaml", policyText)
	return s
}

func indent(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		b.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// provider serves the sandbox and returns its entry in the config.
func (s *site) provider(p plan) string {
	box, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{{Name: "steady", Rotation: sandbox.RotateNone, AccessLife: p.life,
		Clients: []sandbox.Client{{ID: "job", Secrets: []string{secret}}}}}})
	must(s.t, err)
	srv := httptest.NewUnstartedServer(box)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	s.t.Cleanup(func() {
		box.Clear("steady")
		box.Release("steady")
		srv.CloseClientConnections()
		srv.Close()
	})
	s.write("upstream.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	s.up = box
	floor := ""
	if p.floor > 0 {
		floor = fmt.Sprintf(", floor: %v", p.floor)
	}
	return fmt.Sprintf("steady: {token_endpoint: %s/steady/token, ca_file: upstream.pem, allow_private: true, rate: 10000, burst: 10000%s}\n",
		srv.URL, floor)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	must(s.t, err)
	return string(b)
}

// write replaces a file by rename.
func (s *site) write(name, text string) {
	s.t.Helper()
	tmp := s.path(name + ".new")
	must(s.t, os.WriteFile(tmp, []byte(text), 0o600))
	must(s.t, os.Rename(tmp, s.path(name)))
}

func (s *site) command() *exec.Cmd {
	args := []string{"serve", "--config", s.path("tokenbroker.yaml"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}
	args = append(args, s.flags...)
	if !s.dump {
		return exec.Command(program, args...)
	}
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -c "$(ulimit -H -c)"; exec "$0" "$@"`, program}, args...)...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "TMPDIR="+s.dir)
	return cmd
}

// start starts the broker and waits until it serves.
func (s *site) start() {
	s.t.Helper()
	s.proc = run(s.t, s.command())
	line := s.proc.line(s.t, "serving")
	s.served.Lock()
	defer s.served.Unlock()
	s.addr, s.ops = line["grpc"].(string), line["ops"].(string)
	s.admin, _ = line["admin"].(string)
}

// refused starts a broker that must not come up, and returns what it said.
func (s *site) refused() string {
	s.t.Helper()
	p := run(s.t, s.command())
	eventually(s.t, "the end of a broker that must not start", func() bool { return p.over() || strings.Contains(p.text(), `"msg":"serving"`) })
	if !p.over() || p.cmd.ProcessState.ExitCode() != 1 {
		s.t.Errorf("the broker serves, or ended otherwise than with status 1: %s", p.text())
	}
	return p.text()
}

func (s *site) grpc() string {
	s.served.Lock()
	defer s.served.Unlock()
	return s.addr
}

// as is TLS with a certificate for a path of the trust domain.
func (s *site) as(path string) *tls.Config {
	s.t.Helper()
	return s.with(s.ca, mtls.Template{SPIFFEID: domain + path, Client: true, NotAfter: time.Now().Add(time.Hour)})
}

func (s *site) with(ca *mtls.CA, tmpl mtls.Template) *tls.Config {
	s.t.Helper()
	cert, key, err := ca.Issue(tmpl)
	must(s.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	must(s.t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: s.roots, ServerName: "localhost", NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS13}
}

// conn is a connection that follows the broker wherever it is.
func (s *site) conn(config *tls.Config, more ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	return s.connTo(s.grpc, config, more...)
}

func (s *site) connTo(addr func() string, config *tls.Config, more ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr())
	}
	soon := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}
	conn, err := grpc.NewClient("passthrough:///localhost", append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(dial), grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: patience})}, more...)...)
	must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}
