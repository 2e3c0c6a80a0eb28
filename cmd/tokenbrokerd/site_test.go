package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// site is a folder that "tokenbrokerd init" made, and the broker that runs in it, over any number of restarts. Clients follow it
// to the port that it listens on.
type site struct {
	t     testing.TB
	dir   string
	flags []string
	proc  *process
	grpc  atomic.Pointer[string] // address of the newest process
	ops   string
}

// newSite makes a folder whose config has the given providers, as YAML without indent.
func newSite(t testing.TB, providers string) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "tb")}
	if out, err := exec.Command("tokenbrokerd", "init", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("tokenbrokerd init: %v\n%s", err, out)
	}
	if providers != "" {
		s.edit("tokenbroker.yaml", "providers: {}", "providers:\n"+indent(providers))
	}
	return s
}

func indent(yaml string) string {
	var b strings.Builder
	for line := range strings.Lines(yaml) {
		b.WriteString("  " + line)
	}
	return b.String()
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// write replaces a file by rename, as an operator should.
func (s *site) write(name, text string) {
	s.t.Helper()
	tmp := s.path(name + ".new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// edit replaces a piece of a file that must be there.
func (s *site) edit(name, from, to string) {
	s.t.Helper()
	text := s.read(name)
	if !strings.Contains(text, from) {
		s.t.Fatalf("%s does not hold %q:\n%s", name, from, text)
	}
	s.write(name, strings.Replace(text, from, to, 1))
}

// command is "tokenbrokerd serve" in the folder, on ports that the system chooses.
func (s *site) command(flags ...string) *exec.Cmd {
	args := append([]string{"serve", "--config", s.path("tokenbroker.yaml"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, s.flags...)
	return exec.Command("tokenbrokerd", append(args, flags...)...)
}

// start starts the broker and waits until it serves.
func (s *site) start(flags ...string) *process {
	s.t.Helper()
	return s.serving(s.command(flags...))
}

// serving starts a command that becomes a broker, and waits until it serves.
func (s *site) serving(cmd *exec.Cmd) *process {
	s.t.Helper()
	s.proc = startProcess(s.t, cmd)
	line := s.proc.line(`"msg":"serving"`)
	if strings.Contains(line, "nil") {
		s.t.Errorf("got %s, want what is there alone", line)
	}
	addr := field(s.t, line, "grpc")
	s.grpc.Store(&addr)
	s.ops = field(s.t, line, "ops")
	return s.proc
}

// stop ends the broker in order.
func (s *site) stop() {
	s.t.Helper()
	s.proc.signal(syscall.SIGTERM)
	if got := s.proc.wait(patience); got != 0 {
		s.t.Errorf("got exit status %d after SIGTERM, want 0", got)
	}
}

// refused starts a broker that must not come up, and returns what it said.
func (s *site) refused(within time.Duration, flags ...string) string {
	s.t.Helper()
	p := startProcess(s.t, s.command(flags...))
	if got := p.wait(within); got != 1 {
		s.t.Errorf("got exit status %d, want 1", got)
	}
	return p.out.String()
}

// source is the certificate of "operator" or "worker", or of another name that issue made.
func (s *site) source(name string) *mtls.Source {
	s.t.Helper()
	src, err := mtls.Open(mtls.Files{Cert: s.path(name + ".pem"), Key: s.path(name + ".key"), CA: s.path("ca.pem")})
	if err != nil {
		s.t.Fatal(err)
	}
	return src
}

// issue makes a certificate of the development CA.
func (s *site) issue(name string, tmpl mtls.Template) {
	s.t.Helper()
	ca, err := mtls.LoadCA([]byte(s.read("ca.pem")), []byte(s.read("ca.key")))
	if err != nil {
		s.t.Fatal(err)
	}
	cert, key, err := ca.Issue(tmpl)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".key", string(key))
	s.write(name+".pem", string(cert))
}

// conn is a connection with the certificate of name. It goes wherever the broker is now.
func (s *site) conn(name string) *grpc.ClientConn {
	s.t.Helper()
	config, err := s.source(name).ClientTLS("spiffe://tokenbroker.local/broker")
	if err != nil {
		s.t.Fatal(err)
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", *s.grpc.Load())
	}
	soon := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}
	conn, err := grpc.NewClient("passthrough:///broker", grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: patience}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// cli runs tokenbrokerd and returns all it wrote and its exit status.
func cli(t testing.TB, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command("tokenbrokerd", args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	_ = cmd.Run()
	return b.String(), cmd.ProcessState.ExitCode()
}

// want checks that a text holds all pieces.
func want(t testing.TB, text string, pieces ...string) {
	t.Helper()
	for _, p := range pieces {
		if !strings.Contains(text, p) {
			t.Errorf("got %q\nwant %q in it", text, p)
		}
	}
}

// providerYAML is a provider of the config file.
func providerYAML(name, endpoint string, more ...string) string {
	return fmt.Sprintf("%s:\n  token_endpoint: %s\n  allow_private: true\n  rate: 1000\n  burst: 1000\n  %s\n", name, endpoint, strings.Join(more, "\n  "))
}
