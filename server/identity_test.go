package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// put replaces a file by rename.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// leaf is a certificate that the broker's CA, or another, issued.
func leaf(t *testing.T, ca *mtls.CA, tmpl mtls.Template) (cert, key []byte) {
	t.Helper()
	cert, key, err := ca.Issue(tmpl)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestS08AClaimedIdentityIsIgnored(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	claims := metadata.Pairs("x-forwarded-client-cert", "URI="+brokertest.OperatorID, "x-client-identity", brokertest.OperatorID,
		"x-spiffe-id", brokertest.OperatorID, "identity", brokertest.OperatorID, "authorization", "Bearer "+brokertest.OperatorID)
	ctx := metadata.NewOutgoingContext(brief(t), claims)
	conn := b.Worker()
	_, err := credentialsOf(conn).ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	if _, err := tokensOf(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
		t.Errorf("as itself: got %v", err)
	}
	for _, l := range auditLines(t, b) {
		if l.Kind == "call" && l.Action == "credential.list" && (l.Identity != brokertest.WorkerID || l.Decision != "deny") {
			t.Errorf("got a record of %q, %s, want of the worker, denied", l.Identity, l.Decision)
		}
	}
}

// apart is a broker whose operators have a listener and a CA of their own.
type apart struct {
	*brokertest.Broker
	ca    *mtls.CA // of operators
	admin net.Listener
}

func startApart(t *testing.T) *apart {
	t.Helper()
	ca, err := mtls.NewCA("operators", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &apart{ca: ca}
	if a.admin, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "operators.pem")
	put(t, file, ca.CertPEM())
	a.Broker = brokertest.Start(t, brokertest.Config{TCP: true, Settings: func(c *daemon.Config) {
		c.Admin = daemon.Admin{Listener: a.admin, TLS: mtls.Files{CA: file}}
	}})
	return a
}

// dial connects with a certificate of one of the CAs.
func (a *apart) dial(t *testing.T, to net.Addr, ca *mtls.CA, identity string) *grpc.ClientConn {
	t.Helper()
	cert, key := leaf(t, ca, mtls.Template{SPIFFEID: identity, Client: true})
	return dialTLS(t, to, clientTLSWith(t, a.Broker, cert, key))
}

func TestS06AWorkersCertificateEndsInTheHandshakeOfOperators(t *testing.T) {
	a := startApart(t)
	for what, conn := range map[string]*grpc.ClientConn{
		"a worker's at the listener of operators":      a.dial(t, a.admin.Addr(), a.CA(), brokertest.WorkerID),
		"an operator's name of the workers' CA there":  a.dial(t, a.admin.Addr(), a.CA(), brokertest.OperatorID),
		"an operator's at the listener of workers":     a.dial(t, a.Daemon.Addr(), a.ca, brokertest.OperatorID),
		"a worker's name of the operators' CA with it": a.dial(t, a.Daemon.Addr(), a.ca, brokertest.WorkerID),
	} {
		if _, err := credentialsOf(conn).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v, want no connection", what, err)
		}
	}
	for _, l := range auditLines(t, a.Broker) {
		if l.Kind == "call" {
			t.Errorf("a call was recorded: %+v", l)
		}
	}
}

func TestTheListenerOfWorkersServesWorkersAlone(t *testing.T) {
	a := startApart(t)
	// The operator's name, but by the listener of workers: the policy would allow it all.
	workers, admin := a.dial(t, a.Daemon.Addr(), a.CA(), brokertest.OperatorID), a.dial(t, a.admin.Addr(), a.ca, brokertest.OperatorID)
	_, err := credentialsOf(workers).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{})
	wantFault(t, err, codes.Unimplemented, "UNKNOWN_METHOD")
	if _, err := credentialsOf(admin).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{}); err != nil {
		t.Errorf("at the listener of operators: %v", err)
	}
	for what, conn := range map[string]*grpc.ClientConn{"workers": workers, "operators": admin} {
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(brief(t), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("health at the listener of %s: %v", what, err)
		}
		_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/none"})
		wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	}
	if got := shown(t, workers); strings.Contains(got, "CredentialService") || !strings.Contains(got, "TokenService") {
		t.Errorf("workers are shown %s", got)
	}
	if got := shown(t, admin); !strings.Contains(got, "CredentialService") || !strings.Contains(got, "TokenService") {
		t.Errorf("operators are shown %s", got)
	}
}

// shown lists what reflection shows.
func shown(t *testing.T, conn *grpc.ClientConn) string {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(brief(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return strings.Join(names, " ")
}

// TestTheTableSaysWhatEachListenerServes walks what both have registered.
func TestTheTableSaysWhatEachListenerServes(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	operators, err := mtls.Open(b.Files(mtls.Template{SPIFFEID: brokertest.ServerID, Client: true, Server: true}))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, b, func(c *server.Config) { c.Admin = operators })
	all := map[string]bool{}
	for _, m := range r.AdminMethods() {
		all[m] = true
	}
	if len(all) != server.GuardedMethods() {
		t.Errorf("operators are served %d methods, the table has %d", len(all), server.GuardedMethods())
	}
	served := map[string]bool{}
	for _, m := range r.Methods() {
		served[m] = true
	}
	for m := range all {
		if served[m] != server.ForWorkers(m) {
			t.Errorf("%s: served to workers %v, in the table %v", m, served[m], server.ForWorkers(m))
		}
	}
}

func TestADrainEndsBothListeners(t *testing.T) {
	a := startApart(t)
	conns := []*grpc.ClientConn{a.dial(t, a.Daemon.Addr(), a.CA(), brokertest.WorkerID), a.dial(t, a.admin.Addr(), a.ca, brokertest.OperatorID)}
	var watches []grpc.ServerStreamingClient[grpc_health_v1.HealthCheckResponse]
	for _, conn := range conns {
		w, err := grpc_health_v1.NewHealthClient(conn).Watch(brief(t), &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, w)
	}
	a.Shutdown()
	for i, w := range watches {
		for err := error(nil); err == nil; {
			if _, err = w.Recv(); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) {
				t.Errorf("watch %d: got %v", i, err)
			}
		}
		if _, err := grpc_health_v1.NewHealthClient(conns[i]).Check(brief(t), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("listener %d after the drain: got %v", i, err)
		}
	}
}

func TestTheRecordOfTheStartNamesTheListenerOfOperators(t *testing.T) {
	a := startApart(t)
	want := "admin " + a.admin.Addr().String()
	eventually(t, "a start in the audit log has "+want, func() bool {
		log, err := os.ReadFile(filepath.Join(a.Dir, "audit.jsonl"))
		return err == nil && strings.Contains(string(log), want)
	})
}

// TestACAOfBothListenersIsRefused holds the start to what S6 needs.
func TestACAOfBothListenersIsRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	path := func(name string) string { return filepath.Join(b.Dir, name) }
	cfg := daemon.Config{TLS: mtls.Files{Cert: path("server.pem"), Key: path("server.key"), CA: path("ca.pem")}, KEKFile: path("kek.key"),
		PolicyFile: path("policy.yaml"), Admin: daemon.Admin{Listen: "127.0.0.1:0", TLS: mtls.Files{CA: path("ca.pem")}}}
	if _, err := daemon.Check(cfg); err == nil || !strings.Contains(err.Error(), "each needs CAs of its own") {
		t.Errorf("one CA for both: got %v", err)
	}
	cfg.Admin.TLS = mtls.Files{}
	if _, err := daemon.Check(cfg); err == nil || !strings.Contains(err.Error(), "admin_listen needs the CAs of operators") {
		t.Errorf("no CA for operators: got %v", err)
	}
	cfg.Admin = daemon.Admin{TLS: mtls.Files{CA: path("ca.pem")}}
	if _, err := daemon.Check(cfg); err == nil || !strings.Contains(err.Error(), "of no use without admin_listen") {
		t.Errorf("CAs without a listener: got %v", err)
	}
}

func TestS04TicketsAreNotGivenOut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	cfg := clientTLS(t, b, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 { // a second time with whatever the first gave
		conn := dialTLS(t, b.Daemon.Addr(), cfg)
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(brief(t), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	if _, ok := cfg.ClientSessionCache.Get("localhost"); ok {
		t.Error("the listener gave out a ticket")
	}
}
