package main_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// sum is the hash of a file.
func (s *site) sum(name string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s.read(name)))) }

// filled is a site whose store holds a credential with a token, and which is stopped.
func filled(t *testing.T) *site {
	t.Helper()
	up := newUpstream(t, steady(time.Hour))
	s := newSite(t, up.provider("steady"))
	s.start()
	operator := s.conn("operator")
	addJob(t, operator, "steady")
	add(t, operator, "example/one", "steady", "steady", "", "reports.read")
	mustGet(t, operator, "example/one")
	s.stop()
	return s
}

// TestRefusedStartTouchesNothing starts a broker with something that is wrong. It says what, and the database stays as it is, byte for byte.
func TestRefusedStartTouchesNothing(t *testing.T) {
	t.Parallel()
	s := filled(t)
	kek, policy, cert := s.read("kek.key"), s.read("policy.yaml"), s.read("server.pem")
	mend := func() { s.write("kek.key", kek); s.write("policy.yaml", policy); s.write("server.pem", cert) }
	lastLine := fmt.Sprintf("line %d, column 5", strings.Count(policy, "\n")+1)
	other := s.path("other.key")
	if err := keyring.GenerateFileKEK(other); err != nil {
		t.Fatal(err)
	}
	before := s.sum("tokenbroker.db")
	for name, c := range map[string]struct {
		harm func()
		says []string
	}{
		"another key":           {func() { s.write("kek.key", s.read("other.key")) }, []string{"key"}},
		"no key":                {func() { must(t, os.Remove(s.path("kek.key"))) }, []string{"kek.key", "put the one back"}},
		"an empty key":          {func() { s.write("kek.key", "") }, []string{"kek.key", "is empty", "backup"}},
		"a key open to others":  {func() { must(t, os.Chmod(s.path("kek.key"), 0o644)) }, []string{"kek.key", "mode 0644", "chmod 0600"}},
		"no policy":             {func() { must(t, os.Remove(s.path("policy.yaml"))) }, []string{"policy.yaml", "no such file"}},
		"an empty policy":       {func() { s.write("policy.yaml", "") }, []string{"policy.yaml", "policy is empty"}},
		"a policy of garbage":   {func() { s.write("policy.yaml", "\x00\x01{{") }, []string{"policy.yaml"}},
		"an unknown policy key": {func() { s.write("policy.yaml", policy+"    allow_everything: true\n") }, []string{"policy.yaml", lastLine, "allow_everything"}},
		"a policy rule twice":   {func() { s.write("policy.yaml", strings.Replace(policy, "name: example-worker", "name: operators", 1)) }, []string{"policy.yaml", "operators"}},
		"no certificate":        {func() { must(t, os.Remove(s.path("server.pem"))) }, []string{"server.pem", "no such file"}},
		"another's certificate": {func() { s.write("server.pem", s.read("worker.pem")) }, []string{"server.pem", "server.key"}},
		"a damaged certificate": {func() { s.write("server.pem", "garbage") }, []string{"server.pem", "PEM"}},
	} {
		c.harm()
		out := s.refused(patience)
		want(t, out, c.says...)
		if strings.Contains(out, "goroutine ") {
			t.Errorf("%s: it ended with a panic", name)
		}
		if got := s.sum("tokenbroker.db"); got != before {
			t.Errorf("%s: the database changed", name)
		}
		mend()
	}
	s.start()
	mustGet(t, s.conn("worker"), "example/one")
	s.stop()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStoreInUse starts a second broker over the store of a first one.
func TestStoreInUse(t *testing.T) {
	t.Parallel()
	s := filled(t)
	s.start()
	out := s.refused(patience)
	want(t, out, "tokenbroker.db", "another process holds it", "waited 3s")
	mustGet(t, s.conn("worker"), "example/one")
	s.stop()
}

// TestPortInUse names the address, and which listener it is about.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	s := filled(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	before := s.sum("tokenbroker.db")
	want(t, s.refused(patience, "--listen", l.Addr().String()), "listen for gRPC", l.Addr().String(), "address already in use")
	want(t, s.refused(patience, "--ops-listen", l.Addr().String()), "listen for probes and metrics", l.Addr().String(), "address already in use")
	if got := s.sum("tokenbroker.db"); got != before {
		t.Errorf("the database changed")
	}
}

// TestLoggingOfTokensRefused: settings of libraries that write every token somewhere.
func TestLoggingOfTokensRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	for env, says := range map[string]string{"GRPC_BINARY_LOG_FILTER=*": "GRPC_BINARY_LOG_FILTER", "GODEBUG=http2debug=2": "http2debug",
		"GOTRACEBACK=crash": "GOTRACEBACK"} {
		cmd := s.command()
		cmd.Env = append(os.Environ(), env)
		p := startProcess(t, cmd)
		if got := p.wait(patience); got != 1 {
			t.Errorf("%s: got exit status %d, want 1", env, got)
		}
		want(t, p.out.String(), says)
		if _, err := os.Stat(s.path("tokenbroker.db")); err == nil {
			t.Errorf("%s: a store was made", env)
		}
	}
}

// TestCoreDumpsOff looks at the limits of the running process.
func TestCoreDumpsOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	p := s.start()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	must(t, err)
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
			t.Errorf("got %q, want no core dumps: they would hold every token", line)
		}
	}
	s.stop()
}

// TestPolicyReload damages the policy of a running broker in every way. The last good one stays in force: nobody gains, nobody loses.
func TestPolicyReload(t *testing.T) {
	t.Parallel()
	s := filled(t)
	s.start()
	good := s.read("policy.yaml")
	worker := s.conn("worker")
	s.issue("stranger", mtls.Template{SPIFFEID: "spiffe://tokenbroker.local/worker/stranger", Client: true, NotAfter: time.Now().Add(time.Hour)})
	stranger := s.conn("stranger")
	everybody := strings.Replace(good, "worker/example", "worker/*", 1)
	for name, harm := range map[string]func(){
		"garbage":     func() { s.write("policy.yaml", "\x00\x01{{") },
		"emptied":     func() { s.write("policy.yaml", "") },
		"deleted":     func() { must(t, os.Remove(s.path("policy.yaml"))) },
		"unknown key": func() { s.write("policy.yaml", everybody+"    allow_everything: true\n") },
		"rule twice": func() {
			s.write("policy.yaml", strings.Replace(everybody, "name: example-worker", "name: operators", 1))
		},
		"no rules": func() { s.write("policy.yaml", "version: 1\n") },
	} {
		harm()
		s.metric("tokenbroker_policy_last_reload_successful 0")
		mustGet(t, worker, "example/one")
		if _, err := get(t, stranger, "example/one"); status.Code(err) != codes.NotFound && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: got %v for an identity without a rule, want a denial", name, err)
		}
		s.write("policy.yaml", good)
		s.metric("tokenbroker_policy_last_reload_successful 1")
	}
	s.write("policy.yaml", everybody)
	eventually(t, "the stranger is let in", func() bool {
		_, err := get(t, stranger, "example/one")
		return err == nil
	})
	s.stop()
}

// metric waits for a line of /metrics.
func (s *site) metric(line string) {
	s.t.Helper()
	eventually(s.t, line, func() bool {
		code, text := s.ask("/metrics")
		return code == http.StatusOK && strings.Contains(text, "\n"+line+"\n")
	})
}

// TestNewerSchema: a store that a newer version wrote is left to that version.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	s := filled(t)
	db := s.read("tokenbroker.db")
	newer := strings.ReplaceAll(db, `"schema":1`, `"schema":9`) // as long as before, so that the file stays whole
	if newer == db {
		t.Fatal("the head of the store is not where this test looks for it")
	}
	s.write("tokenbroker.db", newer)
	before := s.sum("tokenbroker.db")
	want(t, s.refused(patience), "tokenbroker.db", "has schema 9, this program knows 1", "nothing was changed")
	if got := s.sum("tokenbroker.db"); got != before {
		t.Errorf("the database changed")
	}
}
