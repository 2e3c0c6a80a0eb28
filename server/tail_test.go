package server_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

type tailStream = grpc.ServerStreamingClient[tokenbrokerv1.TailAuditRecordsResponse]

func tailOf(t *testing.T, c tokenbrokerv1.AuditServiceClient, recent int32, f *tokenbrokerv1.AuditFilter) tailStream {
	t.Helper()
	s, err := c.TailAuditRecords(brief(t), &tokenbrokerv1.TailAuditRecordsRequest{Recent: recent, Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantSeqs(t *testing.T, s tailStream, want ...uint64) {
	t.Helper()
	for _, w := range want {
		m, err := s.Recv()
		if err != nil || m.GetRecord().GetSeq() != w {
			t.Fatalf("got record %d, %v; want %d", m.GetRecord().GetSeq(), err, w)
		}
	}
}

func TestATailBeginsWithTheLastRecordsAndFollows(t *testing.T) {
	call := audit.Record{Kind: audit.KindCall, Credential: "team/a"}
	other := audit.Record{Kind: audit.KindCall, Credential: "other/a"}
	m := newMemory(call, other, call, call, other)
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	s := tailOf(t, auditsOf(r, team), 2, nil)
	wantSeqs(t, s, 3, 4)
	m.add(other)
	m.add(audit.Record{Kind: audit.KindStreamOpen, Action: "audit.read", Identity: auditor})
	m.add(call)
	wantSeqs(t, s, 8)
	all := tailOf(t, auditsOf(r, auditor), 3, &tokenbrokerv1.AuditFilter{Kinds: []string{"call", "stream_open"}})
	wantSeqs(t, all, 5, 6, 8) // without the record of a tail
	m.add(audit.Record{Kind: audit.KindSystem})
	m.add(other)
	wantSeqs(t, all, 10)
}

func TestATailRefusesWhatIsOfNoUseToIt(t *testing.T) {
	m := newMemory()
	r := auditRig(t, m, true, nil)
	r.serve(auditor)
	now := time.Now()
	for field, req := range map[string]*tokenbrokerv1.TailAuditRecordsRequest{
		"recent":           {Recent: 1001},
		"filter.startTime": {Filter: &tokenbrokerv1.AuditFilter{StartTime: timestamppb.New(now)}},
		"filter.endTime":   {Filter: &tokenbrokerv1.AuditFilter{EndTime: timestamppb.New(now)}},
		"filter.action":    {Filter: &tokenbrokerv1.AuditFilter{Action: "*"}},
	} {
		s, err := auditsOf(r, auditor).TailAuditRecords(brief(t), req)
		if err == nil {
			_, err = s.Recv()
		}
		if f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); !slices.Equal(f.Fields, []string{field}) {
			t.Errorf("got fields %v, want %s", f.Fields, field)
		}
	}
	all, _ := m.after(0)
	if len(all) != 4 || all[0].Kind != audit.KindCall || all[0].Code != "FIELD_VIOLATION" || all[0].Action != "audit.read" {
		t.Errorf("got %+v, want a record for each that was refused", all)
	}
}

func TestAnIdentityHasSoManyTailsAtOnce(t *testing.T) {
	m := newMemory(audit.Record{Kind: audit.KindSystem})
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	c := auditsOf(r, auditor)
	ctx, leave := context.WithCancel(brief(t))
	for range 8 {
		s, err := c.TailAuditRecords(ctx, &tokenbrokerv1.TailAuditRecordsRequest{Recent: 1})
		if err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, s, 1)
	}
	s := tailOf(t, c, 1, nil)
	_, err := s.Recv()
	wantFault(t, err, codes.ResourceExhausted, "TOO_MANY")
	leave()
	eventually(t, "there is room again", func() bool {
		_, err := tailOf(t, c, 1, nil).Recv()
		return err == nil
	})
}

func TestATailLosesItsRightsWithThePolicy(t *testing.T) {
	m := newMemory(audit.Record{Kind: audit.KindCall, Credential: "team/a"}, audit.Record{Kind: audit.KindCall, Credential: "team/b"})
	var now atomic.Pointer[policy.Policy]
	set := func(text string) {
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		now.Store(p)
	}
	set(auditPolicy)
	r := auditRig(t, m, false, func(c *server.Config) { c.Policy = now.Load })
	r.serve(auditor)
	s := tailOf(t, auditsOf(r, team), 2, nil)
	wantSeqs(t, s, 1, 2)
	set(strings.Replace(auditPolicy, "team/*", "team/a", 1))
	m.add(audit.Record{Kind: audit.KindCall, Credential: "team/b"})
	m.add(audit.Record{Kind: audit.KindCall, Credential: "team/a"})
	wantSeqs(t, s, 4)
	set(brokertest.DefaultPolicy)
	_, err := s.Recv()
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestATailEndsWithTheDrain(t *testing.T) {
	m := newMemory(audit.Record{Kind: audit.KindSystem})
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	s := tailOf(t, auditsOf(r, auditor), 1, nil)
	wantSeqs(t, s, 1)
	go r.Drain(context.Background())
	_, err := s.Recv()
	wantFault(t, err, codes.Unavailable, "SHUTTING_DOWN")
}

func TestATailEndsWithTheCertificate(t *testing.T) {
	m := newMemory(audit.Record{Kind: audit.KindSystem})
	r := auditRig(t, m, true, nil)
	r.serve(auditor)
	s := tailThatEnds(t, r)
	if _, err := s.Recv(); err == nil || status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the end of the certificate", err)
	}
	eventually(t, "the trail says why it ended", func() bool {
		all, _ := m.after(0)
		return slices.ContainsFunc(all, func(e audit.Entry) bool { return e.Kind == audit.KindStreamClose && e.Code == "CERTIFICATE_EXPIRED" })
	})
}

// tailThatEnds begins a tail with a certificate that ends in a moment: on a machine that is too busy to begin by then, with one that ends later.
func tailThatEnds(t *testing.T, r *rig) tailStream {
	t.Helper()
	for life := 5 * time.Second; ; life *= 2 {
		conn := r.connWith(clientTLS(t, r.b, mtls.Template{SPIFFEID: auditor, Client: true, NotAfter: time.Now().Add(life)}))
		t.Cleanup(func() { _ = conn.Close() })
		s, err := tokenbrokerv1.NewAuditServiceClient(conn).TailAuditRecords(brief(t), &tokenbrokerv1.TailAuditRecordsRequest{Recent: 1})
		if err == nil {
			_, err = s.Recv()
		}
		if err == nil {
			return s
		}
		if life > patience {
			t.Fatalf("there is no tail within %v: %v", life, err)
		}
	}
}

func TestATailWhoseReaderIsSlowIsCut(t *testing.T) {
	m := newMemory()
	r := auditRig(t, m, true, func(c *server.Config) { c.Limits.SlowReader = 3 * time.Second }) // a busy machine holds up the connection itself for less
	r.serve(auditor)
	s := tailOf(t, auditsOf(r, auditor), 0, &tokenbrokerv1.AuditFilter{Kinds: []string{"system"}})
	if _, err := s.Header(); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 64<<10)
	ended := func() bool {
		all, _ := m.after(0)
		return slices.ContainsFunc(all, func(e audit.Entry) bool { return e.Kind == audit.KindStreamClose && e.Code == "SLOW_READER" })
	}
	for range 200 { // more than its window and the connection's buffers take
		m.add(audit.Record{Kind: audit.KindSystem, Reason: big})
	}
	eventually(t, "the tail is cut for its reader", ended)
	for {
		if _, err := s.Recv(); err != nil {
			return
		}
	}
}

// brittle is a trail whose records make a reader panic.
type brittle struct {
	*memory
	value any
}

// Follow implements server.Trail.
func (b brittle) Follow(context.Context, uint64, func(audit.Entry) error) error { panic(b.value) }

func TestAPanicOfATailEndsItAlone(t *testing.T) {
	const canary = "canary-in-a-panic"
	m := newMemory(audit.Record{Kind: audit.KindSystem})
	var log syncBuffer
	r := auditRig(t, m, true, func(c *server.Config) {
		c.Trail, c.Log = brittle{m, canary}, slog.New(slog.NewJSONHandler(&log, nil))
	})
	r.serve(auditor)
	s := tailOf(t, auditsOf(r, auditor), 1, nil)
	wantSeqs(t, s, 1)
	_, err := s.Recv()
	f := wantFault(t, err, codes.Internal, "INTERNAL")
	if text := f.Text + log.String(); strings.Contains(text, canary) || !strings.Contains(text, `"type":"string"`) || !strings.Contains(text, "tail.go") {
		t.Errorf("got text %q and log %q, want the panic's type and stack in the log, and its value nowhere", f.Text, log.String())
	}
	if _, err := auditsOf(r, auditor).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{}); err != nil {
		t.Errorf("got %v, want the server to go on", err)
	}
	eventually(t, "the trail has the end of the stream", func() bool {
		all, _ := m.after(0)
		return slices.ContainsFunc(all, func(e audit.Entry) bool { return e.Kind == audit.KindStreamClose && e.Code == "INTERNAL" })
	})
}
