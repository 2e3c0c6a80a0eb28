package main

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// TestScript runs testdata/script: the command as a person at a terminal, or a cron job, meets it. Each script has a broker of its own. When
// all have run, nothing that they printed may hold a secret.
func TestScript(t *testing.T) {
	t.Parallel()
	heard := &transcript{}
	t.Run("group", func(t *testing.T) {
		testscript.RunT(listener{t, heard}, testscript.Params{
			Dir:                 "testdata/script",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Setup: func(env *testscript.Env) error {
				w := newWorld(env.T().(testing.TB), env.WorkDir)
				heard.join(w)
				for name, value := range w.env() {
					env.Setenv(name, value)
				}
				env.Setenv("esc", "a\x1b[31mb")
				env.Setenv("turn", "a\u202eb") // what follows runs from right to left
				env.Values[worldKey{}] = w
				env.Values[apiKey{}] = new(*api)
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exits": exitsWith, "eventually": eventually, "sandbox": sandboxCommand, "broker": brokerCommand, "certificate": certificateCommand, "person": personCommand,
				"api": apiCommand,
			},
		})
	})
	heard.search(t)
	if !strings.Contains(heard.text.String(), "NAME ") {
		t.Errorf("the transcript is not one: no list in it")
	}
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// listener is a test whose log is listened to. It is verbose, so that testscript leaves nothing out.
type listener struct {
	*testing.T
	heard *transcript
}

// Run implements testscript.T.
func (l listener) Run(name string, f func(testscript.T)) {
	l.T.Run(name, func(t *testing.T) { f(listener{t, l.heard}) })
}

// Verbose implements testscript.T.
func (l listener) Verbose() bool { return true }

// Log implements testscript.T.
func (l listener) Log(args ...any) {
	l.heard.hear(fmt.Sprintln(args...))
	l.T.Log(args...)
}

// exitsWith is "exits STATUS COMMAND…": the command ends with that exit status.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	if got := ended(ts, args[1:]); strconv.Itoa(got) != args[0] {
		ts.Fatalf("got exit status %d, want %s", got, args[0])
	}
}

func ended(ts *testscript.TestScript, command []string) int {
	err := ts.Exec(command[0], command[1:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	ts.Check(err)
	return 0
}

// eventually is "eventually PATTERN COMMAND…": the command is run until it prints the pattern.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = ended(ts, args[1:])
		if want.MatchString(ts.ReadFile("stdout")) || want.MatchString(ts.ReadFile("stderr")) {
			return
		}
	}
	ts.Fatalf("%q does not come", args[0])
}

// sandboxCommand is what happens at a provider.
func sandboxCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	switch verb := args[0]; verb {
	case "seed": // ISSUER FILE SCOPE…: somebody consents; the refresh token is in the file
		w.seed(args[1], args[2], args[3:]...)
	case "key": // ISSUER EMAIL FILE: the provider's console makes a key for a service account
		w.write(args[3], w.Sandbox.AddServiceAccountKey(args[1], args[2], "https://sandbox.example"))
	case "revoke": // FILE: the user takes the consent back
		if !w.Sandbox.RevokeFamily(strings.TrimSpace(ts.ReadFile(args[1]))) {
			ts.Fatalf("no such refresh token")
		}
	case "down": // ISSUER
		w.Sandbox.Fail(args[1], sandbox.Fault{Times: sandbox.Forever, Refuse: true})
	case "busy": // ISSUER
		w.Sandbox.Fail(args[1], sandbox.Fault{Times: sandbox.Forever, Status: 429, RetryAfter: 90 * time.Second})
	case "hang": // ISSUER
		w.Sandbox.Fail(args[1], sandbox.Fault{Times: sandbox.Forever, Hang: true})
	case "up": // ISSUER
		w.Sandbox.Clear(args[1])
		w.Sandbox.Release(args[1])
	default:
		ts.Fatalf("sandbox %s?", verb)
	}
}

// brokerCommand is what happens to the broker.
func brokerCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	switch verb := args[0]; verb {
	case "stop":
		w.Shutdown()
	case "start":
		w.Restart()
	case "policy": // FILE
		w.SetPolicy(ts.ReadFile(args[1]))
	default:
		ts.Fatalf("broker %s?", verb)
	}
}

// certificateCommand makes NAME.pem and NAME.key: "for" an identity, "expired", or of "another" CA, whose own is in NAME-ca.pem.
func certificateCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	switch verb := args[0]; verb {
	case "for":
		w.certificate(args[2], args[1])
	case "expired":
		w.expired(args[1])
	case "another":
		w.otherCA(args[1])
	default:
		ts.Fatalf("certificate %s?", verb)
	}
}
