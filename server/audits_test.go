package server_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// auditPolicy gives one identity the whole trail, and one that of a team.
const auditPolicy = brokertest.DefaultPolicy + `  - name: auditors
    identities: ["spiffe://brokertest.local/auditor"]
    actions: ["audit.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
  - name: team
    identities: ["spiffe://brokertest.local/team"]
    actions: ["audit.*"]
    credentials: ["team/*"]
    oauth_clients: ["team-app"]
`

const auditor, team = domain + "/auditor", domain + "/team"

// memory is a trail in memory.
type memory struct {
	mu    sync.Mutex
	list  []audit.Entry
	more  chan struct{} // closed when something is added
	reads int           // records visited by Backward
}

func newMemory(list ...audit.Record) *memory {
	m := &memory{more: make(chan struct{})}
	for _, r := range list {
		m.add(r)
	}
	return m
}

func (m *memory) add(r audit.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	m.list = append(m.list, audit.Entry{Seq: uint64(len(m.list) + 1), Record: r})
	close(m.more)
	m.more = make(chan struct{})
}

func (m *memory) write(_ context.Context, r audit.Record) error { m.add(r); return nil }

func (m *memory) after(seq uint64) ([]audit.Entry, chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list[min(seq, uint64(len(m.list))):]), m.more
}

// Backward implements server.Trail.
func (m *memory) Backward(ctx context.Context, before uint64, visit func(audit.Entry) bool) error {
	all, _ := m.after(0)
	for _, e := range slices.Backward(all) {
		if before != 0 && e.Seq >= before {
			continue
		}
		m.mu.Lock()
		m.reads++
		m.mu.Unlock()
		if !visit(e) {
			return nil
		}
	}
	return ctx.Err()
}

// Follow implements server.Trail.
func (m *memory) Follow(ctx context.Context, after uint64, visit func(audit.Entry) error) error {
	for {
		list, more := m.after(after)
		for _, e := range list {
			if err := visit(e); err != nil {
				return err
			}
			after = e.Seq
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// auditRig is a server with a trail in memory, which its own records do not go to unless own is set.
func auditRig(t *testing.T, m *memory, own bool, change func(*server.Config)) *rig {
	t.Helper()
	b := brokertest.Start(t, brokertest.Config{Policy: auditPolicy})
	return newRig(t, b, func(c *server.Config) {
		c.Trail = m
		c.MACs = func(token string) []string { return []string{"k2:" + mirror(token), "k1:" + mirror(token)} }
		if own {
			c.Audit = m.write
		}
		if change != nil {
			change(c)
		}
	})
}

// mirror is a keyed hash for tests.
func mirror(token string) string {
	b := []byte(token)
	slices.Reverse(b)
	return string(b)
}

func auditsOf(r *rig, identity string) tokenbrokerv1.AuditServiceClient {
	conn := r.conn(identity)
	r.t.Cleanup(func() { _ = conn.Close() })
	return tokenbrokerv1.NewAuditServiceClient(conn)
}

func seqs(list []*tokenbrokerv1.AuditRecord) []uint64 {
	var out []uint64
	for _, r := range list {
		out = append(out, r.GetSeq())
	}
	return out
}

func TestWhoReadsTheTrailSeesWhatItsRulesCover(t *testing.T) {
	m := newMemory(
		audit.Record{Kind: audit.KindSystem, Action: "start"},
		audit.Record{Kind: audit.KindCall, Action: "token.get", Credential: "team/a", Decision: audit.Allow},
		audit.Record{Kind: audit.KindCall, Action: "token.get", Credential: "other/a", Decision: audit.Allow},
		audit.Record{Kind: audit.KindExchangeIntent, Credential: "team/a", OAuthClient: "other-app"},
		audit.Record{Kind: audit.KindCall, Action: "oauth_client.update", OAuthClient: "other-app"},
		audit.Record{Kind: audit.KindCall, Action: "oauth_client.update", OAuthClient: "team-app"},
		audit.Record{Kind: audit.KindCall, Action: "credential.list", Identity: worker("x")},
	)
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	for _, c := range []struct {
		identity string
		want     []uint64
	}{{auditor, []uint64{7, 6, 5, 4, 3, 2, 1}}, {team, []uint64{6, 4, 2}}} {
		resp, err := auditsOf(r, c.identity).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{})
		if err != nil || !slices.Equal(seqs(resp.GetRecords()), c.want) {
			t.Errorf("%s: got %v, %v; want %v", c.identity, seqs(resp.GetRecords()), err, c.want)
		}
		if resp.GetNextPageToken() != "" || resp.GetOldestTime() == nil {
			t.Errorf("%s: got %q, %v; want the end and the oldest time", c.identity, resp.GetNextPageToken(), resp.GetOldestTime())
		}
	}
	_, err := auditsOf(r, brokertest.WorkerID).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

// wantNoNumber wants that a page token is not made of the numbers of records: the team could count by them what it may not see.
func wantNoNumber(t *testing.T, token string, numbers ...string) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 32 {
		t.Errorf("got a page token of %d bytes, %v; want it sealed", len(raw), err)
	}
	for _, n := range numbers {
		if strings.HasSuffix(string(raw), ":"+n) {
			t.Errorf("page token %q shows number %s", raw, n)
		}
	}
}

func TestPagesOfTheTrailFollowEachOtherAndAreJudgedAnew(t *testing.T) {
	m := newMemory()
	for i := range 25 {
		m.add(audit.Record{Kind: audit.KindCall, Credential: []string{"team/a", "other/a"}[i%2]})
	}
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	var got []uint64
	token, pages := "", 0
	for {
		resp, err := auditsOf(r, auditor).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{PageSize: 10, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, seqs(resp.GetRecords())...)
		pages++
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
		if pages == 1 { // the token of one is of no use to another
			_, err := auditsOf(r, team).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{PageSize: 100, PageToken: token})
			wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION")
			wantNoNumber(t, token, "16", "17")
		}
	}
	if len(got) != 25 || pages != 3 || !slices.IsSortedFunc(got, func(a, b uint64) int { return int(b) - int(a) }) {
		t.Errorf("got %v in %d pages, want 25 to 1 in 3", got, pages)
	}
	for _, bad := range []string{"x", "bzE6YQ" /* o1:a */, "YTE6eA" /* a1:x */, "YTE6MA" /* a1:0 */} {
		_, err := auditsOf(r, auditor).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{PageToken: bad})
		if f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); !slices.Equal(f.Fields, []string{"pageToken"}) {
			t.Errorf("%q: got fields %v", bad, f.Fields)
		}
	}
}

func TestAPageEndsAlsoAfterMuchWasRead(t *testing.T) {
	m := newMemory()
	m.list = make([]audit.Entry, 50_010)
	for i := range m.list {
		m.list[i] = audit.Entry{Seq: uint64(i + 1), Record: audit.Record{Kind: audit.KindCall, Time: time.Now(), Rule: "r"}}
	}
	m.list[0].Rule = "wanted"
	r := auditRig(t, m, false, nil)
	c := auditsOf(r, auditor)
	r.serve(auditor)
	req := &tokenbrokerv1.ListAuditRecordsRequest{Filter: &tokenbrokerv1.AuditFilter{Rule: "wanted"}}
	resp, err := c.ListAuditRecords(brief(t), req)
	if err != nil || len(resp.GetRecords()) != 0 || resp.GetNextPageToken() == "" || m.reads > 50_000 {
		t.Fatalf("got %v, %v after %d records; want an empty page that goes on, after 50,000 at most", resp, err, m.reads)
	}
	for len(resp.GetRecords()) == 0 && resp.GetNextPageToken() != "" { // on a slow machine a page ends sooner
		req.PageToken = resp.GetNextPageToken()
		if resp, err = c.ListAuditRecords(brief(t), req); err != nil {
			t.Fatal(err)
		}
	}
	if got := seqs(resp.GetRecords()); !slices.Equal(got, []uint64{1}) {
		t.Errorf("got %v, want the one wanted on a later page", got)
	}
}

func TestFiltersPickRecords(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	good := audit.Record{Time: at, Kind: audit.KindCall, Identity: worker("a"), Credential: "team/a", OAuthClient: "team-app", Action: "token.get",
		Decision: audit.Allow, Rule: "workers", Generation: 7, RequestID: "r1", Code: "OK"}
	all := []audit.Record{good}
	for _, change := range []func(*audit.Record){
		func(r *audit.Record) { r.Time = at.Add(-time.Minute) }, func(r *audit.Record) { r.Time = at.Add(time.Minute) },
		func(r *audit.Record) { r.Kind = audit.KindDeliver }, func(r *audit.Record) { r.Identity = worker("b/c") },
		func(r *audit.Record) { r.Credential = "other/a" }, func(r *audit.Record) { r.OAuthClient = "other-app" },
		func(r *audit.Record) { r.Action = "credential.get" }, func(r *audit.Record) { r.Decision = audit.Deny },
		func(r *audit.Record) { r.Rule = "others" }, func(r *audit.Record) { r.Generation = 8 },
		func(r *audit.Record) { r.RequestID = "r2" }, func(r *audit.Record) { r.Code = "TOO_MANY" },
	} {
		other := good
		change(&other)
		all = append(all, other)
	}
	r := auditRig(t, newMemory(all...), false, nil)
	r.serve(auditor)
	list := func(f *tokenbrokerv1.AuditFilter) ([]*tokenbrokerv1.AuditRecord, error) {
		resp, err := auditsOf(r, auditor).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{Filter: f})
		return resp.GetRecords(), err
	}
	for i, f := range []*tokenbrokerv1.AuditFilter{
		{StartTime: timestamppb.New(at)}, {EndTime: timestamppb.New(at.Add(time.Second))}, {Kinds: []string{"call", "system"}}, {Identity: worker("*")},
		{Credential: "team/*"}, {OauthClient: "team-app"}, {Action: "token.*"}, {Decision: "allow"}, {Rule: "workers"}, {Generation: 7},
		{RequestId: "r1"}, {Code: "OK"},
	} {
		got, err := list(f)
		if err != nil || len(got) != len(all)-1 || slices.Contains(seqs(got), uint64(i+2)) {
			t.Errorf("filter %d: got %v, %v; want all but %d", i, seqs(got), err, i+2)
		}
	}
	if got, err := list(&tokenbrokerv1.AuditFilter{Action: "token.get", Identity: worker("a"), Generation: 8}); err != nil || len(got) != 1 {
		t.Errorf("together: got %v, %v; want 1", seqs(got), err)
	}
	got, err := list(&tokenbrokerv1.AuditFilter{Rule: "workers", Generation: 7, Credential: "team/a", RequestId: "r1", Decision: "allow", Code: "OK",
		Kinds: []string{"call"}, Identity: worker("a"), OauthClient: "team-app", Action: "token.get", StartTime: timestamppb.New(at), EndTime: timestamppb.New(at.Add(1))})
	want := &tokenbrokerv1.AuditRecord{Seq: 1, Time: timestamppb.New(at), Kind: "call", Identity: worker("a"), Credential: "team/a", OauthClient: "team-app",
		Action: "token.get", Decision: "allow", Rule: "workers", Generation: 7, RequestId: "r1", Code: "OK"}
	if err != nil || len(got) != 1 || !proto.Equal(got[0], want) {
		t.Errorf("got %v, %v; want the first alone", seqs(got), err)
	}
	for field, f := range map[string]*tokenbrokerv1.AuditFilter{
		"filter.identity": {Identity: "a***"}, "filter.credential": {Credential: " x"}, "filter.oauthClient": {OauthClient: "\x00"},
		"filter.action": {Action: "to*"}, "filter.decision": {Decision: "maybe"}, "filter.kinds": {Kinds: make([]string, 100)},
		"filter.startTime": {StartTime: &timestamppb.Timestamp{Nanos: -1}},
	} {
		_, err := list(f)
		if v := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); !slices.Equal(v.Fields, []string{field}) {
			t.Errorf("got fields %v, want %s", v.Fields, field)
		}
	}
}

func TestTheAuditCallsAreAuditedThemselves(t *testing.T) {
	m := newMemory()
	r := auditRig(t, m, true, nil)
	r.serve(auditor)
	c := auditsOf(r, auditor)
	if _, err := c.ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{}); err != nil {
		t.Fatal(err)
	}
	const leaked = "leaked-token-of-somebody"
	if _, err := c.FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leaked}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(brief(t))
	s, err := c.TailAuditRecords(ctx, &tokenbrokerv1.TailAuditRecordsRequest{Recent: 1})
	if err == nil {
		_, err = s.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	leave()
	var got []string
	eventually(t, "the tail's end is recorded", func() bool {
		got = nil
		all, _ := m.after(0)
		for _, e := range all {
			got = append(got, strings.Join([]string{string(e.Kind), e.Action, e.Identity, string(e.Decision), e.Code}, " "))
			if text := fmt.Sprintf("%+v", e); strings.Contains(text, leaked) {
				t.Errorf("a record holds the token: %s", text)
			}
		}
		return len(got) == 4
	})
	want := []string{"call audit.read " + auditor + " allow OK", "call audit.find " + auditor + " allow OK", "stream_open audit.read " + auditor + " allow OK",
		"stream_close audit.read " + auditor + "  CANCELED"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWithoutATrailThereIsNoAuditService(t *testing.T) {
	r := newRig(t, brokertest.Start(t, brokertest.Config{Policy: auditPolicy}), nil)
	r.serve(auditor)
	_, err := auditsOf(r, auditor).ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{})
	if f := faultOf(t, err); f.Code != codes.Unimplemented {
		t.Errorf("got %v, want UNIMPLEMENTED", f.Code)
	}
}

var errTrail = errors.New("the trail can not be read")

// broken is a trail that can't be read.
type broken struct{}

func (broken) Backward(context.Context, uint64, func(audit.Entry) bool) error { return errTrail }
func (broken) Follow(context.Context, uint64, func(audit.Entry) error) error  { return errTrail }

func TestATrailThatCanNotBeReadIsAnInternalError(t *testing.T) {
	r := auditRig(t, nil, false, func(c *server.Config) { c.Trail = broken{} })
	r.serve(auditor)
	c := auditsOf(r, auditor)
	_, err := c.ListAuditRecords(brief(t), &tokenbrokerv1.ListAuditRecordsRequest{})
	wantFault(t, err, codes.Internal, "INTERNAL")
	_, err = c.FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: "x"})
	wantFault(t, err, codes.Internal, "INTERNAL")
	s, err := c.TailAuditRecords(brief(t), &tokenbrokerv1.TailAuditRecordsRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	wantFault(t, err, codes.Internal, "INTERNAL")
}
