package main_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// short is the life of tokens that have to be refreshed while a disk is full.
const short = 4 * time.Second

// pressed is a broker with a token that lives for long and two that do not: one of client_credentials, one of a refresh token
// that is spent with each use.
func pressed(t *testing.T, flags ...string) (s *site, up *upstream, worker *grpc.ClientConn) {
	t.Helper()
	up = newUpstream(t, steady(time.Hour), sandbox.Issuer{Name: "brief", Rotation: sandbox.RotateNone, AccessLife: short},
		sandbox.Issuer{Name: "strict", AccessLife: short})
	s = newSite(t, up.provider("steady")+up.provider("brief")+up.provider("strict", "rotates: true"))
	s.flags = flags
	s.start()
	operator, worker := s.conn("operator"), s.conn("worker")
	for _, name := range []string{"steady", "brief", "strict"} {
		addJob(t, operator, name)
	}
	add(t, operator, "example/long", "steady", "steady", "", "reports.read")
	add(t, operator, "example/brief", "brief", "brief", "", "reports.read")
	add(t, operator, "example/drive", "strict", "strict", up.SeedRefreshToken("strict", "job", "reports.read"), "reports.read")
	for _, name := range []string{"example/long", "example/brief", "example/drive"} {
		mustGet(t, worker, name)
	}
	return s, up, worker
}

// full has the system refuse every write of the broker to a regular file, as a full disk does, or allow it again.
func (s *site) full(yes bool) {
	s.t.Helper()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if yes {
		limit.Cur = 0
	}
	if err := unix.Prlimit(s.proc.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		s.t.Fatal(err)
	}
}

// refuses waits until a credential's token can't be had any more, for the given reason.
func refuses(t testing.TB, conn *grpc.ClientConn, name, why string) {
	t.Helper()
	eventually(t, name+" "+why, func() bool {
		_, err := get(t, conn, name)
		return status.Code(err) == codes.Unavailable && reason(err) == why
	})
}

// TestStoreDiskFull: when nothing can be stored nothing is spent, what is still valid is served, and it recovers by itself.
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	s, up, worker := pressed(t, "--audit", "/dev/null") // the audit log has a disk of its own
	s.full(true)
	refuses(t, worker, "example/brief", "STORE_UNAVAILABLE")
	refuses(t, worker, "example/drive", "STORE_UNAVAILABLE")

	tokens := sandbox.Filter{Endpoint: sandbox.EndpointToken}
	before := up.Count(tokens)
	for end := time.Now().Add(2 * short); time.Now().Before(end); {
		mustGet(t, worker, "example/long")
		for _, name := range []string{"example/brief", "example/drive"} {
			if _, err := get(t, worker, name); status.Code(err) != codes.Unavailable {
				t.Fatalf("%s: got %v while nothing can be stored, want UNAVAILABLE", name, err)
			}
		}
	}
	if got := up.Count(tokens) - before; got != 0 {
		t.Errorf("got %d exchanges whose result could not be stored, want none", got)
	}
	operator := s.conn("operator")
	if err := tryAdd(t, operator, "example/more", "steady", "steady", "", "reports.read"); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("got %v for a new credential while nothing can be stored, want STORE_UNAVAILABLE", err)
	}
	s.full(false)
	for _, name := range []string{"example/brief", "example/drive"} {
		eventually(t, "a token of "+name, func() bool {
			r, err := get(t, worker, name)
			return err == nil && up.Valid(r.GetToken().GetAccessToken())
		})
	}
	add(t, operator, "example/more", "steady", "steady", "", "reports.read")
	s.proc.line("takes changes again")
	onceOnly(t, up)
	s.stop()
}

// onceOnly wants that no refresh token was brought twice, or refused.
func onceOnly(t testing.TB, up *upstream) {
	t.Helper()
	for _, r := range up.Redemptions() {
		if r.Presented > 1 {
			t.Errorf("a refresh token was presented %d times", r.Presented)
		}
	}
	if got := up.Count(sandbox.Filter{Code: "invalid_grant"}); got != 0 {
		t.Errorf("got %d invalid_grant, want none", got)
	}
}

// TestStoreAtItsMaximum fills the store up to store.max_size: nothing new fits, what is there goes on being refreshed, and with more
// room the next credential fits.
func TestStoreAtItsMaximum(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, sandbox.Issuer{Name: "strict", AccessLife: short})
	s := newSite(t, up.provider("strict", "rotates: true"))
	s.edit("tokenbroker.yaml", "  file: tokenbroker.db\n", "  file: tokenbroker.db\n  max_size: 262144\n")
	s.start()
	operator := s.conn("operator")
	addJob(t, operator, "strict")
	add(t, operator, "example/drive", "strict", "strict", up.SeedRefreshToken("strict", "job", "reports.read"), "reports.read")
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		err = tryAdd(t, operator, fmt.Sprintf("more/%d", i), "strict", "strict", "", "reports.read")
	}
	if status.Code(err) != codes.Unavailable || reason(err) != "STORE_UNAVAILABLE" {
		t.Fatalf("got %v when the store was full, want UNAVAILABLE, STORE_UNAVAILABLE", err)
	}
	first := mustGetLive(t, up, s.conn("worker"))
	eventually(t, "the next token", func() bool { return mustGetLive(t, up, s.conn("worker")) > first })
	s.stop()

	s.edit("tokenbroker.yaml", "max_size: 262144", "max_size: 1048576")
	s.start()
	add(t, operator, "more/fits", "strict", "strict", "", "reports.read")
	mustGetLive(t, up, s.conn("worker"))
	onceOnly(t, up)
	s.stop()
}

// mustGetLive gets a token of example/drive that the server knows, and returns its generation.
func mustGetLive(t testing.TB, up *upstream, conn *grpc.ClientConn) (generation uint64) {
	t.Helper()
	eventually(t, "a live token of example/drive", func() bool {
		r, err := get(t, conn, "example/drive")
		generation = r.GetToken().GetGeneration()
		return err == nil && up.Valid(r.GetToken().GetAccessToken())
	})
	return generation
}

// TestAuditDiskFull: without a record nothing leaves the broker, valid or not, and nothing is spent.
func TestAuditDiskFull(t *testing.T) {
	t.Parallel()
	s, up, worker := pressed(t)
	stream, _ := subscribe(t, worker, "example/brief")
	snapshot(t, stream)
	must(t, os.Symlink("/dev/full", s.path("full")))
	must(t, os.Rename(s.path("full"), s.path("audit.jsonl")))
	refuses(t, worker, "example/long", "AUDIT_UNAVAILABLE")
	notReady(t, s)
	refuses(t, worker, "example/brief", "AUDIT_UNAVAILABLE")
	refuses(t, worker, "example/drive", "AUDIT_UNAVAILABLE")

	before := up.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken})
	for end := time.Now().Add(2 * short); time.Now().Before(end); {
		for _, name := range []string{"example/long", "example/brief", "example/drive"} {
			if _, err := get(t, worker, name); status.Code(err) != codes.Unavailable { // and not that the caller's time is over
				t.Fatalf("%s: got %v without an audit log, want UNAVAILABLE", name, err)
			}
		}
	}
	if got := up.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}) - before; got != 0 {
		t.Errorf("got %d exchanges without a record, want none", got)
	}
	if code, text := s.ask("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("got %d %s from /readyz, want 503", code, text)
	}
	must(t, os.Remove(s.path("audit.jsonl")))
	ready(t, s)
	for _, name := range []string{"example/long", "example/brief", "example/drive"} {
		eventually(t, "a token of "+name, func() bool { _, err := get(t, worker, name); return err == nil })
	}
	want(t, s.read("audit.jsonl"), `"audit.gap"`)
	onceOnly(t, up)
	s.stop()
}
