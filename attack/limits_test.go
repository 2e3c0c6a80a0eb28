package attack_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/attack/wire"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestS15NamesBeyondTheLimits asks for too much at once: it is refused before anything is looked up, and leaves next to nothing in the log.
func TestS15NamesBeyondTheLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	w.memoryWarm()
	mem, mallory := w.memory(), w.conn(w.as("worker/mallory"))
	before := len(w.read("audit.jsonl"))
	many := func(n int) []string { return names("example/one", n) }
	for name, c := range map[string]struct {
		ask  []string
		want codes.Code
	}{
		"257 names":          {many(257), codes.InvalidArgument},
		"5,000 names":        {many(5_000), codes.InvalidArgument},
		"many more names":    {many(count(50_000, 1_000_000)), codes.ResourceExhausted},
		"a name of 100 kB":   {[]string{"example/" + strings.Repeat("a", 100<<10)}, codes.InvalidArgument},
		"a name of 1 MB":     {[]string{"example/" + strings.Repeat("a", 1<<20)}, codes.ResourceExhausted},
		"a name of 129":      {[]string{"example/" + strings.Repeat("a", 121)}, codes.InvalidArgument},
		"a name with \\x00":  {[]string{"example/one\x00"}, codes.InvalidArgument},
		"a name and itself":  {[]string{"example/one", "example/one"}, codes.InvalidArgument},
		"a name of segments": {[]string{strings.Repeat("a/", 60) + "a/../b"}, codes.InvalidArgument},
		"none":               {nil, codes.InvalidArgument},
	} {
		s, err := subscribe(brief(t), mallory, c.ask...)
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != c.want {
			t.Errorf("subscribe to %s: got %.200v, want %v", name, err, c.want)
		}
		if len(c.ask) != 1 {
			continue
		}
		if _, err := get(brief(t), mallory, c.ask[0]); status.Code(err) != c.want {
			t.Errorf("get %s: got %.200v, want %v", name, err, c.want)
		}
	}
	for _, r := range w.records("worker/mallory") {
		if r.Decision == "allow" && r.Code == "OK" || len(r.Credential) > 128 {
			t.Errorf("got record %.300v, want none of anything given out, or that repeats what was sent", r)
		}
	}
	t.Logf("the log grew by %d bytes meanwhile, the victim's calls included", len(w.read("audit.jsonl"))-before)
	mem.atMost(t, mostGrowth)
	v.well(t)
}

// TestS20LabelsAreBounded calls with many long identities, of many credentials and methods that are not there, and adds credentials.
func TestS20LabelsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	one, err := get(brief(t), w.operator, "example/one")
	must(t, err)
	_, before := w.ask("/metrics")
	for i := range count(40, 2_000) {
		w.hostile(fmt.Sprintf("worker/hostile-%d-%s", i, strings.Repeat("x", 1800)), i)
	}
	for i := range count(20, 1_200) {
		w.add(fmt.Sprintf("example/added-%d", i))
	}
	_, after := w.ask("/metrics")
	for _, never := range []string{one.GetAccessToken(), secret, "hostile", "does-not-exist", "NoSuch", "victim", "worker/"} {
		if strings.Contains(after, never) {
			t.Errorf("/metrics holds %q", never[:min(12, len(never))])
		}
	}
	if got, most := series(after, "added-"), 1_000; got > most {
		t.Errorf("got %d series with names of credentials, want at most %d", got, most)
	}
	// What is new may be of the credentials, and of the methods and codes that were seen for the first time.
	if grew := series(after, "") - series(after, "added-") - series(before, ""); grew > count(150, 400) { // HTTP statuses are labels, too
		t.Errorf("got %d new series, want few, whoever calls", grew)
	} else {
		t.Logf("%d series before, %d after", series(before, ""), series(after, ""))
	}
	v.well(t)
}

// hostile calls as an identity what is not there, in all the ways that could leave a trace.
func (w *world) hostile(identity string, i int) {
	w.t.Helper()
	conn := w.conn(w.as(identity))
	defer func() { _ = conn.Close() }()
	ctx := brief(w.t)
	for _, name := range []string{fmt.Sprintf("example/does-not-exist-%d", i), "example/\xff\"}\n# HELP x", strings.Repeat("n", 500)} {
		if _, err := get(ctx, conn, name); err == nil {
			w.t.Errorf("got a token of %q", name)
		}
	}
	for _, method := range []string{fmt.Sprintf("/NoSuch%d/Method", i), fmt.Sprintf("/tokenbroker.v1.TokenService/NoSuch%d", i), "/a\"b{c=\"d\"}/NoSuch"} {
		err := conn.Invoke(ctx, method, &tokenbrokerv1.GetTokenRequest{}, &tokenbrokerv1.GetTokenResponse{})
		if status.Code(err) != codes.Unimplemented {
			w.t.Errorf("%s: got %v, want UNIMPLEMENTED", method, err)
		}
	}
	tok, err := get(ctx, conn, "example/one")
	must(w.t, err)
	_, err = tokenbrokerv1.NewTokenServiceClient(conn).ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: "example/one",
		Generation: tok.GetGeneration(), HttpStatus: int32(400 + i%200), ErrorCode: fmt.Sprintf("code-%d", i)})
	must(w.t, err)
}

// series counts lines of /metrics that hold a text.
func series(text, holds string) (n int) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && strings.Contains(line, holds) {
			n++
		}
	}
	return n
}

// TestS21NoDebugging looks for what shows the inside of a process on every listener of the network.
func TestS21NoDebugging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/vars",
		"/debug/requests", "/debug/events", "/channelz", "/", "/config", "/metrics/../debug/pprof/", "//debug/pprof/", "/debug/pprof/trace?seconds=1"} {
		if code, text := w.ask(path); code != 404 && code != 0 {
			t.Errorf("ops listener, %s: got %d, %.80q, want 404", path, code, text)
		}
		c := w.dial("operator/admin", wire.Options{})
		must(t, c.Headers(1, true, wire.Fields(path)...))
		ended(t, c, 1)
		wantNoAnswer(t, c, "12")
		must(t, c.Headers(3, true, append(wire.Fields(path)[1:4:4], pseudo(":method", "GET")[0])...)) // as a browser would
		ended(t, c, 3)
		_ = c.Close()
	}
	for _, method := range []string{"/grpc.channelz.v1.Channelz/GetServers", "/grpc.channelz.v1.Channelz/GetTopChannels", "/grpc.channelz.v1.Channelz/GetServerSockets",
		"/grpc.binarylog.v1.Sink/Write", "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"} {
		err := w.operator.Invoke(brief(t), method, &tokenbrokerv1.GetTokenRequest{}, &tokenbrokerv1.GetTokenResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v, want UNIMPLEMENTED", method, err)
		}
	}
	v.well(t)
}

// TestS21ReflectionIsForThoseWhoMay asks for the list of services, in both versions, with and without the right to.
func TestS21ReflectionIsForThoseWhoMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	services, err := reflect(brief(t), w.operator)
	must(t, err)
	if !strings.Contains(strings.Join(services, " "), "tokenbroker.v1.TokenService") {
		t.Errorf("got services %v, want those of the broker", services)
	}
	if services, err := reflect(brief(t), w.conn(w.as("worker/mallory"))); status.Code(err) != codes.PermissionDenied || len(services) > 0 {
		t.Errorf("got %v, %v without the right to it, want PERMISSION_DENIED", services, err)
	}
	if got := w.records("worker/mallory"); len(got) != 1 || got[0].Decision != "deny" || got[0].Action != "reflection.use" {
		t.Errorf("got records %+v, want one that denies reflection.use", got)
	}
	other, err := mtls.NewCA("other", time.Hour)
	must(t, err)
	stranger := w.with(other, mtls.Template{SPIFFEID: domain + "operator/admin", Client: true})
	if services, err := reflect(brief(t), w.conn(stranger)); err == nil {
		t.Errorf("got %v with a certificate of another CA", services)
	}
	v.well(t)
}

func reflect(ctx context.Context, conn *grpc.ClientConn) (services []string, err error) {
	s, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	m, recvErr := s.Recv()
	for _, svc := range m.GetListServicesResponse().GetService() {
		services = append(services, svc.GetName())
	}
	if recvErr != nil {
		err = recvErr
	}
	return services, errors.Join(err, s.CloseSend())
}
