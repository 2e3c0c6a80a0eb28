package agent_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
)

// at is where the agent has a listener of a name, as host:port.
func (w *world) at(name string) string {
	w.t.Helper()
	for _, a := range w.Addrs() {
		if a.Name == name {
			return strings.TrimPrefix(a.URL, "http://")
		}
	}
	w.t.Fatalf("there is no listener %s", name)
	return ""
}

// tcp sends a request to a loopback port.
func (w *world) tcp(name, method, path, body string, headers ...string) reply {
	w.t.Helper()
	at := w.at(name)
	return w.send(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", at) }, method, "http://"+at+path, body, headers...)
}

func google(c *agent.Config) {
	c.Metadata = agent.Metadata{Listen: "127.0.0.1:0", Credential: "example/api", Email: "reports@proj.iam.example", Project: "proj"}
}

func TestTheMetadataServerAnswersAsSDKsAsk(t *testing.T) {
	w := start(t, google)
	flavor := []string{"Metadata-Flavor", "Google"}
	const accounts = "/computeMetadata/v1/instance/service-accounts/"
	for path, want := range map[string]string{
		"/":                                      "computeMetadata/\n",
		"/computeMetadata/v1/instance":           "service-accounts/\n",
		"/computeMetadata/v1/project/project-id": "proj",
		"/computeMetadata/v1/universe/universe-domain": "googleapis.com",
		accounts:                             "default/\nreports@proj.iam.example/\n",
		accounts + "default/email":           "reports@proj.iam.example",
		accounts + "default/scopes":          "files.read\nfiles.write\n",
		accounts + "default/aliases":         "default\n",
		accounts + "default/?recursive=true": `{"aliases":["default"],"email":"reports@proj.iam.example","scopes":["files.read","files.write"]}` + "\n",
	} {
		r := w.tcp("metadata", "GET", path, "", flavor...)
		if r.code() != 200 || r.text != want || r.Header.Get("Metadata-Flavor") != "Google" {
			t.Errorf("%s: got %d %q, want %q of the flavor Google", path, r.code(), r.text, want)
		}
	}
	if r := w.tcp("metadata", "GET", accounts+"?recursive=true", "", flavor...); r.field("default", "email") != "reports@proj.iam.example" {
		t.Errorf("all accounts: got %s", r.text)
	}
	for _, path := range []string{"default/token", "reports@proj.iam.example/token?scopes=files.read"} {
		r := w.tcp("metadata", "GET", accounts+path, "", flavor...)
		token, _ := r.field("access_token").(string)
		if r.code() != 200 || !w.Sandbox.Valid(token) || r.field("token_type") != "Bearer" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d, want a token that the provider takes", path, r.code())
		}
	}
	if e := w.last("token.get"); e.Identity != identity() || !strings.HasPrefix(e.Peer, "127.0.0.1:") || len(e.ScopesAsked) != 1 {
		t.Errorf("got record of %s at %s for %v, want the uid that the kernel names", e.Identity, e.Peer, e.ScopesAsked)
	}
}

func TestTheMetadataServerAnswersNobodyElse(t *testing.T) {
	w := start(t, google)
	const token = "/computeMetadata/v1/instance/service-accounts/default/token"
	for name, c := range map[string]struct {
		path    string
		headers []string
		status  int
		text    string
	}{
		"without the flavor":     {token, nil, 403, "Metadata-Flavor"},
		"of another flavor":      {token, []string{"Metadata-Flavor", "Vanilla"}, 403, "Metadata-Flavor"},
		"by a proxy":             {token, []string{"Metadata-Flavor", "Google", "X-Forwarded-For", "10.0.0.1"}, 403, "proxy"},
		"by a page":              {token, []string{"Metadata-Flavor", "Google", "Origin", "https://evil.example"}, 403, "browsers"},
		"by a name led here":     {token, []string{"Metadata-Flavor", "Google", "Host", "evil.example"}, 403, "another host"},
		"an identity token":      {strings.Replace(token, "/token", "/identity?audience=x", 1), []string{"Metadata-Flavor", "Google"}, 404, "identity tokens"},
		"another account":        {strings.Replace(token, "default", "other@x", 1), []string{"Metadata-Flavor", "Google"}, 404, "service account"},
		"an entry there is not":  {strings.Replace(token, "/token", "/keys", 1), []string{"Metadata-Flavor", "Google"}, 404, "entry"},
		"a project without name": {"/computeMetadata/v1/project/numeric-project-id", []string{"Metadata-Flavor", "Google"}, 404, "numeric_project_id"},
		"a scope it has not":     {token + "?scopes=cloud-platform", []string{"Metadata-Flavor", "Google"}, 403, "SCOPE_NOT_ALLOWED"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.tcp("metadata", "GET", c.path, "", c.headers...)
			if r.code() != c.status || !strings.Contains(r.text, c.text) {
				t.Errorf("got %d %s, want %d and %q", r.code(), r.text, c.status, c.text)
			}
		})
	}
}

func TestScopesThatSDKsAskForCanBePassedOver(t *testing.T) {
	w := start(t, google, func(c *agent.Config) { c.Metadata.IgnoreScopes = true })
	r := w.tcp("metadata", "GET", "/computeMetadata/v1/instance/service-accounts/default/token?scopes=cloud-platform", "", "Metadata-Flavor", "Google")
	if r.code() != 200 {
		t.Errorf("got %d %s, want 200", r.code(), r.text)
	}
}

func loopback(dir string) func(*agent.Config) {
	return func(c *agent.Config) { c.HTTP, c.BearerFile = "127.0.0.1:0", filepath.Join(dir, "bearer") }
}

func TestTheLoopbackPortWantsItsSecret(t *testing.T) {
	dir := t.TempDir()
	w := start(t, loopback(dir))
	path := filepath.Join(dir, "bearer")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v, want a file of mode 0600", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "Authorization: ")
	if !ok || len(secret) != len("Bearer ")+43 {
		t.Fatalf("got a file of %d bytes, want one header with 256 bits", len(data))
	}
	if r := w.tcp("http", "GET", "/v1/token/example/api", "", "Authorization", secret); r.code() != 200 {
		t.Errorf("with the secret: got %d %s, want 200", r.code(), r.text)
	}
	if e := w.last("token.get"); e.Identity != identity() || !strings.HasPrefix(e.Peer, "127.0.0.1:") {
		t.Errorf("got record of %s at %s, want the uid that the kernel names", e.Identity, e.Peer)
	}
	for name, headers := range map[string][]string{"none": nil, "another": {"Authorization", secret + "x"}, "no scheme": {"Authorization", secret[7:]}} {
		if r := w.tcp("http", "GET", "/v1/token/example/api", "", headers...); r.code() != 401 || r.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: got %d, want 401", name, r.code())
		}
	}
	if r := w.tcp("http", "GET", "/v1/token/example/api", "", "Authorization", secret, "Host", "evil.example:80"); r.code() != 403 {
		t.Errorf("by a name led here: got %d, want 403", r.code())
	}
	w.stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("got %v, want the file gone with the agent", err)
	}
}

func TestAnAgentServesItsOwnHostAlone(t *testing.T) {
	w := start(t)
	w.stop()
	for name, change := range map[string]func(*agent.Config){
		"every address":    func(c *agent.Config) { c.HTTP, c.BearerFile = "0.0.0.0:0", filepath.Join(w.dir, "b") },
		"a name":           func(c *agent.Config) { c.HTTP, c.BearerFile = "localhost:0", filepath.Join(w.dir, "b") },
		"no host":          func(c *agent.Config) { c.HTTP, c.BearerFile = ":0", filepath.Join(w.dir, "b") },
		"no bearer file":   func(c *agent.Config) { c.HTTP = "127.0.0.1:0" },
		"metadata for all": func(c *agent.Config) { c.Metadata = agent.Metadata{Listen: "0.0.0.0:0", Credential: "a/b"} },
		"metadata of none": func(c *agent.Config) { c.Metadata = agent.Metadata{Listen: "127.0.0.1:0"} },
		"an email that is a path": func(c *agent.Config) {
			c.Metadata = agent.Metadata{Listen: "127.0.0.1:0", Credential: "a/b", Email: "a/b"}
		},
	} {
		c := w.upstream()
		cfg := agent.Config{Client: c, Socket: w.socket, AuditFile: w.trail}
		change(&cfg)
		if a, err := agent.Open(t.Context(), cfg); err == nil {
			a.Close()
			t.Errorf("%s: it opens", name)
		}
		_ = c.Close()
	}
}
