package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// metric reads one sample of /metrics, the sum of all whose line begins with name and contains each label.
func metric(t *testing.T, b *brokertest.Broker, name string, labels ...string) float64 {
	t.Helper()
	sum := 0.0
	for sc := bufio.NewScanner(strings.NewReader(metricsText(t, b))); sc.Scan(); {
		line := sc.Text()
		if !strings.HasPrefix(line, name) || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

func metricsText(t *testing.T, b *brokertest.Broker) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.Daemon.OpsAddr().String()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAHerdOnAnExpiredCredentialCausesOneExchange(t *testing.T) {
	const herd, connections = 10_000, 8
	issuers := []sandbox.Issuer{{Name: "short", AccessLife: time.Second, Rotation: sandbox.RotateStrict,
		Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}}}
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Issuers: issuers, Exchange: 5 * time.Minute, // until the last of them is there
		Limits: server.Limits{CallDeadline: 5 * time.Minute, Keepalive: time.Hour, SlowReader: 5 * time.Minute}})
	b.Sandbox.Fail("short", sandbox.Fault{Times: 1}, sandbox.Fault{Hang: true, Set: map[string]any{"expires_in": 3600}})
	b.AddRefreshToken("example/drive", "short", "files.read")
	first := b.Token("example/drive")
	eventually(t, "the token has expired", func() bool { return time.Now().After(first.GetExpireTime().AsTime()) })
	base := metric(t, b, "grpc_server_started_total", `grpc_method="GetToken"`)

	var conns []*grpc.ClientConn
	for i := range connections {
		conns = append(conns, dialTLS(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker(fmt.Sprint(i)), Client: true})))
	}
	for _, conn := range conns { // before the herd takes all processors from the handshakes
		conn.Connect()
		for s := conn.GetState(); s != connectivity.Ready && conn.WaitForStateChange(brief(t), s); s = conn.GetState() {
		}
	}
	ask := func(conn *grpc.ClientConn) string {
		r, err := tokensOf(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
		if err != nil {
			return err.Error()
		}
		return r.GetToken().GetAccessToken()
	}
	got := make([]string, herd)
	var wg sync.WaitGroup
	for i := range herd {
		wg.Go(func() {
			got[i] = ask(conns[i%connections])
		})
	}
	eventually(t, "the whole herd waits", func() bool {
		return metric(t, b, "grpc_server_started_total", `grpc_method="GetToken"`) >= base+herd
	})
	b.Sandbox.Release("short")
	wg.Wait()
	for i := range got { // a busy machine may not have recorded all of them within 2 s
		for strings.Contains(got[i], "the audit log can't be written") {
			got[i] = ask(conns[i%connections])
		}
	}
	slices.Sort(got)
	if different := slices.Compact(got); len(different) != 1 || different[0] == first.GetAccessToken() || !strings.HasPrefix(different[0], sandbox.AccessPrefix) {
		t.Errorf("got %d different answers, among them %q; want one fresh token for all", len(different), different[:min(3, len(different))])
	}
	if n := b.Sandbox.Count(sandbox.Filter{}); n != 2 {
		t.Errorf("got %d exchanges, want the first and one for the herd", n)
	}
	if n := metric(t, b, `tokenbroker_refresh_total`, `outcome="ok"`); n != 2 {
		t.Errorf("/metrics counts %v exchanges, want 2", n)
	}
}

func TestACallerWhoLeavesTakesNobodyAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.Sandbox.Fail("rotating", sandbox.Fault{Delay: 8 * time.Second})
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		ask := func(ctx context.Context) chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := tokensOf(b.Worker()).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
				ended <- err
			}()
			return ended
		}
		ctx, leave := context.WithCancel(t.Context())
		leaver := ask(ctx)
		time.Sleep(time.Second)
		others := []chan error{ask(t.Context()), ask(t.Context())}
		impatient, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		late := ask(impatient)
		time.Sleep(time.Second)
		leave()
		if err := <-leaver; status.Code(err) != codes.Canceled {
			t.Errorf("the leaver got %v, want CANCELED", err)
		}
		if err := <-late; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the impatient one got %v, want DEADLINE_EXCEEDED", err)
		}
		for _, other := range others {
			if err := <-other; err != nil {
				t.Errorf("another caller got %v, want a token", err)
			}
		}
		if n := b.Sandbox.Count(sandbox.Filter{}); n != 1 {
			t.Errorf("got %d exchanges, want 1", n)
		}
	})
}

func TestTwoVariantsOfOneGrantTakeTurnsAndGetTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "a", "b")
		b.Token("example/drive")
		serial := credential(t, b, "example/drive").GetStatus().GetSerial()
		b.Sandbox.Fail("rotating", sandbox.Fault{Delay: time.Second, Times: sandbox.Forever})
		var wg sync.WaitGroup
		for i := range 20 {
			scope := string(rune('a' + i%2))
			wg.Go(func() {
				r, err := tokensOf(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive", Scopes: []string{scope}})
				if err != nil || !slices.Equal(r.GetToken().GetScopes(), []string{scope}) {
					t.Errorf("asked for %s: got %v, %v", scope, r.GetToken().GetScopes(), err)
				}
			})
		}
		wg.Wait()
		if n := b.Sandbox.Count(sandbox.Filter{}); n != 3 {
			t.Errorf("got %d exchanges, want one for each variant", n)
		}
		if got := credential(t, b, "example/drive").GetStatus(); got.GetSerial() != serial+2 || got.GetVariantCount() != 3 || got.GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY {
			t.Errorf("got %v, want two more serials and three variants", got)
		}
		for _, r := range b.Sandbox.Redemptions() {
			if r.Presented > 1 {
				t.Errorf("a refresh token was presented %d times", r.Presented)
			}
		}
	})
}

const fleetFloor = 300 * time.Millisecond

func TestAFleetThatReportsOneTokenCausesOneExchange(t *testing.T) {
	const fleet, identities = 500, 125
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true,
		Profile: func(_ string, p *provider.Profile) { f := provider.Duration(fleetFloor); p.Floor = &f }})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	first := b.Token("example/drive")
	conns := make([]*grpc.ClientConn, identities)
	for i := range identities {
		conns[i] = dialTLS(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker(fmt.Sprint("fleet-", i)), Client: true}))
	}
	handshakes := make(chan struct{}, 8) // so that a slow machine does not time them out
	each(identities, func(i int) {
		handshakes <- struct{}{}
		defer func() { <-handshakes }()
		r, err := tokensOf(conns[i]).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/drive"})
		if err != nil || r.GetToken().GetGeneration() != first.GetGeneration() {
			t.Errorf("worker %d: got %v, %v", i, r.GetToken().GetGeneration(), err)
		}
	})
	eventually(t, "the floor is over", func() bool {
		return time.Since(first.GetExpireTime().AsTime().Add(-time.Hour)) > fleetFloor+time.Second
	})
	tell := func(i int, generation uint64) *tokenbrokerv1.ReportRejectedResponse {
		r, err := tokensOf(conns[i%identities]).ReportRejected(brief(t), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/drive", Generation: generation, HttpStatus: 401, ErrorCode: "invalid_token"})
		if err != nil {
			t.Errorf("worker %d: %v", i, err)
		}
		return r
	}
	for round, late := range []string{"at once", "late"} {
		each(fleet, func(i int) {
			r := tell(i, first.GetGeneration())
			if r.GetOutcome() != tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_NEWER || r.GetToken().GetGeneration() <= first.GetGeneration() {
				t.Errorf("round %d: worker %d reports %s: got %v and generation %d, want a newer token", round, i, late, r.GetOutcome(), r.GetToken().GetGeneration())
			}
		})
		if n := b.Sandbox.Count(sandbox.Filter{}); n != 2 {
			t.Errorf("reports %s: got %d exchanges, want the first and one for the fleet", late, n)
		}
	}
	if n := metric(t, b, "tokenbroker_token_reported_rejected_total", `status="401"`, `provider="rotating"`); n != 2*fleet {
		t.Errorf("/metrics counts %v reports, want %d", n, 2*fleet)
	}
}

func each(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func TestReportsOfWhatWasNotHandedAreRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	tok := b.Token("example/drive")
	tell := func(c *grpc.ClientConn, generation uint64) error {
		_, err := tokensOf(c).ReportRejected(brief(t), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/drive", Generation: generation, HttpStatus: 401})
		return err
	}
	wantFault(t, tell(b.Conn(worker("other")), tok.GetGeneration()), codes.FailedPrecondition, "GENERATION_NOT_HANDED")
	wantFault(t, tell(b.Worker(), tok.GetGeneration()+1), codes.FailedPrecondition, "GENERATION_NOT_HANDED")
	w := watch(t, b.Conn(worker("other")), sel("example/drive"))
	w.ready(0)
	if err := tell(b.Conn(worker("other")), tok.GetGeneration()); err != nil {
		t.Errorf("got %v, want the report of one who got it by a stream accepted", err)
	}
}

func TestAReportInsideTheFloorGetsTheCurrentTokenAndHowLongToWait(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddRefreshToken("example/drive", "rotating", "files.read")
	tok := b.Token("example/drive")
	for _, row := range []struct {
		status  int32
		outcome tokenbrokerv1.ReportOutcome
	}{{401, tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_WAIT}, {403, tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_COUNTED}, {500, tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_COUNTED}} {
		r, err := tokensOf(b.Worker()).ReportRejected(brief(t), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/drive", Generation: tok.GetGeneration(), HttpStatus: row.status})
		if err != nil || r.GetOutcome() != row.outcome || r.GetToken().GetAccessToken() != tok.GetAccessToken() {
			t.Errorf("HTTP %d: got %v, %v; want %v with the current token", row.status, r.GetOutcome(), err, row.outcome)
		}
		if wait := r.GetRetryDelay().AsDuration(); (wait > 0) != (row.status == 401) || wait > 30*time.Second {
			t.Errorf("HTTP %d: got retry delay %v", row.status, wait)
		}
	}
	if n := b.Sandbox.Count(sandbox.Filter{}); n != 1 {
		t.Errorf("got %d exchanges, want 1", n)
	}
}

func TestALiarCausesNoMoreExchangesThanTheFloorAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{ConnectionAge: 100 * time.Hour}})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		tok := b.Token("example/drive")
		tokens := tokensOf(b.Worker())
		generation, waits := tok.GetGeneration(), 0
		for range 900 {
			r, err := tokens.ReportRejected(t.Context(), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/drive", Generation: generation, HttpStatus: 401})
			if err != nil {
				t.Fatal(err)
			}
			if r.GetOutcome() == tokenbrokerv1.ReportOutcome_REPORT_OUTCOME_WAIT && r.GetRetryDelay().AsDuration() > 0 {
				waits++
			}
			generation = r.GetToken().GetGeneration()
			time.Sleep(time.Second)
		}
		// 30 s, 60 s, 120 s, … : within a quarter of an hour the interval is over four times.
		if n := b.Sandbox.Count(sandbox.Filter{}); n > 5 || n < 3 || waits < 850 {
			t.Errorf("a liar caused %d exchanges and was told to wait %d times, want at most 5 exchanges", n, waits)
		}
	})
}

func TestMetricsAndLogsShowTheCodesThatClientsSee(t *testing.T) {
	log := &syncBuffer{}
	b := brokertest.Start(t, brokertest.Config{Ops: true, Log: log})
	b.AddClientCredentials("example/api", "files.read")
	wantFault(t, get(&tokenbrokerv1.GetTokenRequest{Credential: "example/none"})(brief(t), b.Worker()), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	wantFault(t, about("Get", "example/none")(brief(t), b.Operator()), codes.NotFound, "CREDENTIAL_NOT_FOUND")
	wantFault(t, subscribe()(brief(t), b.Worker()), codes.InvalidArgument, "FIELD_VIOLATION")
	for _, row := range []struct{ method, code string }{{"GetToken", "NotFound"}, {"GetCredential", "NotFound"}, {"Subscribe", "InvalidArgument"}} {
		if n := metric(t, b, "grpc_server_handled_total", `grpc_method="`+row.method+`"`, `grpc_code="`+row.code+`"`); n != 1 {
			t.Errorf("/metrics counts %v of %s with %s, want 1", n, row.method, row.code)
		}
	}
	if n := metric(t, b, "grpc_server_handled_total", `grpc_code="Unknown"`); n != 0 {
		t.Errorf("/metrics counts %v calls that ended with Unknown, want none", n)
	}
	if text := log.String(); !strings.Contains(text, "grpc.code=NotFound") || strings.Contains(text, "grpc.code=Unknown") {
		t.Errorf("got log %q, want the code of the operator's call", text)
	}
}
