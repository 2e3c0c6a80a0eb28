package brokertest

import (
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// WorkloadAPI serves the SPIFFE Workload API on a unix socket until the test ends, as an agent does on a worker's machine. To whoever asks
// it gives one certificate, of ca and as the template says, and ca as the bundle of its trust domain. It returns the address.
func WorkloadAPI(t testing.TB, ca *mtls.CA, tmpl mtls.Template) string {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	cert, key, err := ca.Issue(tmpl)
	must("issue a certificate", err)
	der := func(data []byte) []byte {
		block, _ := pem.Decode(data)
		return block.Bytes
	}
	dir, err := os.MkdirTemp("", "workload") //nolint:usetesting // the name of a socket has to be short
	must("make a folder", err)
	l, err := net.Listen("unix", filepath.Join(dir, "api"))
	must("listen", err)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, &workloadAPI{says: &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: tmpl.SPIFFEID, X509Svid: der(cert), X509SvidKey: der(key), Bundle: der(ca.CertPEM())}}}})
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
		_ = os.RemoveAll(dir)
	})
	return "unix://" + l.Addr().String()
}

// workloadAPI says always the same.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	says *workload.X509SVIDResponse
}

// FetchX509SVID implements workload.SpiffeWorkloadAPIServer.
func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, out grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(out.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "the header workload.spiffe.io is missing")
	}
	if err := out.Send(a.says); err != nil {
		return err
	}
	<-out.Context().Done()
	return out.Context().Err()
}
