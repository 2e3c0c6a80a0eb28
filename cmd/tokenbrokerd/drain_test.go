package main_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// TestDrain ends the broker while a refresh token is being spent. What the exchange brings is committed: a second broker over the
// same files gives that token out, and the refresh token that came with it works.
func TestDrain(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, sandbox.Issuer{Name: "strict"}, steady(time.Hour))
	s := newSite(t, up.provider("strict", "rotates: true")+up.provider("steady"))
	s.start()
	operator, worker := s.conn("operator"), s.conn("worker")
	addJob(t, operator, "strict")
	addJob(t, operator, "steady")
	add(t, operator, "example/steady", "steady", "steady", "", "reports.read")
	mustGet(t, worker, "example/steady")
	stream, _ := subscribe(t, worker, "example/steady")
	snapshot(t, stream)

	up.Fail("strict", sandbox.Fault{Hang: true, Stage: sandbox.AfterCommit}) // spent, and the answer is on its way
	add(t, operator, "example/drive", "strict", "strict", up.SeedRefreshToken("strict", "job", "reports.read"), "reports.read")
	waiting := make(chan error, 1)
	go func() {
		_, err := get(t, worker, "example/drive")
		waiting <- err
	}()
	inFlight(t, up)
	s.proc.signal(syscall.SIGTERM)
	if m, err := stream.Recv(); err != nil || m.GetGoingAway() == nil {
		t.Errorf("got %v, %v on the stream, want going_away", m, err)
	}
	notReady(t, s)
	up.Release("strict")
	if err := <-waiting; err != nil {
		t.Errorf("got %v for a call that waited for the exchange, want its token", err)
	}
	ended(t, stream)
	if got := s.proc.wait(patience); got != 0 {
		t.Errorf("got exit status %d after the drain, want 0", got)
	}

	s.start()
	if tok := mustGet(t, worker, "example/drive"); !up.Valid(tok.GetAccessToken()) {
		t.Errorf("the token that was in flight is gone")
	}
	if got := up.Count(sandbox.Filter{Issuer: "strict"}); got != 1 {
		t.Errorf("got %d token requests, want 1: the commit was lost", got)
	}
	s.stop()
}

// inFlight waits until an exchange is at the authorization server.
func inFlight(t testing.TB, up *upstream) {
	t.Helper()
	eventually(t, "an exchange in flight", func() bool { return up.Count(sandbox.Filter{Issuer: "strict"}) == 1 })
}

// ended reads a stream to its end, which must be a broker that shuts down.
func ended(t testing.TB, stream interface {
	Recv() (*tokenbrokerv1.SubscribeResponse, error)
}) {
	t.Helper()
	for {
		_, err := stream.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.Unavailable || reason(err) != "SHUTTING_DOWN" {
			t.Errorf("got %v (%s) at the end of the stream, want UNAVAILABLE, SHUTTING_DOWN", err, reason(err))
		}
		return
	}
}

// TestDrainEndsInTime cuts what does not end by itself once the drain's time is over.
func TestDrainEndsInTime(t *testing.T) {
	t.Parallel()
	s, up := hanging(t)
	began := time.Now()
	s.proc.signal(syscall.SIGTERM)
	if got := s.proc.wait(patience); got != 0 {
		t.Errorf("got exit status %d, want 0", got)
	}
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second { // the exchange would end by itself after 30 s
		t.Errorf("the drain took %v, want little more than its 2 s", took)
	}
	up.Release("strict")
}

// TestSecondSignalEndsAtOnce leaves an exchange behind, as a person at a terminal asked for. Two signals at one moment are one: a
// supervisor may signal the process and then its group.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	s, up := hanging(t, "drain_timeout: 1h")
	s.proc.signal(syscall.SIGTERM)
	s.proc.signal(syscall.SIGTERM)
	s.proc.line(`"msg":"draining"`)
	time.Sleep(2 * time.Second) // longer than a moment
	if strings.Contains(s.proc.out.String(), "ended by a second signal") {
		t.Errorf("two signals at one moment ended the process")
	}
	s.proc.signal(syscall.SIGTERM)
	if got := s.proc.wait(patience); got != 1 {
		t.Errorf("got exit status %d after two signals, want 1", got)
	}
	want(t, s.proc.out.String(), "ended by a second signal")
	up.Release("strict")
}

// hanging is a broker with an exchange in flight that does not end.
func hanging(t *testing.T, more ...string) (*site, *upstream) {
	t.Helper()
	up := newUpstream(t, sandbox.Issuer{Name: "strict"})
	s := newSite(t, up.provider("strict", "rotates: true"))
	s.edit("tokenbroker.yaml", "store:", strings.Join(append(more, "store:"), "\n"))
	if len(more) == 0 {
		s.edit("tokenbroker.yaml", "store:", "drain_timeout: 2s\nstore:")
	}
	s.start()
	operator := s.conn("operator")
	addJob(t, operator, "strict")
	up.Fail("strict", sandbox.Fault{Hang: true})
	add(t, operator, "example/drive", "strict", "strict", up.SeedRefreshToken("strict", "job", "reports.read"), "reports.read")
	inFlight(t, up)
	return s, up
}

// TestHangup rotates the audit log by rename and changes the policy, and has the broker take up both by SIGHUP.
func TestHangup(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, steady(time.Hour))
	s := newSite(t, up.provider("steady"))
	s.start()
	operator, worker := s.conn("operator"), s.conn("worker")
	addJob(t, operator, "steady")
	add(t, operator, "example/one", "steady", "steady", "", "reports.read")
	mustGet(t, worker, "example/one")

	if err := os.Rename(s.path("audit.jsonl"), s.path("audit.jsonl.1")); err != nil {
		t.Fatal(err)
	}
	s.edit("policy.yaml", `credentials: ["example/*"]`, `credentials: ["other/*"]`)
	s.proc.signal(syscall.SIGHUP)
	s.proc.line("policy reloaded")
	eventually(t, "a worker without the right to its credential", func() bool {
		_, err := get(t, worker, "example/one")
		return status.Code(err) == codes.NotFound
	})
	eventually(t, "a record of the reload and of the denial, in the new file", func() bool {
		trail := s.read("audit.jsonl")
		return strings.Contains(trail, `"policy.reload"`) && strings.Contains(trail, `"deny"`)
	})
	if strings.Contains(s.read("audit.jsonl.1"), `"policy.reload"`) {
		t.Errorf("the log that was renamed still grows")
	}
	s.stop()
}
