package examples_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	patience  = 2 * time.Minute // for a machine that has much else to do
	shortLife = 4 * time.Second // of the tokens of the issuer "short"
	hastyLife = 4 * time.Minute // of those of "hasty", which Google's library takes for nearly over: it asks again for each request
)

// stage is a broker, an API that takes the tokens of its sandbox, and a worker that is told by the test what to do.
type stage struct {
	*brokertest.Broker
	t      *testing.T
	api    *api
	worker *worker
}

// setUp starts all of them. The way is how the worker gets to the broker: what it returns goes into the worker's environment.
func setUp(t *testing.T, l language, way func(*testing.T, *brokertest.Broker) []string) *stage {
	t.Helper()
	job := []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}
	b := brokertest.Start(t, brokertest.Config{TCP: true,
		Issuers: []sandbox.Issuer{
			{Name: "fast", Clients: job, Rotation: sandbox.RotateNone},
			{Name: "short", Clients: job, Rotation: sandbox.RotateNone, AccessLife: shortLife},
			{Name: "hasty", Clients: job, Rotation: sandbox.RotateNone, AccessLife: hastyLife},
		},
		Profile: func(_ string, p *provider.Profile) { // reports and operators may cause an exchange at any time
			floor := provider.Duration(time.Millisecond)
			p.Floor = &floor
		}})
	b.AddClientCredentials("example/api", "files.read")
	s := &stage{Broker: b, t: t, api: newAPI(t, b)}
	s.worker = startWorker(t, l.command(t), append(way(t, b), s.api.trusted(t)...))
	return s
}

// straight is the way of a worker with a certificate of its own.
func straight(t *testing.T, b *brokertest.Broker) []string {
	t.Helper()
	return with(b.Daemon.Addr().String(), files(b))
}

func with(addr string, f mtls.Files) []string {
	return []string{"TOKENBROKER_ADDR=" + addr, "TOKENBROKER_CA=" + f.CA, "TOKENBROKER_CERT=" + f.Cert, "TOKENBROKER_KEY=" + f.Key}
}

// files are a certificate of a worker.
func files(b *brokertest.Broker) mtls.Files {
	return b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(time.Hour)})
}

// works has the worker do a job, and fails the test if it can't.
func (s *stage) works(credential string) {
	s.t.Helper()
	if got := s.worker.job(credential, s.api.URL+"/files"); !strings.HasPrefix(got, "done 200 ") {
		s.t.Fatalf("the worker says %q, want done 200", got)
	}
}

// renew has the broker fetch a fresh token, and returns its generation.
func (s *stage) renew(credential string) uint64 {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_, err := tokenbrokerv1.NewCredentialServiceClient(s.Operator()).RefreshCredential(ctx, &tokenbrokerv1.RefreshCredentialRequest{Credential: credential})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Token(credential).GetGeneration()
}

// exchanges is how many tokens an issuer was asked for.
func (s *stage) exchanges(issuer string) int {
	return s.Sandbox.Count(sandbox.Filter{Issuer: issuer, Endpoint: sandbox.EndpointToken})
}

// tries reports whether a job gets done.
func (s *stage) tries(credential string) bool {
	s.t.Helper()
	return strings.HasPrefix(s.worker.job(credential, s.api.URL+"/files"), "done 200 ")
}

// eventually waits until something is so.
func (s *stage) eventually(what string, so func() bool) {
	s.t.Helper()
	late, look := time.NewTimer(patience), time.NewTicker(20*time.Millisecond)
	defer late.Stop()
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-late.C:
			s.t.Fatalf("it did not come to pass that %s", what)
		}
	}
}

// recorded are the records of an action in the audit trail, but for what was denied.
func (s *stage) recorded(kind audit.Kind, action policy.Action) (records []audit.Record) {
	s.t.Helper()
	trail, err := os.ReadFile(filepath.Join(s.Dir, "audit.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range bytes.Lines(trail) {
		r, err := audit.ParseEntry(bytes.TrimSuffix(line, []byte("\n")))
		if err == nil && r.Kind == kind && r.Action == string(action) && r.Decision != audit.Deny {
			records = append(records, r.Record)
		}
	}
	return records
}

// streams are those that were opened and not closed.
func (s *stage) streams() map[uint64]bool {
	s.t.Helper()
	open := map[uint64]bool{}
	for _, r := range s.recorded(audit.KindStreamOpen, policy.TokenSubscribe) {
		open[r.Streams[0]] = true
	}
	for _, r := range s.recorded(audit.KindStreamClose, policy.TokenSubscribe) {
		delete(open, r.Streams[0])
	}
	return open
}

// call is a request that the API had, and its answer.
type call struct {
	path, token string
	status      int
}

// api is a resource server: it takes a token that the sandbox calls valid. /wide asks for a scope that no token has, /moved leads to
// another server.
type api struct {
	*httptest.Server
	elsewhere string

	mu    sync.Mutex
	calls []call
}

func newAPI(t *testing.T, b *brokertest.Broker) *api {
	t.Helper()
	a := &api{}
	other := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called elsewhere", r.URL.Path) }))
	t.Cleanup(other.Close)
	a.elsewhere = other.URL
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		status := a.answer(w, r.URL.Path, b.Sandbox.Valid(token))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.calls = append(a.calls, call{r.URL.Path, token, status})
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) answer(w http.ResponseWriter, path string, valid bool) int {
	status := http.StatusOK
	switch {
	case !valid:
		w.Header().Set("WWW-Authenticate", `Bearer realm="files", error="invalid_token"`)
		status = http.StatusUnauthorized
	case path == "/wide":
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="files.write"`)
		status = http.StatusForbidden
	case path == "/moved":
		w.Header().Set("Location", a.elsewhere+"/files")
		status = http.StatusFound
	}
	w.WriteHeader(status)
	return status
}

// trusted is the environment in which Python and node trust the API's certificate.
func (a *api) trusted(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "api.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"SSL_CERT_FILE=" + file, "NODE_EXTRA_CA_CERTS=" + file}
}

// seen is what the API was called with so far.
func (a *api) seen() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]call(nil), a.calls...)
}

// last is the last call. There has to be one.
func (a *api) last() call {
	seen := a.seen()
	return seen[len(seen)-1]
}

// worker is the process of an example.
type worker struct {
	t    *testing.T
	in   io.WriteCloser
	said transcript
}

// startWorker starts it. At the end of the test its input ends, and it has to end by itself, and well, having shown no token.
func startWorker(t *testing.T, command, env []string) *worker {
	t.Helper()
	w := &worker{t: t, said: transcript{more: make(chan struct{})}}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"}, env...)
	cmd.Stdout, cmd.Stderr = &w.said, &w.said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		late := time.AfterFunc(patience, cancel)
		err := cmd.Wait()
		late.Stop()
		cancel()
		text := w.said.String()
		if err != nil {
			t.Errorf("the worker ended with %v", err)
		}
		if strings.Contains(text, sandbox.AccessPrefix) {
			t.Errorf("the worker showed a token")
		}
		if t.Failed() {
			text = strings.ReplaceAll(text, sandbox.AccessPrefix, "(token)")
			t.Logf("the worker wrote at last:\n%s", text[max(0, len(text)-2000):])
		}
	})
	return w
}

// job has the worker do a job, and returns what it says of that.
func (w *worker) job(credential, url string) string {
	w.t.Helper()
	return w.do(credential + " " + url)
}

func (w *worker) do(line string) string {
	w.t.Helper()
	from := len(w.said.String())
	if _, err := fmt.Fprintln(w.in, line); err != nil {
		w.t.Fatal(err)
	}
	return w.said.wait(w.t, from, `(?:done|refused|failed) .*`, func([]string) bool { return true })
}

// fresh waits until the worker says that it has a token of a generation, or a later one.
func (w *worker) fresh(credential string, generation uint64) {
	w.t.Helper()
	w.said.wait(w.t, 0, `fresh `+regexp.QuoteMeta(credential)+` (\d+)`, func(found []string) bool {
		n, err := strconv.ParseUint(found[1], 10, 64)
		return err == nil && n >= generation
	})
}

// transcript is what a process writes.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // closed, and another one, with each write
}

// Write implements io.Writer.
func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	close(tr.more)
	tr.more = make(chan struct{})
	return tr.text.Write(p)
}

// String is all of it so far.
func (tr *transcript) String() string { text, _ := tr.now(); return text }

func (tr *transcript) now() (string, <-chan struct{}) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String(), tr.more
}

// wait waits for a whole line behind a position that matches a pattern and is wanted.
func (tr *transcript) wait(t *testing.T, from int, pattern string, wanted func(found []string) bool) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + pattern + "\n")
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		text, more := tr.now()
		for _, found := range line.FindAllStringSubmatch(text[from:], -1) {
			if wanted(found) {
				return strings.TrimSpace(found[0])
			}
		}
		select {
		case <-more:
		case <-late.C:
			t.Fatalf("the worker did not say %q", pattern)
		}
	}
}

// python is the interpreter that the Python examples run in: Debian's, which has Debian's python3-grpcio.
func python() string { return cmp.Or(os.Getenv("PYTHON"), "/usr/bin/python3") }

// of is a credential of an issuer.
func of(issuer, name string) *tokenbrokerv1.CreateCredentialRequest {
	return &tokenbrokerv1.CreateCredentialRequest{Credential: name, Spec: &tokenbrokerv1.CredentialSpec{Provider: issuer,
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"files.read"}}}
}
