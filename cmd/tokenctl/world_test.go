package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// patience is how long a test waits for what has to come.
const patience = time.Minute

// world is a broker over TCP with files for its clients: an operator and a worker.
type world struct {
	*brokertest.Broker
	t       testing.TB
	dir     string
	secrets []string // what no output may hold
}

// newWorld starts a broker and writes the files into dir.
func newWorld(t testing.TB, dir string) *world {
	w := &world{Broker: brokertest.Start(t, brokertest.Config{TCP: true, Issuers: issuers(), Profile: profile}), t: t, dir: dir, secrets: []string{brokertest.Secret}}
	w.certificate("operator", brokertest.OperatorID)
	w.certificate("worker", brokertest.WorkerID)
	return w
}

// issuers are those that a broker in a test has by default, and "people", where accounts consent.
func issuers() []sandbox.Issuer {
	job := []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}
	return []sandbox.Issuer{
		{Name: "fast", Clients: job, Rotation: sandbox.RotateNone, Downscope: true},
		{Name: "rotating", Clients: job, Rotation: sandbox.RotateStrict, Downscope: true},
		{Name: "graceful", Clients: job, Rotation: sandbox.RotateGrace, Grace: time.Minute},
		{Name: "people", Rotation: sandbox.RotateStrict, DeviceInterval: time.Second,
			Accounts:        []sandbox.Account{{Email: "reports@corp.example"}, {Email: "other@corp.example"}},
			Clients:         []sandbox.Client{{ID: "app", Secrets: []string{brokertest.Secret}, RedirectURIs: []string{"http://127.0.0.1/callback"}}},
			ServiceAccounts: []sandbox.ServiceAccount{{Email: "robot@proj.iam.example", ClientID: "104857600000000000001", Delegated: []string{"mail.read"}}}},
	}
}

// profile says what an issuer does, as an operator would. The provider "rotating" can be asked again at once, "fast" only when every test is
// long over, and the others after their floor interval.
func profile(issuer string, p *provider.Profile) {
	floor := provider.Duration(time.Millisecond)
	switch issuer {
	case "fast":
		p.Floor = new(provider.Duration(time.Hour))
	case "rotating":
		p.Floor = &floor
	case "people":
		base := "https://sandbox.example/people/"
		p.AuthorizationEndpoint, p.DeviceAuthorizationEndpoint, p.RevocationEndpoint, p.IntrospectionEndpoint, p.UserinfoEndpoint =
			base+"authorize", base+"device", base+"revoke", base+"introspect", base+"userinfo"
		p.ConsentScopes = []string{"openid"}
		p.Account, p.Title, p.Floor = []string{"userinfo.email"}, "People", &floor
	}
}

// certificate writes NAME.pem and NAME.key of the broker's CA.
func (w *world) certificate(name, id string) {
	files := w.Files(mtls.Template{SPIFFEID: id, Client: true, NotAfter: time.Now().Add(time.Hour)})
	for from, to := range map[string]string{files.Cert: name + ".pem", files.Key: name + ".key", files.CA: "ca.pem"} {
		data, err := os.ReadFile(from)
		w.must(err)
		w.write(to, data)
	}
}

func (w *world) write(name string, data []byte) {
	w.must(os.WriteFile(filepath.Join(w.dir, name), data, 0o600))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// env is what "tokenbrokerd dev" writes into a file for an operator.
func (w *world) env() map[string]string {
	return map[string]string{
		"TOKENBROKER_ADDR": w.Daemon.Addr().String(), "TOKENBROKER_CA": filepath.Join(w.dir, "ca.pem"),
		"TOKENBROKER_CERT": filepath.Join(w.dir, "operator.pem"), "TOKENBROKER_KEY": filepath.Join(w.dir, "operator.key"),
		"TOKENBROKER_SERVER_NAME": "",
	}
}

// environ is env for a process.
func (w *world) environ() []string {
	env := os.Environ()
	for name, value := range w.env() {
		env = append(env, name+"="+value)
	}
	return env
}

// seed writes a refresh token that the sandbox has just given into a file.
func (w *world) seed(issuer, file string, scopes ...string) {
	token := w.Sandbox.SeedRefreshToken(issuer, "job", scopes...)
	w.secrets = append(w.secrets, token)
	w.write(file, []byte(token+"\n"))
}

// AddClient adds the OAuth client of the provider "people".
func (w *world) AddClient(t *testing.T) {
	t.Helper()
	w.write("app-secret", []byte(brokertest.Secret))
	w.tokenctl(t, "client", "create", "people-app", "--provider", "people", "--client-id", "app", "--secret-file", filepath.Join(w.dir, "app-secret"))
}

// tokenctl runs a command that has to go well, and returns what it printed.
func (w *world) tokenctl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("tokenctl", args...)
	cmd.Env = w.environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// expired writes a certificate that has ended.
func (w *world) expired(name string) {
	cert, key, err := w.CA().Issue(mtls.Template{SPIFFEID: brokertest.OperatorID, Client: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	w.must(err)
	w.write(name+".pem", cert)
	w.write(name+".key", key)
}

// otherCA writes a CA that has nothing to do with the broker, and a certificate of it.
func (w *world) otherCA(name string) {
	ca, err := mtls.NewCA("another", time.Hour, brokertest.TrustDomain)
	w.must(err)
	cert, key, err := ca.Issue(mtls.Template{SPIFFEID: brokertest.OperatorID, Client: true, NotAfter: time.Now().Add(30 * time.Minute)})
	w.must(err)
	w.write(name+"-ca.pem", ca.CertPEM())
	w.write(name+".pem", cert)
	w.write(name+".key", key)
}

// transcript keeps all that commands printed, to look for secrets in.
type transcript struct {
	mu     sync.Mutex
	text   strings.Builder
	worlds []*world
}

func (tr *transcript) hear(text string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.text.WriteString(text)
}

func (tr *transcript) join(w *world) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.worlds = append(tr.worlds, w)
}

// search reports the secrets that got out. Those of scripts themselves begin with "hush".
func (tr *transcript) search(t *testing.T) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	text, secrets := tr.text.String(), []string{"hush"}
	for _, w := range tr.worlds {
		secrets = append(secrets, w.secrets...)
	}
	for _, s := range secrets {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("a secret got out: %q", text[max(0, i-200):min(len(text), i+len(s)+50)])
		}
	}
}
