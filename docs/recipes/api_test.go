package recipes_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// api is a resource server that takes the tokens which the sandbox gave and has not revoked. A path with .git/ is one in a repository.
type api struct {
	*httptest.Server
	t     testing.TB
	away  atomic.Bool
	valid func(token string) bool
	root  string // of the repositories

	mu     sync.Mutex
	tokens []string // in the order in which they came
	log    []string
}

func newAPI(t testing.TB, s *stage) *api {
	a := &api{t: t, valid: s.Sandbox.Valid, root: filepath.Join(s.dir, "repositories")}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	return a
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := bearer(r)
	valid := a.valid(token)
	a.note(r.URL.Path, token, valid)
	if token != "" {
		a.look(token)
	}
	inGit := strings.Contains(r.URL.Path, ".git/")
	switch {
	case a.away.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case !valid && inGit:
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
	case !valid:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	case inGit:
		a.git(w, r)
	default:
		_, _ = fmt.Fprintln(w, `{"reports": 3}`)
	}
}

// bearer is the token of a request. git without the newer protocol sends it as a password.
func bearer(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// note keeps a line: the path, which token came, by number, and the verdict.
func (a *api) note(path, token string, valid bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token == "" {
		a.log = append(a.log, path+" none")
		return
	}
	at := slices.Index(a.tokens, token)
	if at < 0 {
		at = len(a.tokens)
		a.tokens = append(a.tokens, token)
	}
	a.log = append(a.log, fmt.Sprintf("%s token %d %v", path, at+1, valid))
}

// look fails the test if a token is on a command line or in an environment while it is used, where there is a /proc to look at.
func (a *api) look(token string) {
	for _, place := range []string{"cmdline", "environ"} {
		paths, _ := filepath.Glob("/proc/[0-9]*/" + place)
		for _, path := range paths {
			if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), token) {
				a.t.Errorf("a token is in the %s of a process", place)
			}
		}
	}
}

func (a *api) git(w http.ResponseWriter, r *http.Request) {
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	(&cgi.Handler{Path: git, Args: []string{"http-backend"}, Root: "/", Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + a.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + a.root}}).ServeHTTP(w, r)
}

// last is the token that came last.
func (a *api) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.tokens) == 0 {
		return ""
	}
	return a.tokens[len(a.tokens)-1]
}

// apiCommand is what happens at the API: "revoke" the newest token that it saw; "away" and "back": it answers 503 meanwhile; "log FILE": write
// what came since it was asked last.
func apiCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	switch args[0] {
	case "revoke":
		if !s.Sandbox.RevokeToken(s.api.last()) {
			ts.Fatalf("no such token")
		}
	case "away", "back":
		s.api.away.Store(args[0] == "away")
	case "log":
		s.api.mu.Lock()
		defer s.api.mu.Unlock()
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(s.api.log, "\n")+"\n"), 0o600))
		s.api.log = nil
	default:
		ts.Fatalf("api %s?", args[0])
	}
}

func TestABearerIsReadInBothForms(t *testing.T) {
	for want, header := range map[string]string{"abc": "Bearer abc", "xyz": "Basic " + base64.StdEncoding.EncodeToString([]byte("me:xyz")), "": "Other abc"} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("Authorization", header)
		if got := bearer(r); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
}
