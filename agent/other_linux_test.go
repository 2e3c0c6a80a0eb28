package agent_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
)

// The uid and the groups of another user: nobody's on most systems.
const (
	otherUID   = 65534
	otherGID   = 65533
	otherGroup = 54321 // a supplementary one
)

// curlAs runs curl as another user, which takes root; whoever is not root may be himself alone.
func (w *world) curlAs(uid uint32, args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--max-time", "50"}, args...)...)
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: otherGID, Groups: []uint32{otherGroup}}}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// caller is the uid that curlAs runs as.
func callerUID() uint32 {
	if os.Geteuid() == 0 {
		return otherUID
	}
	return uint32(os.Getuid())
}

func TestAnotherUserGetsWhatARuleGivesHim(t *testing.T) {
	w := start(t, func(c *agent.Config) {
		c.Rules = []agent.Rule{rule(t, "others", []uint32{callerUID()}, nil, "example/*"), rule(t, "me", []uint32{uint32(uid)}, nil, "me/*")}
	})
	out, err := w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/example/api?format=token")
	if err != nil || !w.Sandbox.Valid(strings.TrimSpace(out)) {
		t.Fatalf("got %v, want a token that the provider takes", err)
	}
	e := w.last("token.get")
	if e.Identity != fmt.Sprintf("unix:uid=%d", callerUID()) || e.Rule != "others" || !strings.HasPrefix(e.Peer, "pid=") || e.Peer == fmt.Sprintf("pid=%d", os.Getpid()) {
		t.Errorf("got record of %s at %s by %s, want the other user's process", e.Identity, e.Peer, e.Rule)
	}
	out, _ = w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/private/api")
	if !strings.Contains(out, "CREDENTIAL_NOT_FOUND") {
		t.Errorf("what no rule gives: got %s, want CREDENTIAL_NOT_FOUND", out)
	}
	if e := w.last("token.get"); e.Decision != audit.Deny || e.Code != "CREDENTIAL_NOT_FOUND" || e.Credential != "private/api" {
		t.Errorf("got record %+v, want the denial", e.Record)
	}
}

func TestAGroupGetsWhatARuleGivesIt(t *testing.T) {
	gid := uint32(otherGroup)
	if os.Geteuid() != 0 {
		gid = uint32(os.Getgid())
	}
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "batch", nil, []uint32{gid}, "example/*")} })
	out, err := w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/example/api?format=token")
	if err != nil || !w.Sandbox.Valid(strings.TrimSpace(out)) {
		t.Fatalf("got %v, want a token that the provider takes", err)
	}
	if e, want := w.last("token.get"), fmt.Sprintf("unix:uid=%d,gid=%d", callerUID(), gid); e.Identity != want || e.Rule != "batch" {
		t.Errorf("got record of %s by %s, want %s by the rule of the group", e.Identity, e.Rule, want)
	}
}

func TestWithoutRulesTheAgentsOwnUserAloneIsServed(t *testing.T) {
	w := start(t)
	info, err := os.Stat(w.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a socket of mode 0600", info.Mode(), err)
	}
	if info, err := os.Stat(w.dir + "/run"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want a folder of mode 0700", info.Mode(), err)
	}
	if os.Geteuid() != 0 {
		return // nobody else can be tried
	}
	out, err := w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/example/api")
	if err == nil || strings.Contains(out, "access_token") {
		t.Errorf("another user: got %v %d bytes, want no connection", err, len(out))
	}
	for _, path := range []string{w.dir + "/run", w.socket} { // the modes are not what keeps him out
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, err = w.curlAs(otherUID, "--unix-socket", w.socket, "http://localhost/v1/token/example/api"); err != nil || !strings.Contains(out, "CREDENTIAL_NOT_FOUND") {
		t.Errorf("another user who gets to the socket: got %v %s, want CREDENTIAL_NOT_FOUND", err, out)
	}
}

func TestRootIsNobodySpecial(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "others", []uint32{otherUID}, nil, "example/*")} })
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 404 {
		t.Errorf("got %d, want 404: no rule is for uid %d", r.code(), uid)
	}
	info, err := os.Stat(w.socket)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("got %v, %v, want a socket that others may connect to", info.Mode(), err)
	}
}

func TestTheUserOfALoopbackConnectionIsFound(t *testing.T) {
	w := start(t, google, func(c *agent.Config) {
		c.Rules = []agent.Rule{rule(t, "others", []uint32{callerUID()}, nil, "example/*")}
	})
	url := "http://" + w.at("metadata") + "/computeMetadata/v1/instance/service-accounts/default/token"
	out, err := w.curlAs(otherUID, "-H", "Metadata-Flavor: Google", url)
	if err != nil || !strings.Contains(out, "access_token") {
		t.Errorf("got %v, %d bytes, want a token", err, len(out))
	}
	if e := w.last("token.get"); e.Identity != fmt.Sprintf("unix:uid=%d", callerUID()) || e.Rule != "others" {
		t.Errorf("got record of %s by %q, want the other user", e.Identity, e.Rule)
	}
	if os.Geteuid() != 0 {
		return
	}
	r := w.tcp("metadata", "GET", "/computeMetadata/v1/instance/service-accounts/default/token", "", "Metadata-Flavor", "Google")
	if r.code() != 404 {
		t.Errorf("a user without a rule: got %d, want 404", r.code())
	}
}

func TestDenialsDoNotFillTheTrail(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "others", []uint32{otherUID}, nil, "example/*")} })
	const calls = 60
	busy := 0
	for range calls {
		if r := w.do("GET", "/v1/token/example/api", ""); r.code() == 429 {
			busy++
		}
	}
	denied := 0
	for _, e := range w.records() {
		if e.Decision == audit.Deny {
			denied++
		}
	}
	if busy == 0 || denied >= calls || denied == 0 {
		t.Errorf("got %d records and %d refusals of %d denied calls, want fewer records than calls", denied, busy, calls)
	}
}

func TestWhoWasNotHandedATokenCanNotReportIt(t *testing.T) {
	w := start(t, func(c *agent.Config) {
		c.Rules = []agent.Rule{rule(t, "all", []uint32{uint32(uid), otherUID}, nil, "example/*")}
	})
	generation, _ := w.do("GET", "/v1/token/example/api", "").field("generation").(string)
	report := fmt.Sprintf(`{"generation": %q, "http_status": 401}`, generation)
	if r := w.do("POST", "/v1/rejected/example/api", report); r.code() != 200 {
		t.Errorf("who has it: got %d %s, want 200", r.code(), r.text)
	}
	if r := w.do("POST", "/v1/rejected/example/api?scope=files.read", report); r.code() != 409 {
		t.Errorf("who has another variant: got %d %s, want 409", r.code(), r.text)
	}
	if os.Geteuid() != 0 {
		return
	}
	out, err := w.curlAs(otherUID, "--unix-socket", w.socket, "-d", report, "http://localhost/v1/rejected/example/api")
	if err != nil || !strings.Contains(out, "GENERATION_NOT_HANDED") {
		t.Errorf("another user: got %v %s, want GENERATION_NOT_HANDED", err, out)
	}
	if e := w.last("token.report"); e.Code != "GENERATION_NOT_HANDED" || e.Generation != 0 {
		t.Errorf("got record %+v, want the refusal", e.Record)
	}
}
