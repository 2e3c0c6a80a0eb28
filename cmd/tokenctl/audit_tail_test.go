package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

type tailStream = grpc.ServerStreamingServer[tokenbrokerv1.TailAuditRecordsResponse]

func (b *standIn) TailAuditRecords(r *tokenbrokerv1.TailAuditRecordsRequest, out tailStream) error {
	if err := b.note(r); err != nil {
		return err
	}
	b.mu.Lock()
	next := b.tails[0]
	if len(b.tails) > 1 {
		b.tails = b.tails[1:]
	}
	b.mu.Unlock()
	return next(out)
}

// sends is a tail that sends records, and then ends as one does whose broker stops.
func sends(records ...*tokenbrokerv1.AuditRecord) func(tailStream) error {
	return func(out tailStream) error {
		if err := out.SendHeader(nil); err != nil {
			return err
		}
		for _, r := range records {
			if err := out.Send(&tokenbrokerv1.TailAuditRecordsResponse{Record: r}); err != nil {
				return err
			}
		}
		return refuse(codes.Unavailable, "SHUTTING_DOWN", "the broker is shutting down")
	}
}

// refuses is a tail that the broker does not take, for as long as it says.
func refuses(again time.Duration) func(tailStream) error {
	return func(tailStream) error {
		st, err := status.New(codes.ResourceExhausted, "tails of this identity: 1 at once").WithDetails(
			&errdetails.ErrorInfo{Reason: "TOO_MANY", Domain: "github.com/tokenbroker/tokenbroker"},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(again)})
		if err != nil {
			return err
		}
		return st.Err()
	}
}

func record(seq uint64, at time.Time) *tokenbrokerv1.AuditRecord {
	return &tokenbrokerv1.AuditRecord{Seq: seq, Time: timestamppb.New(at), Kind: "call", Action: "token.get"}
}

func TestATailThatIsNotTakenAtTheStartEndsAtOnce(t *testing.T) {
	b := newStandIn(t)
	b.tails = append(b.tails, refuses(time.Millisecond))
	r := b.run(t, "", nil, "audit", "tail", "--recent", "0")
	if n := count[*tokenbrokerv1.TailAuditRecordsRequest](b); r.exit != exitLater || n != 1 || !strings.Contains(r.errs, "TOO_MANY") {
		t.Errorf("got status %d after %d calls, want %d after 1\n%s", r.exit, n, exitLater, r.errs)
	}
	if r.out != "" {
		t.Errorf("got a heading for nothing: %q", r.out)
	}
}

func TestATailWaitsAsLongAsTheBrokerSays(t *testing.T) {
	b := newStandIn(t)
	const again = 1500 * time.Millisecond
	var refusedAt, backAt time.Time
	b.tails = append(b.tails, sends(record(1, time.Now())),
		func(out tailStream) error { refusedAt = time.Now(); return refuses(again)(out) },
		func(out tailStream) error { backAt = time.Now(); return sends(record(2, time.Now()))(out) })
	r := b.run(t, "", nil, "audit", "tail", "--count", "2")
	if waited := backAt.Sub(refusedAt); r.exit != exitOK || waited < again {
		t.Errorf("got status %d, the next call after %v, want %d and not before %v\n%s", r.exit, waited, exitOK, again, r.all())
	}
	if n := count[*tokenbrokerv1.TailAuditRecordsRequest](b); n != 3 {
		t.Errorf("got %d calls, want 3", n)
	}
}

func TestATailWithoutRecentRecordsPrintsNoneOfBeforeItBegan(t *testing.T) {
	b := newStandIn(t)
	old := time.Now().Add(-time.Hour)
	b.tails = append(b.tails, sends(), func(out tailStream) error {
		return sends(record(1, old), record(2, old), record(3, time.Now()))(out)
	})
	r := b.run(t, "", nil, "audit", "tail", "--recent", "0", "--count", "1")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.exit != exitOK || len(lines) != 2 || !strings.HasPrefix(lines[0], "SEQ") || !strings.HasPrefix(lines[1], "3 ") {
		t.Errorf("got status %d, want a heading and record 3 alone:\n%s", r.exit, r.all())
	}
	if req := last[*tokenbrokerv1.TailAuditRecordsRequest](t, b); req.GetRecent() != 1000 {
		t.Errorf("got recent %d at the second call, want what was written meanwhile", req.GetRecent())
	}
}
