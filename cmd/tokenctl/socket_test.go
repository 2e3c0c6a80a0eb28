package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/client"
)

func TestASocketOfThisHostWantsNoCertificate(t *testing.T) {
	for _, name := range []string{"CA", "CERT", "KEY", "SERVER_NAME", "WORKLOAD_API"} {
		t.Setenv("TOKENBROKER_"+name, "")
	}
	t.Setenv("TOKENBROKER_ADDR", "unix:///run/agent.sock")
	c := &cli{}
	got, err := c.config()
	if err != nil || got.Addr != "unix:///run/agent.sock" {
		t.Errorf("got %q and %v, want the socket", got.Addr, err)
	}
	c.addr = "127.0.0.1:8443"
	if _, err = c.config(); err == nil {
		t.Error("got no error for an address without certificates: the flag wins")
	}
	t.Setenv("TOKENBROKER_ADDR", "127.0.0.1:8443")
	t.Setenv("TOKENBROKER_CERT", "nowhere.pem")
	c.addr = "unix:///run/other.sock"
	got, err = c.config()
	if err != nil || got.Addr != c.addr || got.Server != "" || got.Files.Cert != "" {
		t.Errorf("got %+v and %v, want the socket, with no certificate", got, err)
	}
}

func TestAnAddressThatIsNoneIsExplainedAsOne(t *testing.T) {
	for _, name := range []string{"CA", "CERT", "KEY", "SERVER_NAME", "WORKLOAD_API"} {
		t.Setenv("TOKENBROKER_"+name, "")
	}
	for addr, want := range map[string]string{"unix://nope.sock": "check --addr", "/nope.sock": "unix:///nope.sock"} {
		t.Setenv("TOKENBROKER_ADDR", addr)
		_, err := (&cli{timeout: patience}).connect()
		f, ok := errors.AsType[*failure](err)
		if !ok || f.exit != exitUsage || !strings.Contains(f.action, want) || strings.Contains(f.text(), "--cert") {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
		if _, err := client.NewFromEnv(); !errors.Is(err, client.ErrAddress) {
			t.Errorf("%s: got %v, want that it is no address", addr, err)
		}
	}
}

func TestASocketThatDoesNotAnswerIsExplained(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.sock")
	look := func() *failure { return diagnose(t.Context(), client.Config{Addr: "unix://" + path}, time.Minute) }
	if f := look(); f == nil || f.exit != exitLater || f.what != "there is no socket "+path {
		t.Errorf("got %+v, want that there is none", f)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if f := look(); f != nil {
		t.Errorf("got %+v, want nothing: somebody listens", f)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if f := look(); f == nil || f.exit != exitLater {
		t.Errorf("got %+v, want that nobody listens", f)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestAnAgentServesEachCommandForScripts runs them all through a real agent's socket, with no certificate.
func TestAnAgentServesEachCommandForScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	w.AddRefreshToken("example/api", "rotating", "files.read")
	a := startAPI(t, w)
	p := w.startAgent(t, "")
	run := func(status int, in string, args ...string) string {
		t.Helper()
		cmd := exec.Command("tokenctl", args...)
		cmd.Env = append(os.Environ(), "TOKENBROKER_ADDR=unix://"+p.socket, "TOKENBROKER_CA=", "TOKENBROKER_CERT=", "TOKENBROKER_KEY=",
			"XDG_RUNTIME_DIR="+w.dir, "CURL_CA_BUNDLE="+filepath.Join(w.dir, "api-ca.pem"))
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != status {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	token := strings.TrimSpace(run(0, "", "get", "example/api"))
	if !w.Sandbox.Valid(token) {
		t.Error("got no token")
	}
	for want, got := range map[string]string{
		"Authorization: Bearer " + token + "\n": run(0, "", "header", "example/api"),
		`"token":"` + token + `"`:               run(0, "", "get", "example/api", "-o", "exec-credential"),
		"password=" + token + "\n":              run(0, "protocol=https\nhost=a.example\n\n", "git-credential", "--host", "a.example", "example/api", "get"),
		token + "\n":                            run(0, "", "exec", "--file", "F=example/api", "--", "sh", "-c", `cat "$F"; echo`),
		"reports\n":                             run(0, "", "curl", "example/api", "--", "-fsS", a.tls.URL+"/reports"),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !a.revoke() {
		t.Fatal("no such token")
	}
	if got := run(0, "", "curl", "example/api", "--", "-fsS", a.tls.URL+"/reports"); got != "reports\n" {
		t.Errorf("got %q, want the answer to a newer token", got)
	}
	run(0, "", "file", "--once", filepath.Join(w.dir, "token")+"=example/api")
	if newer := readIfThere(filepath.Join(w.dir, "token")); newer == token || !w.Sandbox.Valid(newer) {
		t.Error("got no newer token")
	}
	p.end()
	run(exitLater, "", "header", "example/api")
}
