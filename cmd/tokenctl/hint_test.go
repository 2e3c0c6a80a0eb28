package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/client"
)

func TestAMistakeOnTheCommandLineIsAnsweredWithWhatIsRight(t *testing.T) {
	t.Setenv("TOKENBROKER_ADDR", "unix:///nowhere/agent.sock")
	for want, args := range map[string][]string{
		"curl's own arguments come after --":    {"curl", "example/api", "-fsS", "https://api.example"},
		"tokenctl curl CREDENTIAL -- -fsS URL":  {"curl", "example/api", "--silent", "https://api.example"},
		"write 127.0.0.1":                       {"curl", "example/api", "--loopback-http", "--", "http://localhost:1/"},
		"header has no -o: tokenctl get has it": {"header", "example/api", "-o", "table"},
		"no -o: tokenctl get has it":            {"header", "example/api", "--output=table"},
		"tokenctl report has no -o do":          {"report", "example/api", "-ojson"},
		"--format goes with --file":             {"exec", "--env", "T=example/api", "--format", "header", "--", "true"},
		"can't run no-such-command-here":        {"exec", "--env", "T=example/api", "--", "no-such-command-here"},
		"--format json has the time":            {"file", "--help"},
	} {
		var out bytes.Buffer
		c := &cli{in: strings.NewReader(""), out: &out, errs: &out}
		c.run(t.Context(), args)
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) { // help breaks lines anywhere
			t.Errorf("%v: got %q, want %q", args, out.String(), want)
		}
	}
}

func TestAnAgentsSocketIsNoPlaceForOperators(t *testing.T) {
	s := &session{cli: &cli{timeout: patience}, cfg: client.Config{Addr: "unix:///run/agent.sock"}}
	err := s.explain(t.Context(), status.Error(codes.Unimplemented, "unknown service tokenbroker.v1.CredentialService"), target{})
	f, ok := errors.AsType[*failure](err)
	if !ok || f.exit != exitFix || !strings.Contains(f.what, "is an agent") || !strings.Contains(f.action, "the broker's address") {
		t.Errorf("got %+v, want that it is an agent's socket", err)
	}
}

func TestWhoIsKeptFromASocketIsToldHowToBeLetIn(t *testing.T) {
	f := noSocket("/run/agent.sock", &net.OpError{Op: "dial", Err: fs.ErrPermission})
	if f.exit != exitDenied || !strings.Contains(f.action, "a rule in the agent's config") {
		t.Errorf("got %+v, want how to be let in", f)
	}
}

// TestOperatorsCommandsAtARealAgent asks a real agent for what only a broker has.
func TestOperatorsCommandsAtARealAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	p := w.startAgent(t, "")
	cmd := exec.Command("tokenctl", "credential", "list")
	cmd.Env = append(w.environ(), "TOKENBROKER_ADDR=unix://"+p.socket, "XDG_RUNTIME_DIR="+filepath.Join(w.dir, "x"))
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exitFix || !strings.Contains(string(out), "is an agent") {
		t.Errorf("got %d %s, want %d and that it is an agent", got, out, exitFix)
	}
}
