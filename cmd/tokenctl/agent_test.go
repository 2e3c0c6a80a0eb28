package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agentProcess is a running "tokenctl agent".
type agentProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string // of standard error
	heard  strings.Builder
	socket string
	trail  string
}

// startAgent runs the command with a config until the test ends, and waits until it is ready.
func (w *world) startAgent(t *testing.T, config string, args ...string) *agentProcess {
	t.Helper()
	p := &agentProcess{t: t, lines: make(chan string, 1000), socket: filepath.Join(w.dir, "run", "agent.sock"), trail: filepath.Join(w.dir, "agent.jsonl")}
	args = append([]string{"agent", "--socket", p.socket, "--audit", p.trail}, args...)
	if config != "" {
		w.write("agent.yaml", []byte(config))
		args = append(args, "--config", filepath.Join(w.dir, "agent.yaml"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cmd = exec.CommandContext(ctx, "tokenctl", args...)
	p.cmd.Env = append(w.environ(), "NOTIFY_SOCKET="+filepath.Join(w.dir, "notify"))
	pipe, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { cancel(); p.drain(); _ = p.cmd.Wait() })
	p.await("READY socket=unix://" + p.socket)
	return p
}

// await waits for a line that holds a text.
func (p *agentProcess) await(text string) string {
	p.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		select {
		case line, more := <-p.lines:
			p.heard.WriteString(line + "\n")
			if strings.Contains(line, text) {
				return line
			}
			if !more {
				p.t.Fatalf("the agent ended without %q:\n%s", text, p.heard.String())
			}
		case <-end.C:
			p.t.Fatalf("%q does not come:\n%s", text, p.heard.String())
		}
	}
}

func (p *agentProcess) drain() {
	for line := range p.lines {
		p.heard.WriteString(line + "\n")
	}
}

// signal sends a signal.
func (p *agentProcess) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end ends the agent in order.
func (p *agentProcess) end() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.drain()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the agent ended with %v:\n%s", err, p.heard.String())
	}
}

// curl runs curl against the agent's socket.
func (p *agentProcess) curl(path string) string {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), "curl", "-sS", "--unix-socket", p.socket, "http://localhost"+path).Output()
	if err != nil {
		p.t.Fatalf("curl %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

func TestAnAgentServesTheJobsOfItsHost(t *testing.T) {
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(w.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	p := w.startAgent(t, "version: 1\naudit: {checkpoint_key_file: audit.key, checkpoint_file: points.jsonl}\n", "--http", "127.0.0.1:0", "--bearer-file", filepath.Join(w.dir, "bearer"),
		"--metadata", "127.0.0.1:0", "--metadata-credential", "example/api")
	message := make([]byte, 100)
	if n, err := told.Read(message); err != nil || string(message[:n]) != "READY=1" {
		t.Errorf("the service manager was told %q, %v, want READY=1", message[:n], err)
	}
	token := p.curl("/v1/token/example/api?format=token")
	if !w.Sandbox.Valid(token) {
		t.Errorf("curl: the provider does not take what it got")
	}
	w.secrets = append(w.secrets, token)

	// tokenctl itself works against it, without a certificate.
	cmd := exec.Command("tokenctl", "get", "example/api")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TOKENBROKER_ADDR=unix://" + p.socket}
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != token {
		t.Errorf("tokenctl get: got %v, want the same token", err)
	}
	p.end()
	if strings.Contains(p.heard.String(), token) {
		t.Error("the agent printed the token")
	}
	in := func(name string) string { return filepath.Join(w.dir, name) }
	if got := w.tokenctl(t, "audit", "verify", p.trail, "--key", in("audit.pub"), "--checkpoints", in("points.jsonl")); !strings.Contains(got, "1 to 5") {
		t.Errorf("the trail, with a checkpoint at its end: got\n%s", got)
	}
	for _, path := range []string{p.socket, filepath.Join(w.dir, "bearer")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: got %v, want it gone", path, err)
		}
	}
}

func TestAnAgentTakesUpOtherRulesOrStaysAsItIs(t *testing.T) {
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	config := func(credentials string) string {
		return fmt.Sprintf("version: 1\nrules:\n  - name: me\n    users: [%d]\n    credentials: [%q]\n", os.Getuid(), credentials)
	}
	p := w.startAgent(t, config("elsewhere/*"))
	if got := p.curl("/v1/token/example/api"); !strings.Contains(got, "CREDENTIAL_NOT_FOUND") {
		t.Errorf("got %s, want CREDENTIAL_NOT_FOUND", got)
	}
	w.write("agent.yaml", []byte(config("example/*")+"    colour: green\n"))
	p.signal(syscall.SIGHUP)
	p.await("all stays as it was")
	w.write("agent.yaml", []byte("socket: /elsewhere\n"+config("example/*")+"metadata: {listen: 127.0.0.1:1, credential: a/b}\n"))
	p.signal(syscall.SIGHUP)
	p.await("restart the agent for another metadata")
	if got := p.curl("/v1/token/example/api"); !strings.Contains(got, "CREDENTIAL_NOT_FOUND") {
		t.Errorf("after two that are wrong: got %s, want CREDENTIAL_NOT_FOUND", got)
	}
	w.write("agent.yaml", []byte(config("example/*")))
	p.signal(syscall.SIGHUP)
	p.await("are in force")
	if got := p.curl("/v1/token/example/api?format=token"); !w.Sandbox.Valid(got) {
		t.Error("by the new rules there is no token")
	}
	p.end()
}

func TestAnAgentOutlivesABrokerThatRestarts(t *testing.T) {
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	p := w.startAgent(t, "")
	before := p.curl("/v1/token/example/api?format=token")
	w.Shutdown()
	if got := p.curl("/v1/token/example/api?format=token"); got != before {
		t.Error("while the broker is away: not the last good token")
	}
	p.end()
}

func TestAConfigOfAnAgentIsReadStrictly(t *testing.T) {
	for want, text := range map[string]string{
		`write "version: 1"`:             "rules: [{name: x, users: [0], credentials: [a/b]}]",
		"unknown field":                  "version: 1\ncolour: green",
		"empty list":                     "version: 1\nrules: []",
		`there is no user "nosuchuser"`:  "version: 1\nrules: [{name: x, users: [nosuchuser], credentials: [a/b]}]",
		`there is no group "nosuchgrp"`:  "version: 1\nrules: [{name: x, groups: [nosuchgrp], credentials: [a/b]}]",
		"no user or group":               "version: 1\nrules: [{name: x, users: [-1], credentials: [a/b]}]",
		"characters that no name":        "version: 1\nrules: [{name: x, users: [0], credentials: [A/b]}]",
		"give refuse or as_own_user":     "version: 1\nunidentified_callers: all",
		"give a number above 0":          "version: 1\ntokens_per_user: -1",
		"or leave it out for 512":        "version: 1\ntokens_per_user: 0",
		"or leave it out for 500":        "version: 1\ncalls_per_user: 0",
		"give a number from 1 to":        "version: 1\ncalls_per_user: 9000000",
		"restart the agent for another ": "",
	} {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := agentSettings{config: path, socket: "/run/x.sock", audit: "/var/x"}
		cfg, err := s.load()
		if text == "" {
			cfg.Socket = "/run/x.sock"
			other := cfg
			other.Socket = "/elsewhere"
			err = sameButRules(cfg, other)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(`version: 1
socket: run/agent.sock
audit_file: audit.jsonl
audit: {checkpoint_key_file: audit.key, checkpoint_file: /mnt/points.jsonl}
unidentified_callers: as_own_user
tokens_per_user: 2000
calls_per_user: 50
http: {listen: "127.0.0.1:8173", bearer_file: bearer}
metadata: {listen: "127.0.0.1:8174", credential: example/drive, ignore_scopes: true}
rules:
  - name: reports
    users: [0, "7"]
    groups: [12]
    credentials: ["example/*"]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := agentSettings{config: path, http: "127.0.0.1:9"}
	if _, err := s.load(); err == nil {
		t.Fatalf("a user named 7: got no error, want that there is none")
	}
	_ = os.WriteFile(path, []byte(strings.Replace(readIfThere(path), `"7"`, "7", 1)), 0o600)
	cfg, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Dir(path)
	if cfg.Socket != in+"/run/agent.sock" || cfg.AuditFile != in+"/audit.jsonl" || cfg.BearerFile != in+"/bearer" || cfg.Checkpoints.KeyFile != in+"/audit.key" || cfg.Checkpoints.File != "/mnt/points.jsonl" || cfg.HTTP != "127.0.0.1:9" ||
		!cfg.UnidentifiedAsOwn || cfg.TokensPerUser != 2000 || cfg.CallsPerUser != 50 || !cfg.Metadata.IgnoreScopes || len(cfg.Rules) != 1 || cfg.Rules[0].UIDs[1] != 7 || cfg.Rules[0].GIDs[0] != 12 {
		t.Errorf("got %+v, want what the file says, with the flag over it", cfg)
	}
}

// An exit status of 2 is for the command line, 7 for what else has to be corrected: a supervisor's unit is not wrong because the config is.
func TestAnAgentThatCanNotServeSaysWhy(t *testing.T) {
	w := newWorld(t, folder(t))
	file := filepath.Join(w.dir, "agent.yaml")
	for _, row := range []struct {
		want   string
		exit   int
		config string
		args   []string
	}{
		{`--http: "0.0.0.0:0" is no address as 127.0.0.1:8173`, exitUsage, "", []string{"--http", "0.0.0.0:0", "--bearer-file", filepath.Join(w.dir, "b")}},
		{"--bearer-file: is missing", exitUsage, "", []string{"--http", "127.0.0.1:0"}},
		{`--metadata: "10.0.0.1:1" is no address`, exitUsage, "", []string{"--metadata", "10.0.0.1:1", "--metadata-credential", "a/b"}},
		{"--metadata-credential: the credential", exitUsage, "", []string{"--metadata", "127.0.0.1:0"}},
		{"--metadata-credential: the credential", exitUsage, "metadata: {credential: a/b}", []string{"--metadata", "127.0.0.1:0", "--metadata-credential", "No Name"}},
		{file + `: http.listen: "0.0.0.0:0" is no address`, exitFix, `http: {listen: "0.0.0.0:0", bearer_file: b}`, nil},
		{file + ": http.bearer_file: is missing", exitFix, `http: {listen: "127.0.0.1:0"}`, nil},
		{file + ": metadata.credential: the credential", exitFix, `metadata: {credential: No Name}`, []string{"--metadata", "127.0.0.1:0"}},
		{file + ": metadata.email: is no address", exitFix, `metadata: {listen: "127.0.0.1:0", credential: a/b, email: a b}`, nil},
		{file + `: rules: rule "x" names no credential`, exitFix, "rules: [{name: x, users: [0]}]", nil},
		{file + `: rules: rule "x": users: there is no user`, exitFix, "rules: [{name: x, users: [nosuchuser], credentials: [a/b]}]", nil},
		{file + ": audit.checkpoint_file is of no use", exitFix, "audit: {checkpoint_file: points}", nil},
		{"unknown field", exitFix, "colour: green", nil},
		{"none.yaml: no such file", exitFix, "", []string{"--config", filepath.Join(w.dir, "none.yaml")}},
		{"socket's folder", exitFix, "", []string{"--socket", filepath.Join(w.dir, "no", "such", "a.sock")}},
		{"GOTRACEBACK", exitFix, "", nil},
	} {
		args := append([]string{"agent", "--socket", filepath.Join(w.dir, "a.sock"), "--audit", filepath.Join(w.dir, "x")}, row.args...)
		if row.config != "" {
			w.write("agent.yaml", []byte("version: 1\n"+row.config+"\n"))
			args = append(args, "--config", file)
		}
		cmd := exec.Command("tokenctl", args...)
		if cmd.Env = w.environ(); row.want == "GOTRACEBACK" {
			cmd.Env = append(cmd.Env, "GOTRACEBACK=crash")
		}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != row.exit || !strings.Contains(string(out), row.want) {
			t.Errorf("%s %v: got exit status %d and\n%s\nwant %d and %q", row.config, row.args, got, out, row.exit, row.want)
		}
	}
}

// folder is a temporary folder with a path that is short enough for a socket.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestWhoAsksAnAgentIsSentToItsHostNotToTheBrokers(t *testing.T) {
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	config := func(uid int) string {
		return fmt.Sprintf("version: 1\nrules:\n  - name: one\n    users: [%d]\n    credentials: [\"**\"]\n", uid)
	}
	p := w.startAgent(t, config(os.Getuid()+1))
	get := func(status int, wants ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "tokenctl", "get", "example/api")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TOKENBROKER_ADDR=unix://" + p.socket}
		out, _ := cmd.CombinedOutput()
		for _, want := range wants {
			if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(string(out), want) || strings.Contains(string(out), "broker's") || strings.Contains(string(out), "  do ") {
				t.Errorf("got exit status %d and\n%s\nwant %d, %q and nothing of the broker's", got, out, status, want)
			}
		}
	}
	get(exitNotFound, "no rule of the agent on this host (agent.yaml) is for this user", "whoever runs the agent on this host")
	w.write("agent.yaml", []byte(config(os.Getuid())))
	p.signal(syscall.SIGHUP)
	p.await("are in force")
	if err := errors.Join(os.Remove(p.trail), os.Mkdir(p.trail, 0o700)); err != nil { // where the trail was is a folder now
		t.Fatal(err)
	}
	get(exitLater, "the agent's audit log can't be written", "on this host has to look at the disk of the agent's audit log")
	p.await("the audit trail can't be written")
	if err := os.Remove(p.trail); err != nil {
		t.Fatal(err)
	}
	p.await("the audit trail can be written again")
	p.end()
}
