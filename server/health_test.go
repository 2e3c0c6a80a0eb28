package server_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// services lists the services by reflection.
func services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	s, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if err != nil && !errors.Is(err, io.EOF) { // the server has ended the stream: Recv says why
		return nil, err
	}
	r, err := s.Recv()
	var names []string
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, err
}

func TestReflectionIsForThoseWhomThePolicyLets(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	ctx, cancel := context.WithCancel(brief(t))
	defer cancel()
	names, err := services(ctx, b.Operator())
	if err != nil || !slices.Contains(names, tokenbrokerv1.TokenService_ServiceDesc.ServiceName) {
		t.Errorf("the operator got %v, %v; want the services", names, err)
	}
	_, err = services(ctx, b.Worker())
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	old, err := reflectionv1alpha.NewServerReflectionClient(b.Worker()).ServerReflectionInfo(ctx)
	if err == nil {
		_, err = old.Recv()
	}
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	var uses []string
	for _, l := range auditLines(t, b) {
		if l.Action == "reflection.use" {
			uses = append(uses, l.Decision)
		}
	}
	if want := []string{"allow", "deny", "deny"}; !slices.Equal(uses, want) {
		t.Errorf("got records %v, want %v", uses, want)
	}
}

func TestHealthIsOpenToEveryIdentity(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	health := grpc_health_v1.NewHealthClient(b.Conn(domain + "/nobody/1"))
	for _, service := range []string{"", "readiness", "liveness", tokenbrokerv1.TokenService_ServiceDesc.ServiceName, tokenbrokerv1.CredentialService_ServiceDesc.ServiceName,
		tokenbrokerv1.OAuthClientService_ServiceDesc.ServiceName} {
		r, err := health.Check(brief(t), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || r.GetStatus() != serving {
			t.Errorf("%q: got %v, %v; want SERVING", service, r.GetStatus(), err)
		}
	}
	l, err := health.List(brief(t), &grpc_health_v1.HealthListRequest{})
	if err != nil || len(l.GetStatuses()) != 6 {
		t.Errorf("got %v, %v; want six services", l, err)
	}
	_, err = health.Check(brief(t), &grpc_health_v1.HealthCheckRequest{Service: "unknown"})
	if f := faultOf(t, err); f.Code != codes.NotFound {
		t.Errorf("got %v for an unknown service, want NOT_FOUND", f.Code)
	}
}

func TestHealthFollowsReadinessUntilTheDrain(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	r := newRig(t, b, nil)
	if err := r.Ready(); err == nil {
		t.Error("ready before SetServing")
	}
	health := grpc_health_v1.NewHealthClient(r.serve(brokertest.WorkerID))
	check := func(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		resp, err := health.Check(brief(t), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	if check("readiness") != serving || r.Ready() != nil {
		t.Errorf("got %v, %v; want SERVING", check("readiness"), r.Ready())
	}
	r.SetServing(false)
	if check("readiness") != notServing || check("") != notServing || check("liveness") != serving || r.Ready() == nil {
		t.Errorf("got %v and liveness %v, want only liveness", check("readiness"), check("liveness"))
	}
}

func TestASetServingAfterTheDrainHasNoEffect(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	r := newRig(t, b, nil)
	r.serve(brokertest.WorkerID)
	r.Drain(brief(t))
	r.SetServing(true)
	if err := r.Ready(); err == nil {
		t.Error("a drained server is ready")
	}
	r.Drain(brief(t)) // again
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	if _, err := server.New(server.Config{}); err == nil {
		t.Error("got a server of nothing")
	}
}

// Many streams and calls share one snapshot's messages; the race detector sees to it that nobody writes to them.
func TestSharedMessagesAreNeverChanged(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	tok := b.Token("example/api")
	conns := []*grpc.ClientConn{b.Worker(), b.Conn(worker("a")), b.Conn(worker("b"))}
	each(60, func(i int) {
		conn := conns[i%len(conns)]
		if i%3 == 0 {
			w := watch(t, conn, sel("example/api"))
			if got := w.ready(0).GetToken().GetAccessToken(); got != tok.GetAccessToken() {
				t.Error("a stream got another token")
			}
			return
		}
		for range 20 {
			r, err := tokensOf(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			if err != nil || r.GetToken().GetAccessToken() != tok.GetAccessToken() {
				t.Errorf("got %v, %v", r.GetToken().GetGeneration(), err)
			}
			if _, err := tokensOf(conn).ReportRejected(t.Context(), &tokenbrokerv1.ReportRejectedRequest{Credential: "example/api", Generation: tok.GetGeneration(), HttpStatus: 403}); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNoLogLinePerRead(t *testing.T) {
	log := &syncBuffer{}
	b := brokertest.Start(t, brokertest.Config{Log: log})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	before := log.String()
	for range 50 {
		b.Token("example/api")
		_ = get(&tokenbrokerv1.GetTokenRequest{Credential: "example/none"})(brief(t), b.Worker())
	}
	watch(t, b.Worker(), sel("example/api")).ready(0)
	if after := log.String(); after != before {
		t.Errorf("reading logged %q", after[len(before):])
	}
	_ = list(0, "")(brief(t), b.Operator())
	eventually(t, "operators' calls are logged", func() bool { return len(log.String()) > len(before) })
}
