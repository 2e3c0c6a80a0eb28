package main

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// served is a running "tokenctl sandbox serve".
type served struct {
	URL     string            `json:"url"`
	Control string            `json:"control"`
	CAFile  string            `json:"ca_file"`
	Issuers map[string]string `json:"issuers"`
	stop    func() error
}

// serveSandbox starts one in a directory.
func serveSandbox(t testing.TB, dir string, args ...string) *served {
	t.Helper()
	cmd := exec.Command("tokenctl", append([]string{"sandbox", "serve", "-o", "json"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	s := &served{stop: func() error {
		if ended {
			return nil
		}
		ended = true
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			return err
		}
		return cmd.Wait()
	}}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("tokenctl sandbox serve: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return s
}

// TestSandboxScript runs testdata/sandbox: a sandbox and those who steer it, without a broker.
func TestSandboxScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/sandbox", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			s := serveSandbox(env.T().(testing.TB), env.WorkDir)
			env.Setenv("TOKENBROKER_SANDBOX", s.Control)
			env.Setenv("SANDBOX", s.URL)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exitsWith},
	})
}

func TestASandboxCleansUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serveSandbox(t, dir)
	if _, err := os.Stat(s.CAFile); err != nil || s.CAFile != filepath.Join(dir, "sandbox-ca.pem") || s.Issuers["acme"] != s.URL+"/acme" {
		t.Errorf("got %+v, %v", s, err)
	}
	second := exec.Command("tokenctl", "sandbox", "serve")
	second.Dir = dir
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "--ca-file: file exists") {
		t.Errorf("got %s, %v for a file that is there", out, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v, want nothing left", left, err)
	}
}

// fences finds the blocks of code in a page.
var fences = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// TestTheSandboxPageIsTrue runs the examples of docs/sandbox.md, at other ports.
func TestTheSandboxPageIsTrue(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for _, f := range fences.FindAllStringSubmatch(string(page), -1) {
		blocks[f[1]] = append(blocks[f[1]], f[2])
	}
	for _, text := range blocks["yaml"] {
		s, err := sandbox.ParseScenario([]byte(text))
		if err == nil {
			_, err = s.New()
		}
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
	example, err := os.ReadFile("../../sandbox/example_test.go")
	if err != nil || len(blocks["go"]) != 1 || !strings.Contains(string(example), blocks["go"][0]) {
		t.Errorf("the Go block is not in sandbox/example_test.go, which runs (%v)", err)
	}
	if len(blocks["yaml"]) != 1 || len(blocks["sh"]) < 2 {
		t.Fatalf("got %d yaml and %d sh blocks", len(blocks["yaml"]), len(blocks["sh"]))
	}
	runShell(t, blocks["sh"])
}

// runShell starts what the first block starts, and runs the others.
func runShell(t *testing.T, blocks []string) {
	t.Helper()
	start := strings.Fields(blocks[0])
	if len(start) < 3 || strings.Join(start[:3], " ") != "tokenctl sandbox serve" {
		t.Fatalf("got %q, want it to serve", blocks[0])
	}
	flags := strings.NewReplacer("127.0.0.1:9443", "127.0.0.1:0", "127.0.0.1:9000", "127.0.0.1:0").Replace(strings.Join(start[3:], " "))
	dir := t.TempDir()
	s := serveSandbox(t, dir, strings.Fields(flags)...)
	at := strings.NewReplacer("127.0.0.1:9443", host(t, s.URL), "127.0.0.1:9000", host(t, s.Control))
	cmd := exec.Command("sh", "-eux", "-c", at.Replace(strings.Join(blocks[1:], "\n")))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func host(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
