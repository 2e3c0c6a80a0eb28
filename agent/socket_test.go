package agent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
)

// refused opens an agent that must not open, and returns why.
func (w *world) refused(change func(*agent.Config)) string {
	w.t.Helper()
	c := w.upstream()
	defer func() { _ = c.Close() }()
	cfg := agent.Config{Client: c, Socket: w.socket, AuditFile: filepath.Join(w.dir, "other.jsonl")}
	change(&cfg)
	a, err := agent.Open(w.t.Context(), cfg)
	if err == nil {
		a.Close()
		w.t.Fatal("it opens")
	}
	return err.Error()
}

func TestASocketThatAnAgentAnswersOnIsLeftAlone(t *testing.T) {
	w := start(t)
	for name, change := range map[string]func(*agent.Config){"another trail": func(*agent.Config) {},
		"the same trail": func(c *agent.Config) { c.AuditFile = w.trail }} {
		if got := w.refused(change); !strings.Contains(got, "another agent answers") {
			t.Errorf("%s: got %q", name, got)
		}
	}
	got := w.refused(func(c *agent.Config) { c.Socket, c.AuditFile = filepath.Join(w.dir, "run", "second.sock"), w.trail })
	if !strings.Contains(got, "by another broker or agent: give this one a file of its own with --audit FILE") {
		t.Errorf("a second agent: got %q", got)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "run", "second.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no socket left behind", err)
	}
	if r := w.do("GET", "/healthz", ""); r.code() != 200 {
		t.Errorf("the first agent: got %d, want 200", r.code())
	}
}

func TestASocketThatADeadAgentLeftIsReplaced(t *testing.T) {
	w := start(t)
	w.stop()
	if _, err := os.Lstat(w.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the socket gone with its agent", err)
	}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as one that was killed
	_ = l.Close()
	w.run()
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
		t.Errorf("got %d, want 200", r.code())
	}
}

func TestAPlaceWhereOthersCouldTakeTheSocketsPlaceIsRefused(t *testing.T) {
	w := start(t)
	w.stop()
	open := filepath.Join(w.dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.WriteFile(filepath.Join(w.dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(open, "a.sock"):             "written to by others",
		filepath.Join(w.dir, "file"):              "is no socket",
		filepath.Join(w.dir, "file", "a.sock"):    "is no folder",
		filepath.Join(w.dir, "no", "such", "one"): "make the socket's folder",
	} {
		if got := w.refused(func(c *agent.Config) { c.Socket = path }); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestABearerFileWhereOthersCouldPutOneOfTheirsIsRefused(t *testing.T) {
	w := start(t)
	w.stop()
	open, foreign := filepath.Join(w.dir, "open"), filepath.Join(w.dir, "foreign")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o770), os.Mkdir(foreign, 0o700)); err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		filepath.Join(open, "bearer"):          "written to by others",
		filepath.Join(w.dir, "none", "bearer"): "look at the folder",
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 12345, -1); err != nil {
			t.Fatal(err)
		}
		places[filepath.Join(foreign, "bearer")] = "belongs to another user (12345)"
	}
	for path, want := range places {
		got := w.refused(func(c *agent.Config) { c.HTTP, c.BearerFile = "127.0.0.1:0", path })
		if !strings.Contains(got, "the bearer file") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: the secret is there", path)
		}
	}
}

func TestAConfigThatMakesNoSenseIsRefused(t *testing.T) {
	w := start(t)
	w.stop()
	for want, change := range map[string]func(*agent.Config){
		"Config.Client":    func(c *agent.Config) { c.Client = nil },
		"Config.Socket":    func(c *agent.Config) { c.Socket = "" },
		"Config.AuditFile": func(c *agent.Config) { c.AuditFile = "" },
		"no name":          func(c *agent.Config) { c.Rules = []agent.Rule{{}} },
		"no user":          func(c *agent.Config) { c.Rules = []agent.Rule{{Name: "x"}} },
		"no credential":    func(c *agent.Config) { c.Rules = []agent.Rule{{Name: "x", UIDs: []uint32{1}}} },
		"open the audit":   func(c *agent.Config) { c.AuditFile = w.dir },
	} {
		if got := w.refused(change); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheTrailIsOneThatVerifies(t *testing.T) {
	w := start(t)
	w.do("GET", "/v1/token/example/api", "")
	w.do("GET", "/v1/token/example/none", "")
	w.stop()
	w.run()
	w.do("GET", "/v1/token/example/api", "")
	w.stop()
	r, err := audit.Verify(t.Context(), []audit.Source{audit.FileSource(w.trail)}, audit.VerifyOptions{From: 1})
	if err != nil || !r.OK() || r.Lines < 7 {
		t.Errorf("got %v, %d lines, %+v, want a whole trail over a restart", err, r.Lines, r.Problems)
	}
	for _, action := range []string{"agent.start", "agent.stop"} {
		if e := w.last(action); e.Kind != audit.KindSystem {
			t.Errorf("%s: got %+v", action, e.Record)
		}
	}
}

func TestNoRecordNoToken(t *testing.T) {
	w := start(t)
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
		t.Fatalf("got %d, want 200", r.code())
	}
	if err := errors.Join(os.Remove(w.trail), os.Mkdir(w.trail, 0o700)); err != nil {
		t.Fatal(err)
	}
	r := w.do("GET", "/v1/token/example/api", "") // where the trail was is a folder now
	if r.code() != 503 || r.field("error", "reason") != "AUDIT_UNAVAILABLE" || strings.Contains(r.text, "access_token") {
		t.Errorf("got %d %s, want 503 AUDIT_UNAVAILABLE", r.code(), r.text)
	}
	if err := os.Remove(w.trail); err != nil {
		t.Fatal(err)
	}
}

func TestASlowClientHoldsUpNobody(t *testing.T) {
	w := start(t)
	for _, begun := range []string{"", "P", "PRI * HTT", "GET /v1/token/example/api HTTP/1.1\r\nHost: x\r\n"} {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, begun); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
		t.Errorf("got %d, want 200 beside those that say nothing", r.code())
	}
	w.stop() // nor do they hold up the end
}

func TestAUserHasNoMoreThanHisShareOfConnections(t *testing.T) {
	w := start(t, func(c *agent.Config) { c.Rules = []agent.Rule{rule(t, "others", []uint32{4000000}, nil, "example/*")} })
	const share = 16 // of a user whom no rule knows
	var open []net.Conn
	for range share {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("within the share: %v", err)
		}
	}
	over := func() error {
		c, err := new(net.Dialer).DialContext(context.Background(), "unix", w.socket)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = c.Read(make([]byte, 1))
		return err
	}
	if err := over(); err == nil {
		t.Error("one more than the share is answered")
	}
	_ = open[0].Close()
	for over() != nil { // until the agent has seen that the place is free
		if t.Context().Err() != nil {
			t.Fatal("a place that was left is not given again")
		}
	}
	for _, c := range open[1:] {
		_ = c.Close()
	}
}
