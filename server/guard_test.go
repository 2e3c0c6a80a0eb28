package server_test

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

func TestInvariant10EveryRegisteredMethodIsInTheGuardsTable(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	methods := newRig(t, b, nil).Methods()
	for _, service := range []string{"TokenService", "CredentialService", "OAuthClientService", "grpc.health.v1.Health", "ServerReflection"} {
		if !slices.ContainsFunc(methods, func(m string) bool { return strings.Contains(m, service) }) {
			t.Errorf("service %s is not registered", service)
		}
	}
	for _, m := range methods {
		action, open, ok := server.Guarded(m)
		switch {
		case !ok:
			t.Errorf("method %s is not in the guard's table", m)
		case open != strings.HasPrefix(m, "/grpc.health.v1.Health/"):
			t.Errorf("method %s: got open=%v; only health is open", m, open)
		case !open && !slices.Contains(policy.Actions(), policy.Action(action)):
			t.Errorf("method %s asks for action %q, which the policy does not know", m, action)
		}
	}
	if got, want := server.GuardedMethods(), len(methods); got != want {
		t.Errorf("the guard's table has %d methods, %d are registered", got, want)
	}
}

func TestInvariant10AnUnknownMethodIsDenied(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	for _, m := range []string{"/tokenbroker.v1.TokenService/StealToken", "/tokenbroker.v1.AdminService/GetToken", "/tokenbroker.v1.TokenService/gettoken"} {
		err := b.Operator().Invoke(brief(t), m, &emptypb.Empty{}, &emptypb.Empty{})
		wantFault(t, err, codes.Unimplemented, "UNKNOWN_METHOD")
	}
}

// rawCall sends one unary call by frames, with a path as it stands, and returns grpc-status, or "reset".
func rawCall(t *testing.T, addr net.Addr, cfg *tls.Config, path string, message []byte) string {
	t.Helper()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(brief(t), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	for _, err := range []error{f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true}),
		f.WriteData(1, true, append(body, message...))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return rawStatus(t, f)
}

func rawStatus(t *testing.T, f *http2.Framer) string {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("read a frame: %v", err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range frame.Fields {
				if h.Name == "grpc-status" {
					return h.Value
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

func TestInvariant10NoPathTrickReachesAHandler(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	b.AddClientCredentials("example/api", "files.read")
	cfg := clientTLS(t, b, mtls.Template{SPIFFEID: brokertest.OperatorID, Client: true})
	message, err := proto.Marshal(&tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if err != nil {
		t.Fatal(err)
	}
	good := tokenbrokerv1.TokenService_GetToken_FullMethodName
	refused := []string{strconv.Itoa(int(codes.Unimplemented)), strconv.Itoa(int(codes.PermissionDenied)), "reset"}
	for _, path := range []string{
		strings.TrimPrefix(good, "/"), "/" + good, "/." + good, "/x/.." + good, good + "/", good + "?x=1", good + "#x", strings.ToUpper(good),
		"/tokenbroker.v1.CredentialService/../TokenService/GetToken", "/tokenbroker.v1.TokenService//GetToken", "/tokenbroker.v1.TokenService/./GetToken",
		"/tokenbroker.v1.TokenService%2fGetToken", "/tokenbroker.v1.TokenService/GetToken%00", "https://localhost" + good, "/", "", "*", "/GetToken",
	} {
		if got := rawCall(t, b.Daemon.Addr(), cfg, path, message); !slices.Contains(refused, got) {
			t.Errorf("path %q: got grpc-status %s, want one of %v", path, got, refused)
		}
	}
	calls := func() (n int) {
		for _, l := range auditLines(t, b) {
			if l.Kind == "call" && l.Action == "token.get" {
				n++
			}
		}
		return n
	}
	if n := calls(); n != 0 {
		t.Errorf("%d calls reached the guard by path tricks", n)
	}
	if got := rawCall(t, b.Daemon.Addr(), cfg, good, message); got != "0" || calls() != 1 {
		t.Errorf("the true path: got grpc-status %s and %d calls, want 0 and 1", got, calls())
	}
}

func TestAnIdentityInAHeaderIsIgnored(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	ctx := metadata.AppendToOutgoingContext(brief(t), "x-forwarded-client-cert", "URI="+brokertest.OperatorID, "x-identity", brokertest.OperatorID)
	_, err := credentialsOf(b.Worker()).GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: "example/api"})
	wantFault(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	if n := b.Sandbox.Count(sandbox.Filter{Endpoint: sandbox.EndpointResource}); n != 0 {
		t.Errorf("got %d calls of the resource, want 0", n)
	}
}
