package recipes_test

import (
	"context"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// patience is how long a test waits for what has to come.
const patience = 2 * time.Minute

// stage is what a page needs: a broker with the credential example/reports, an API that takes its tokens, and a host to itself.
type stage struct {
	*brokertest.Broker
	page *page
	api  *api
	dir  string // the root of the host
	port string // a free one on the loopback

	repository string            // its root
	ends       map[string]func() // what runs in the background, by name
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func newStage(env *testscript.Env, p *page) (*stage, error) {
	t := env.T().(testing.TB)
	repository, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	s := &stage{page: p, dir: env.WorkDir, repository: repository, ends: map[string]func(){}, Broker: newBroker(t), port: freePort(t)}
	s.api = newAPI(t, s)
	for _, folder := range []string{"bin", "etc/tokenbroker", "etc/cron.d", "etc/systemd/system", "run/tokenbroker", "run/reports", "var/lib/reports", "var/log", "home"} {
		if err := os.MkdirAll(filepath.Join(s.dir, folder), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.install(); err != nil {
		return nil, err
	}
	for name, value := range s.operator() {
		env.Setenv(name, value)
	}
	for name, value := range map[string]string{"HOME": s.dir + "/home", "API": s.api.URL, "HOST": strings.TrimPrefix(s.api.URL, "https://"), "XDG_RUNTIME_DIR": s.dir + "/run"} {
		env.Setenv(name, value)
	}
	for name, value := range s.trust() {
		env.Setenv(name, value)
	}
	return s, nil
}

// newBroker starts a broker with two credentials of an issuer for jobs, and one of "acme", where refresh tokens rotate.
func newBroker(t testing.TB) *brokertest.Broker {
	job := []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true,
		Issuers: []sandbox.Issuer{{Name: "fast", Clients: job, Rotation: sandbox.RotateNone, Downscope: true},
			{Name: "acme", Clients: job, Rotation: sandbox.RotateStrict, Downscope: true}},
		Profile: func(issuer string, p *provider.Profile) { // 401s and operators may cause an exchange at any time
			floor := provider.Duration(time.Millisecond)
			p.Floor, p.RevocationEndpoint = &floor, "https://sandbox.example/"+issuer+"/revoke"
		}})
	b.AddClientCredentials("example/reports", "files.read")
	b.AddClientCredentials("example/drive", "files.read")
	b.AddRefreshToken("example/git", "acme", "files.read")
	return b
}

// freePort is a port of the loopback that nobody listens on, and that nobody is given until the test ends.
func freePort(t testing.TB) string {
	addr := brokertest.Addr(t)
	return addr[strings.LastIndexByte(addr, ':')+1:]
}

// install writes what a host has: certificates, the programs, and the files that the page shows.
func (s *stage) install() error {
	for name, id := range map[string]string{"operator": brokertest.OperatorID, "worker": brokertest.WorkerID} {
		files := s.Files(mtls.Template{SPIFFEID: id, Client: true, NotAfter: time.Now().Add(time.Hour)})
		for from, to := range map[string]string{files.Cert: name + ".pem", files.Key: name + ".key", files.CA: "ca.pem"} {
			data, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(s.dir, "etc/tokenbroker", to), data, 0o600); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"tokenctl", "tokenbrokerd"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(s.dir, "bin", name)); err != nil {
			return err
		}
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.api.Certificate().Raw})
	return os.WriteFile(filepath.Join(s.dir, "api-ca.pem"), ca, 0o600)
}

// trust is the environment in which programs trust the API, whose certificate is of no public CA.
func (s *stage) trust() map[string]string {
	ca := filepath.Join(s.dir, "api-ca.pem")
	return map[string]string{"CURL_CA_BUNDLE": ca, "GIT_SSL_CAINFO": ca, "SSL_CERT_FILE": ca, "NODE_EXTRA_CA_CERTS": ca}
}

func (s *stage) operator() map[string]string { return s.certificate("operator") }

// certificate is the environment of somebody who has one.
func (s *stage) certificate(name string) map[string]string {
	in := filepath.Join(s.dir, "etc/tokenbroker") + "/"
	return map[string]string{"TOKENBROKER_ADDR": s.Daemon.Addr().String(), "TOKENBROKER_CA": in + "ca.pem", "TOKENBROKER_CERT": in + name + ".pem",
		"TOKENBROKER_KEY": in + name + ".key", "TOKENBROKER_SERVER_NAME": "", "TOKENBROKER_WORKLOAD_API": ""}
}

// substitutions are all in which a page and its test differ: what is on the left in a page is on the right here.
func (s *stage) substitutions() *strings.Replacer {
	return strings.NewReplacer(
		"https://api.example", s.api.URL, "https://git.example", s.api.URL, "git.example", strings.TrimPrefix(s.api.URL, "https://"),
		"broker.example.org:8443", s.Daemon.Addr().String(), "127.0.0.1:8081", s.opsAddr(), "127.0.0.1:8174", "127.0.0.1:"+s.port, "users: [runner]", "users: ["+strconv.Itoa(os.Getuid())+"]",
		"spiffe://example.org/", "spiffe://"+brokertest.TrustDomain+"/",
		"/usr/local/bin/", s.dir+"/bin/", "/etc/", s.dir+"/etc/", "/run/", s.dir+"/run/", "/var/lib/tokenbroker", s.Dir, "/var/", s.dir+"/var/",
		"/tmp/tb", s.dir+"/tmp/tb", "/opt/", s.dir+"/opt/", "/srv/", s.dir+"/srv/", "/home/", s.dir+"/home/", "/root/", s.dir+"/root/", "/spiffe-workload-api/", s.dir+"/spiffe/", "examples/python/", s.repository+"/examples/python/",
	)
}

func (s *stage) opsAddr() string {
	if a := s.Daemon.OpsAddr(); a != nil {
		return a.String()
	}
	return ""
}

func (s *stage) here(text string) string { return s.substitutions().Replace(text) }

// take writes a file that the page shows to where the page says, and returns its path here.
func (s *stage) take(path string) (string, error) {
	text, err := s.page.file(path)
	if err != nil {
		return "", err
	}
	at := filepath.Join(s.dir, path)
	if strings.HasPrefix(path, "/") {
		at = s.here(path)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return "", err
	}
	return at, os.WriteFile(at, []byte(s.here(text)), 0o700)
}

// pageCommand is "page BEGIN…": the command of the page that begins so is run. "page file PATH" writes a file that the page shows.
func pageCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	if args[0] == "file" {
		_, err := s.take(args[1])
		ts.Check(err)
		return
	}
	command, err := s.page.command(strings.Join(args, " "))
	ts.Check(err)
	if err := ts.Exec("bash", "-o", "pipefail", "-c", s.here(command)); (err != nil) != neg {
		ts.Fatalf("%s: got %v, want success to be %v", command, err, !neg)
	}
}

// triesCommand is "tries BEGIN…": the command of the page is run, and its exit status is not looked at.
func triesCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	command, err := s.page.command(strings.Join(args, " "))
	ts.Check(err)
	_ = ts.Exec("bash", "-c", s.here(command))
}

// startCommand is "start NAME BEGIN…": the command of the page runs until the script ends; what it writes is in NAME.
func startCommand(ts *testscript.TestScript, _ bool, args []string) {
	command, err := stageOf(ts).page.command(strings.Join(args[1:], " "))
	ts.Check(err)
	background(ts, args[0], "exec "+stageOf(ts).here(command))
}

// background runs a command line of sh until the script ends.
func background(ts *testscript.TestScript, name, line string) {
	out, err := os.Create(ts.MkAbs(name))
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), out, out
	cmd.Env = environ(ts)
	ts.Check(cmd.Start())
	end := sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait()
		_ = out.Close()
	})
	stageOf(ts).ends[name] = end
	ts.Defer(end)
}

// endCommand is "end NAME": it ends what runs in the background.
func endCommand(ts *testscript.TestScript, _ bool, args []string) {
	stageOf(ts).ends[args[0]]()
}

// environ is the environment of the script, as far as jobs may depend on it.
func environ(ts *testscript.TestScript) (env []string) {
	for _, name := range []string{"PATH", "HOME", "API", "HOST", "XDG_RUNTIME_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "TOKENBROKER_ADDR",
		"TOKENBROKER_CA", "TOKENBROKER_CERT", "TOKENBROKER_KEY"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// asCommand says who the following commands are: "operator", "worker", or "agent", which starts an agent and leaves the job without a
// certificate.
func asCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	if args[0] != "agent" {
		for name, value := range s.certificate(args[0]) {
			ts.Setenv(name, value)
		}
		return
	}
	socket := filepath.Join(s.dir, "run/tokenbroker/agent.sock")
	if _, err := os.Stat(socket); err != nil {
		asCommand(ts, false, []string{"worker"})
		background(ts, "agent.log", "exec tokenctl agent --socket "+socket+" --audit "+filepath.Join(s.dir, "var/log/agent.jsonl"))
		eventually(ts, false, []string{"^READY", "cat", "agent.log"})
	}
	for name := range s.operator() {
		ts.Setenv(name, "")
	}
	ts.Setenv("TOKENBROKER_ADDR", "unix://"+socket)
}

// eventually is "eventually PATTERN COMMAND…": the command is run until it prints the pattern.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		if want.MatchString(ts.ReadFile("stdout")) || want.MatchString(ts.ReadFile("stderr")) {
			return
		}
	}
	ts.Fatalf("%q does not come", args[0])
}

// brokerCommand is what happens to the broker.
func brokerCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	switch args[0] {
	case "stop":
		s.Shutdown()
	case "start":
		s.Restart()
	case "seed": // FILE: somebody consents at "acme"; the refresh token is in the file
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(s.Sandbox.SeedRefreshToken("acme", "job", "files.read")+"\n"), 0o600))
	case "workloads": // the Workload API at the page's address
		address := brokertest.WorkloadAPI(s.api.t, s.CA(), mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(time.Hour)})
		ts.Check(os.MkdirAll(filepath.Join(s.dir, "spiffe"), 0o700))
		ts.Check(os.Symlink(strings.TrimPrefix(address, "unix://"), filepath.Join(s.dir, "spiffe/spire-agent.sock")))
	default:
		ts.Fatalf("broker %s?", args[0])
	}
}

// unseenCommand is "unseen FILE…": no token is in any of them, nor in what the API's log or the last command printed.
func unseenCommand(ts *testscript.TestScript, _ bool, args []string) {
	for _, path := range append(args, "stdout", "stderr") {
		if strings.Contains(ts.ReadFile(path), sandbox.AccessPrefix) {
			ts.Fatalf("a token is in %s", path)
		}
	}
}

// elsewhereCommand is "elsewhere BEGIN…": the command can't be run here, and the page says so in its first lines.
func elsewhereCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	command, err := s.page.command(strings.Join(args, " "))
	ts.Check(err)
	program := strings.Join(strings.Fields(command)[:2], " ")
	_, says, _ := strings.Cut(s.page.text, "What was run")
	if says, _, _ = strings.Cut(says, "\n\n"); !strings.Contains(says, program) {
		ts.Fatalf("the page does not say that %s was not run", program)
	}
}
