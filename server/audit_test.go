package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

func TestEveryDecisionIsOneRecord(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	tok := b.Token("example/api")
	conn, out := b.Worker(), b.Conn(stranger)
	ctx := brief(t)
	calls := []struct {
		call attempt
		conn *grpc.ClientConn
		want auditLine
	}{
		{get(&tokenbrokerv1.GetTokenRequest{Credential: "example/api"}), conn, auditLine{Identity: brokertest.WorkerID, Action: "token.get", Credential: "example/api",
			Rule: "workers", Decision: "allow", Code: "OK", Generation: tok.GetGeneration()}},
		{get(&tokenbrokerv1.GetTokenRequest{Credential: "example/none"}), conn, auditLine{Identity: brokertest.WorkerID, Action: "token.get", Credential: "example/none",
			Code: "CREDENTIAL_NOT_FOUND"}},
		{get(&tokenbrokerv1.GetTokenRequest{Credential: "example/api"}), out, auditLine{Identity: stranger, Action: "token.get", Credential: "example/api",
			Decision: "deny", Reason: "credential", Code: "CREDENTIAL_NOT_FOUND"}},
		{get(&tokenbrokerv1.GetTokenRequest{Credential: "example/api", Scopes: []string{"files.write"}}), b.Conn(reader), auditLine{Identity: reader, Action: "token.get",
			Credential: "example/api", Decision: "deny", Reason: "scope", Code: "SCOPE_NOT_ALLOWED"}},
		{get(&tokenbrokerv1.GetTokenRequest{Credential: "No Name"}), conn, auditLine{Identity: brokertest.WorkerID, Action: "token.get", Decision: "deny", Code: "FIELD_VIOLATION"}},
		{report(&tokenbrokerv1.ReportRejectedRequest{Credential: "example/api", Generation: tok.GetGeneration(), HttpStatus: 401}), conn, auditLine{Identity: brokertest.WorkerID,
			Action: "token.report", Credential: "example/api", Rule: "workers", Decision: "allow", Code: "OK", Generation: tok.GetGeneration()}},
		{about("Delete", "example/api"), conn, auditLine{Identity: brokertest.WorkerID, Action: "credential.delete", Credential: "example/api",
			Decision: "deny", Reason: "no_rule", Code: "CALLER_NOT_ALLOWED"}},
		{list(0, ""), conn, auditLine{Identity: brokertest.WorkerID, Action: "credential.list", Decision: "deny", Reason: "no_rule", Code: "CALLER_NOT_ALLOWED"}},
		{list(0, ""), b.Operator(), auditLine{Identity: brokertest.OperatorID, Action: "credential.list", Decision: "allow", Code: "OK"}},
		{about("Get", "example/api"), b.Operator(), auditLine{Identity: brokertest.OperatorID, Action: "credential.get", Credential: "example/api",
			Rule: "operators", Decision: "allow", Code: "OK"}},
		{createClient("fast", nil), b.Operator(), auditLine{Identity: brokertest.OperatorID, Action: "oauth_client.create", Rule: "operators", Decision: "allow", Code: "ALREADY_EXISTS"}},
		{createClient("fast", nil), conn, auditLine{Identity: brokertest.WorkerID, Action: "oauth_client.create", Decision: "deny", Reason: "no_rule", Code: "CALLER_NOT_ALLOWED"}},
	}
	for _, c := range calls {
		before := len(callLines(t, b))
		_ = c.call(ctx, c.conn)
		added := callLines(t, b)[before:]
		if len(added) != 1 {
			t.Errorf("%+v: got %d records, want 1", c.want, len(added))
			continue
		}
		got := added[0]
		got.Seq, got.Kind = 0, ""
		if c.want.Decision == "" {
			got.Decision, got.Rule = "", ""
		}
		if !sameLine(got, c.want) {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

func about(method, credential string) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		return aboutCredential[method](ctx, c, credential)
	}
}

func sameLine(a, b auditLine) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func callLines(t *testing.T, b *brokertest.Broker) []auditLine {
	t.Helper()
	return slices.DeleteFunc(auditLines(t, b), func(l auditLine) bool { return l.Kind != "call" })
}

func TestStreamsAndDeliveriesAreRecordedWithTheirIDs(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	tok := b.Token("example/api")
	w := watch(t, b.Conn(stranger), sel("example/api"), sel("stranger/none"))
	w.next()
	w.next()
	good := watch(t, b.Worker(), sel("example/api"))
	good.ready(0)
	good.cancel()
	var opened, delivered, closed []auditLine
	eventually(t, "the stream's end is recorded", func() bool {
		opened, delivered, closed = nil, nil, nil
		for _, l := range auditLines(t, b) {
			switch l.Kind {
			case "stream_open":
				opened = append(opened, l)
			case "deliver":
				delivered = append(delivered, l)
			case "stream_close":
				closed = append(closed, l)
			}
		}
		return len(closed) == 1
	})
	if len(opened) != 3 || len(delivered) != 1 {
		t.Fatalf("got %d openings and %d deliveries, want 3 and 1", len(opened), len(delivered))
	}
	denied, allowed := opened[0], opened[2]
	if denied.Decision != "deny" || denied.Reason != "credential" || denied.Identity != stranger || denied.Credential != "example/api" {
		t.Errorf("got %+v, want the stranger denied", denied)
	}
	if allowed.Decision != "allow" || allowed.Rule != "workers" || allowed.Identity != brokertest.WorkerID || allowed.Action != "token.subscribe" || len(allowed.Streams) != 1 {
		t.Errorf("got %+v, want the worker allowed by its rule", allowed)
	}
	id := allowed.Streams
	if d := delivered[0]; !slices.Equal(d.Streams, id) || d.Generation != tok.GetGeneration() || d.Credential != "example/api" {
		t.Errorf("got %+v, want the delivery to stream %v", d, id)
	}
	if c := closed[0]; !slices.Equal(c.Streams, id) || c.Identity != brokertest.WorkerID {
		t.Errorf("got %+v, want the end of stream %v", c, id)
	}
	if slices.Equal(denied.Streams, id) {
		t.Error("two streams share an id")
	}
}

// hanging is a sink that hangs while it is told to.
type hanging struct {
	mu   sync.Mutex
	gate chan struct{} // nil = it takes what comes
	fail bool
}

func (h *hanging) set(gate chan struct{}, fail bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate, h.fail = gate, fail
}

func (h *hanging) Write(p []byte) (int, error) {
	h.mu.Lock()
	gate, fail := h.gate, h.fail
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if fail {
		return 0, errors.New("no space left")
	}
	return len(p), nil
}

func TestWithoutAuditNothingIsServedAndItComesBack(t *testing.T) {
	for _, how := range []string{"hangs", "fails"} {
		t.Run("the sink "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := brokertest.Start(t, brokertest.Config{})
				defer b.Stop()
				b.AddClientCredentials("example/api", "files.read")
				b.Token("example/api")
				sink := &hanging{}
				trail := audit.New(sink, audit.Options{})
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				wg.Go(func() { _ = trail.Run(ctx) })
				defer wg.Wait()
				defer stop()
				tokens := tokensOf(newRig(t, b, func(c *server.Config) { c.Audit = trail.Write }).serve(brokertest.WorkerID))
				ask := func() (*tokenbrokerv1.GetTokenResponse, error) {
					return tokens.GetToken(context.Background(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
				}
				if _, err := ask(); err != nil {
					t.Fatal(err)
				}
				gate := make(chan struct{})
				if how == "hangs" {
					sink.set(gate, false)
				} else {
					sink.set(nil, true)
				}
				for range 3 {
					began := time.Now()
					r, err := ask()
					f := wantFault(t, err, codes.Unavailable, "AUDIT_UNAVAILABLE")
					if took := time.Since(began); r.GetToken() != nil || took > 2*time.Second || f.Retry == 0 {
						t.Errorf("got a token=%v after %v with %+v, want none, within 2 s", r.GetToken() != nil, took, f)
					}
				}
				s, err := tokens.Subscribe(context.Background(), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{sel("example/api")}})
				if err == nil {
					_, err = s.Recv()
				}
				wantFault(t, err, codes.Unavailable, "AUDIT_UNAVAILABLE")
				sink.set(nil, false)
				close(gate)
				time.Sleep(3 * time.Second)
				if _, err := ask(); err != nil {
					t.Errorf("got %v after the sink came back, want a token", err)
				}
			})
		})
	}
}

func TestACallerWhoLeavesCanNotSuppressTheRecord(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	trail := new(records)
	reached, gone := make(chan struct{}), make(chan struct{})
	r := newRig(t, b, func(c *server.Config) {
		c.Audit = func(ctx context.Context, rec audit.Record) error {
			if rec.Kind == audit.KindCall && rec.Action == "credential.delete" {
				close(reached)
				<-gone
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return trail.write(ctx, rec)
		}
	})
	conn := r.serve(brokertest.OperatorID)
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := credentialsOf(conn).DeleteCredential(ctx, &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"})
		ended <- err
	}()
	<-reached
	leave()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want CANCELED", err)
	}
	close(gone)
	eventually(t, "the delete is recorded", func() bool { return len(trail.all()) == 2 })
	if rec := trail.all()[1]; rec.Kind != audit.KindCall || rec.Credential != "example/api" || rec.Decision != audit.Allow || rec.Code != "OK" {
		t.Errorf("got %+v, want the delete that was done", rec)
	}
}

// pointAt makes the audit file's path name another file.
func pointAt(t *testing.T, path, target string) {
	t.Helper()
	if err := errors.Join(os.Symlink(target, path+".new"), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func TestStreamsEndWhenTheirDeliveriesCanNotBeRecorded(t *testing.T) {
	dir := t.TempDir()
	path, good := filepath.Join(dir, "audit"), filepath.Join(dir, "audit.jsonl")
	if err := os.WriteFile(good, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pointAt(t, path, good)
	b := brokertest.Start(t, brokertest.Config{AuditFile: path, Issuers: []sandbox.Issuer{{Name: "fast", AccessLife: 4 * time.Second,
		Rotation: sandbox.RotateNone, Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}}}})
	b.AddClientCredentials("example/api", "files.read")
	w := watch(t, b.Worker(), sel("example/api"))
	w.ready(0)
	pointAt(t, path, "/dev/full")
	_, err := credentialsOf(b.Operator()).DisableCredential(brief(t), &tokenbrokerv1.DisableCredentialRequest{Credential: "example/api"})
	wantFault(t, err, codes.Unavailable, "AUDIT_UNAVAILABLE")
	began := time.Now()
	wantFault(t, get(&tokenbrokerv1.GetTokenRequest{Credential: "example/api"})(brief(t), b.Worker()), codes.Unavailable, "AUDIT_UNAVAILABLE")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("an answer took %v without an audit log", took)
	}
	exchanges := b.Sandbox.Count(sandbox.Filter{})
	wantFault(t, w.end(), codes.Unavailable, "AUDIT_UNAVAILABLE") // at the latest when the refresh is due
	if n := b.Sandbox.Count(sandbox.Filter{}); n != exchanges {
		t.Errorf("%d token requests were sent without a record", n-exchanges)
	}
	pointAt(t, path, good)
	eventually(t, "the audit log is written again", func() bool { return list(0, "")(brief(t), b.Operator()) == nil })
	if credential(t, b, "example/api").GetStatus().GetDisabled() {
		t.Error("the edit without a record was done")
	}
	watch(t, b.Worker(), sel("example/api")).ready(0)
	if text, err := os.ReadFile(good); err != nil || !strings.Contains(string(text), audit.ActionGap) {
		t.Errorf("the trail does not tell of the gap (%v)", err)
	}
}
