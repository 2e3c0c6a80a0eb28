package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/server"
)

// repeats is a server on which one connection asks again and again, under a policy that a test may change.
type repeats struct {
	*rig
	trail  *records
	conn   *grpc.ClientConn
	policy atomic.Pointer[policy.Policy]
	asked  atomic.Int64 // how often anybody asked for the policy in force
	refuse atomic.Pointer[error]
}

const again = "example/api"

// ruleFor lets the worker have some scopes of some credentials.
func ruleFor(name, credentials, scopes string) string {
	return fmt.Sprintf("version: 1\nrules:\n  - name: %s\n    identities: [%q]\n    actions: [\"token.*\"]\n    credentials: [%q]\n    scopes: [%q]\n",
		name, brokertest.WorkerID, credentials, scopes)
}

func newRepeats(t *testing.T) *repeats {
	t.Helper()
	b := brokertest.Start(t, brokertest.Config{Profile: func(_ string, p *provider.Profile) {
		floor := provider.Duration(time.Millisecond)
		p.Floor = &floor
	}})
	b.AddClientCredentials(again, "files.read", "files.write")
	r := &repeats{trail: new(records)}
	r.rig = newRig(t, b, func(c *server.Config) {
		c.Policy = func() *policy.Policy { r.asked.Add(1); return r.policy.Load() }
		c.Audit = func(ctx context.Context, rec audit.Record) error {
			if err := r.refuse.Load(); err != nil {
				return *err
			}
			return r.trail.write(ctx, rec)
		}
	})
	r.rule(ruleFor("first", "example/*", "**"))
	r.conn = r.serve(brokertest.WorkerID)
	return r
}

func (r *repeats) rule(text string) {
	r.t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		r.t.Fatal(err)
	}
	r.policy.Store(p)
}

func (r *repeats) ask(q *tokenbrokerv1.GetTokenRequest) (*tokenbrokerv1.GetTokenResponse, error) {
	return tokensOf(r.conn).GetToken(brief(r.t), q)
}

// get asks for a token, and says whether everything was decided anew: then the policy is asked for more than once.
func (r *repeats) get(scopes ...string) (resp *tokenbrokerv1.GetTokenResponse, anew bool) {
	r.t.Helper()
	before := r.asked.Load()
	resp, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again, Scopes: scopes})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, r.asked.Load()-before > 1
}

// warm asks three times: the first may cause an exchange, after which nothing is remembered yet. The third answer has to be the second
// one again.
func (r *repeats) warm(scopes ...string) *tokenbrokerv1.GetTokenResponse {
	r.t.Helper()
	r.get(scopes...)
	second, _ := r.get(scopes...)
	third, anew := r.get(scopes...)
	if anew || third.GetToken().GetAccessToken() != second.GetToken().GetAccessToken() {
		r.t.Fatalf("the third call was decided anew (%t), or has another token", anew)
	}
	return third
}

func (r *repeats) denied(code codes.Code, reason string) {
	r.t.Helper()
	_, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again})
	wantFault(r.t, err, code, reason)
}

func (r *repeats) edit(change func(*tokenbroker.Credential)) {
	r.t.Helper()
	_, err := r.b.Daemon.Broker().UpdateCredential(brief(r.t), again, 0, func(c *tokenbroker.Credential) error { change(c); return nil })
	must(r.t, err)
}

func TestTheSameQuestionIsAnsweredAndRecordedAgain(t *testing.T) {
	r := newRepeats(t)
	r.warm()
	r.warm("files.read")
	got := r.trail.all()
	if len(got) != 6 {
		t.Fatalf("got %d records of six calls", len(got))
	}
	for _, pair := range [][]audit.Record{got[1:3], got[4:6]} {
		first, second := pair[0], pair[1]
		if first.RequestID == second.RequestID || second.Time.IsZero() || second.Latency <= 0 {
			t.Errorf("got records %+v, want each call to have its own id, time and latency", pair)
		}
		second.RequestID, second.Time, second.Latency = first.RequestID, first.Time, first.Latency
		if diff := cmp.Diff(first, second, cmpopts.IgnoreUnexported(first)); diff != "" {
			t.Errorf("want what was recorded before (-before +again):\n%s", diff)
		}
		if second.Decision != audit.Allow || second.Rule != "first" || second.Identity != brokertest.WorkerID || second.Generation == 0 {
			t.Errorf("got %+v, want who had what by which rule", second)
		}
	}
}

// TestNothingOldIsAnsweredAgain changes, one by one, everything that an answer follows from. Each time the next call on the same
// connection has to go the whole way.
func TestNothingOldIsAnsweredAgain(t *testing.T) {
	t.Run("another policy that denies", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		r.rule(ruleFor("second", "elsewhere/*", "**"))
		r.denied(codes.NotFound, "CREDENTIAL_NOT_FOUND")
		r.rule(ruleFor("third", "example/*", "**"))
		r.warm()
	})
	t.Run("another policy that allows by another rule", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		r.rule(ruleFor("second", "example/*", "files.*"))
		r.warm()
		if got := r.trail.all(); got[2].Rule != "first" || got[3].Rule != "second" || got[5].Rule != "second" || got[3].PolicyRevision == got[2].PolicyRevision {
			t.Errorf("got %+v, want the rule of the policy in force", got)
		}
	})
	t.Run("no policy", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		r.policy.Store(nil)
		r.denied(codes.NotFound, "CREDENTIAL_NOT_FOUND")
	})
	t.Run("other scopes of the credential", func(t *testing.T) {
		r := newRepeats(t)
		r.rule(ruleFor("first", "example/*", "files.*"))
		r.warm()
		r.edit(func(c *tokenbroker.Credential) { c.Scopes = []string{"mail.read"} })
		r.denied(codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	})
	t.Run("scopes of the credential of which some are gone", func(t *testing.T) {
		r := newRepeats(t)
		r.warm("files.read")
		r.edit(func(c *tokenbroker.Credential) { c.Scopes = []string{"files.write"} })
		_, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again, Scopes: []string{"files.read"}})
		wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	})
	t.Run("an edit that tokens do not depend on", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		r.edit(func(c *tokenbroker.Credential) { c.Owner = "somebody" })
		if _, anew := r.get(); !anew {
			t.Error("got the answer of before the edit")
		}
	})
	t.Run("disabled", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		_, err := r.b.Daemon.Broker().SetDisabled(brief(t), again, true)
		must(t, err)
		r.denied(codes.FailedPrecondition, "CREDENTIAL_DISABLED")
		_, err = r.b.Daemon.Broker().SetDisabled(brief(t), again, false)
		must(t, err)
		r.warm()
	})
	t.Run("deleted and made anew", func(t *testing.T) {
		r := newRepeats(t)
		old := r.warm()
		must(t, r.b.Daemon.Broker().DeleteCredential(brief(t), again, 0))
		r.denied(codes.NotFound, "CREDENTIAL_NOT_FOUND")
		r.b.AddClientCredentials(again, "files.read", "files.write")
		if now, anew := r.get(); !anew || now.GetToken().GetGeneration() <= old.GetToken().GetGeneration() {
			t.Errorf("got generation %d after %d, decided anew: %t", now.GetToken().GetGeneration(), old.GetToken().GetGeneration(), anew)
		}
	})
	t.Run("a newer token", func(t *testing.T) {
		r := newRepeats(t)
		old := r.warm()
		_, err := r.b.Daemon.Broker().Refresh(brief(t), again)
		must(t, err)
		now, anew := r.get()
		if !anew || now.GetToken().GetGeneration() <= old.GetToken().GetGeneration() {
			t.Errorf("got generation %d after %d, decided anew: %t", now.GetToken().GetGeneration(), old.GetToken().GetGeneration(), anew)
		}
		if last := r.trail.all(); uint64(last[len(last)-1].Generation) != now.GetToken().GetGeneration() {
			t.Errorf("recorded generation %d, gave %d", last[len(last)-1].Generation, now.GetToken().GetGeneration())
		}
	})
	t.Run("a grant that was revoked", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		_, err := r.b.Daemon.Broker().Revoke(brief(t), broker.RevokeQuery{Credential: again})
		must(t, err)
		if resp, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again}); err == nil && resp.GetToken().GetGeneration() == 1 {
			t.Error("got the token of before the revocation")
		}
	})
	t.Run("a token that has to live longer than it does", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		before := r.asked.Load()
		resp, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again, MinValidity: durationpb.New(time.Minute)})
		if err != nil || r.asked.Load()-before > 1 || resp.GetToken() == nil {
			t.Errorf("got %v for a life that the token has", err)
		}
		for _, least := range []*durationpb.Duration{durationpb.New(23 * time.Hour), durationpb.New(-time.Second), {Nanos: -1, Seconds: 1}} {
			if _, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again, MinValidity: least}); err == nil {
				t.Errorf("got no error for a validity of %v", least)
			}
		}
	})
	t.Run("a log that can't be written", func(t *testing.T) {
		r := newRepeats(t)
		r.warm()
		full := errors.Join(tokenbroker.ErrAuditUnavailable)
		r.refuse.Store(&full)
		r.denied(codes.Unavailable, "AUDIT_UNAVAILABLE")
		r.refuse.Store(nil)
		r.warm()
	})
}

func TestWhatLooksLikeTheSameQuestionIsNotTakenForIt(t *testing.T) {
	r := newRepeats(t)
	r.warm("files.read", "files.write")
	_, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again, Scopes: []string{"files.read files.write"}})
	wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
	r.warm()
	for _, q := range []*tokenbrokerv1.GetTokenRequest{
		{Credential: again, Subject: "someone@example.com"},
		{Credential: again, Audience: "https://elsewhere.example"},
		{Credential: again, Scopes: []string{""}},
		{Credential: "example/other"},
	} {
		if _, err := r.ask(q); err == nil {
			t.Errorf("got a token for %q %q %q", q.GetCredential(), q.GetSubject(), q.GetAudience())
		}
	}
}

// TestAConnectionRemembersBoundedMuch asks for more than that, and wants every answer to be of what was asked.
func TestAConnectionRemembersBoundedMuch(t *testing.T) {
	r := newRepeats(t)
	var names []string
	for i := range server.MaxRemembered + 5 {
		names = append(names, fmt.Sprintf("example/c%d", i))
		r.b.AddClientCredentials(names[i], "files.read")
	}
	for range 2 {
		for _, name := range names {
			_, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: name})
			must(t, err)
		}
	}
	var recorded []string
	for _, rec := range r.trail.all() {
		recorded = append(recorded, rec.Credential)
	}
	if want := slices.Concat(names, names); !slices.Equal(recorded, want) {
		t.Errorf("got records of %v, want %v", recorded, want)
	}
}

// TestRacingEditsAndPoliciesNeverLetAnOldAnswerOut has calls run beside changes. Each change is followed by calls that must not be
// answered as before it.
func TestRacingEditsAndPoliciesNeverLetAnOldAnswerOut(t *testing.T) {
	r := newRepeats(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again})
			}
		}
	}()
	for range 30 {
		_, err := r.b.Daemon.Broker().SetDisabled(brief(t), again, true)
		must(t, err)
		r.denied(codes.FailedPrecondition, "CREDENTIAL_DISABLED")
		_, err = r.b.Daemon.Broker().SetDisabled(brief(t), again, false)
		must(t, err)
		r.rule(ruleFor("none", "elsewhere/*", "**"))
		if _, err := r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again}); err == nil { // not found, or denied too often to be recorded
			t.Error("got a token that the policy in force denies")
		}
		r.rule(ruleFor("first", "example/*", "**"))
		_, err = r.ask(&tokenbrokerv1.GetTokenRequest{Credential: again})
		must(t, err)
	}
	close(stop)
	<-done
}
