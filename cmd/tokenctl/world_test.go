package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
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
	w := &world{Broker: brokertest.Start(t, brokertest.Config{TCP: true, Profile: hasty}), t: t, dir: dir, secrets: []string{brokertest.Secret}}
	w.certificate("operator", brokertest.OperatorID)
	w.certificate("worker", brokertest.WorkerID)
	return w
}

// hasty lets the provider "rotating" be asked again at once; the others have their floor interval.
func hasty(issuer string, p *provider.Profile) {
	if floor := provider.Duration(time.Millisecond); issuer == "rotating" {
		p.Floor = &floor
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
