package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// api is a resource server over HTTPS, and one over HTTP, that takes the tokens which the sandbox's providers gave and have not revoked.
type api struct {
	w                   *world
	tls, elsewhere, web *httptest.Server

	mu      sync.Mutex
	last    string // token
	log     []string
	held    chan string   // a request to /hold has come, with its token
	release chan struct{} // closed when it is to be answered
}

func newAPI(w *world) *api {
	a := &api{w: w, held: make(chan string, 1), release: make(chan struct{})}
	a.tls, a.elsewhere, a.web = httptest.NewTLSServer(a), httptest.NewTLSServer(http.HandlerFunc(a.other)), httptest.NewServer(a)
	var pool []byte
	for _, s := range []*httptest.Server{a.tls, a.elsewhere} {
		pool = append(pool, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})...)
	}
	w.write("api-ca.pem", pool)
	return a
}

func (a *api) close() {
	for _, s := range []*httptest.Server{a.tls, a.elsewhere, a.web} {
		s.CloseClientConnections()
		s.Close()
	}
}

// note keeps a line of what happened.
func (a *api) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = append(a.log, fmt.Sprintf(format, args...))
}

// lines is what happened since it was asked last.
func (a *api) lines() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := strings.Join(a.log, "\n") + "\n"
	a.log = nil
	return text
}

// bearerOf is the token of a request, and how it came: git without the newer protocol sends it as a password.
func bearerOf(r *http.Request) (token, way string) {
	way, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if way == "Basic" {
		plain, _ := base64.StdEncoding.DecodeString(value)
		_, value, _ = strings.Cut(string(plain), ":")
	}
	return value, way
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, way := bearerOf(r)
	live := token != "" && a.w.Sandbox.Valid(token)
	a.note("%s %s %s %v", r.Method, r.URL.Path, way, live)
	if !live {
		challenge := `Bearer realm="api", error="invalid_token"`
		if strings.HasPrefix(r.URL.Path, "/git/") {
			challenge = `Basic realm="git"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, "who are you?")
		return
	}
	a.mu.Lock()
	a.last = token
	a.mu.Unlock()
	a.answer(w, r, token)
}

func (a *api) answer(w http.ResponseWriter, r *http.Request, token string) {
	switch path := r.URL.Path; {
	case path == "/end": // as if the token had been revoked while it was on its way
		a.w.Sandbox.RevokeToken(token)
		w.WriteHeader(http.StatusUnauthorized)
	case path == "/echo":
		_, _ = io.Copy(w, r.Body)
	case path == "/scope":
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="files.read files.write files.admin"`)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintln(w, "too little")
	case path == "/away":
		http.Redirect(w, r, a.elsewhere.URL+"/seen", http.StatusFound)
	case path == "/inside":
		http.Redirect(w, r, "/reports", http.StatusFound)
	case path == "/hold":
		a.held <- token
		<-a.release
		fmt.Fprintln(w, "held")
	case strings.HasPrefix(path, "/git/"):
		a.git(w, r)
	default:
		fmt.Fprintln(w, "reports")
	}
}

// other is another server, to which a redirect leads.
func (a *api) other(w http.ResponseWriter, r *http.Request) {
	a.note("elsewhere %s %q", r.URL.Path, r.Header.Get("Authorization"))
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprintln(w, "elsewhere")
}

// git serves the repositories in the folder "repositories" over git's smart HTTP.
func (a *api) git(w http.ResponseWriter, r *http.Request) {
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Root: "/git", Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(a.w.dir, "repositories"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + a.w.dir}}
	h.ServeHTTP(w, r)
}

// revoke makes the provider revoke the token that was used last.
func (a *api) revoke() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.w.Sandbox.RevokeToken(a.last)
}

type apiKey struct{}

// apiCommand is what happens at the API: start, revoke the token that was used last, log FILE.
func apiCommand(ts *testscript.TestScript, _ bool, args []string) {
	a, _ := ts.Value(apiKey{}).(**api)
	switch verb := args[0]; verb {
	case "start":
		*a = newAPI(worldOf(ts))
		ts.Defer((*a).close)
		ts.Setenv("API", (*a).tls.URL)
		ts.Setenv("HOST", strings.TrimPrefix((*a).tls.URL, "https://"))
		ts.Setenv("ELSEWHERE", (*a).elsewhere.URL)
		ts.Setenv("PLAIN", (*a).web.URL)
		ts.Setenv("CURL_CA_BUNDLE", filepath.Join((*a).w.dir, "api-ca.pem"))
		ts.Setenv("GIT_SSL_CAINFO", filepath.Join((*a).w.dir, "api-ca.pem"))
	case "revoke":
		if !(*a).revoke() {
			ts.Fatalf("no such token")
		}
	case "log":
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte((*a).lines()), 0o600))
	default:
		ts.Fatalf("api %s?", verb)
	}
}

// startAPI is apiCommand's start for a plain test.
func startAPI(t *testing.T, w *world) *api {
	a := newAPI(w)
	t.Cleanup(a.close)
	return a
}
