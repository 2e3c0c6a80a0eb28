package mtls_test

import (
	"cmp"
	"context"
	"encoding/pem"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// agent is a SPIFFE Workload API on a unix socket, as an agent of SPIRE serves it.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	t      *testing.T
	socket string // its address
	served sync.WaitGroup

	mu      sync.Mutex
	server  *grpc.Server
	says    *workload.X509SVIDResponse // nil = it knows of no entry for us
	refuses codes.Code                 // what it says while says is nil; 0 = PermissionDenied
	changed chan struct{}              // closed at a change
	streams int
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") //nolint:usetesting // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, socket: "unix://" + filepath.Join(dir, "s"), changed: make(chan struct{})}
	t.Cleanup(func() { a.stop(); os.RemoveAll(dir) })
	return a
}

// start serves on the socket.
func (a *agent) start() *agent {
	a.t.Helper()
	l, err := net.Listen("unix", strings.TrimPrefix(a.socket, "unix://"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	server := grpc.NewServer()
	a.server = server
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	a.served.Go(func() { _ = server.Serve(l) })
	return a
}

// stop is an outage.
func (a *agent) stop() {
	a.mu.Lock()
	server := a.server
	a.server = nil
	a.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	a.served.Wait()
}

// say gives a certificate, the bundle of its domain, and those of others.
func (a *agent) say(p pair, ca []byte, others map[string][]byte) *agent {
	a.t.Helper()
	cert, _ := pem.Decode(p.cert)
	key, _ := pem.Decode(p.key)
	leaf := parse(a.t, p.cert)
	says := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}, Svids: []*workload.X509SVID{{
		SpiffeId: leaf.URIs[0].String(), X509Svid: cert.Bytes, X509SvidKey: key.Bytes, Bundle: ders(ca)}}}
	for name, data := range maps.All(others) {
		says.FederatedBundles["spiffe://"+name] = ders(data)
	}
	a.tell(says)
	return a
}

// refuse ends every stream with a code.
func (a *agent) refuse(code codes.Code) {
	a.mu.Lock()
	a.refuses = code
	a.mu.Unlock()
	a.tell(nil)
}

func (a *agent) tell(says *workload.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says = says
	close(a.changed)
	a.changed = make(chan struct{})
}

// ders are the certificates of a PEM file, one after the other.
func ders(data []byte) []byte {
	var all [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, block.Bytes)
	}
	return slices.Concat(all...)
}

// FetchX509SVID implements workload.SpiffeWorkloadAPIServer.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, out grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(out.Context()); !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		a.mu.Lock()
		says, refuses, changed := a.says, a.refuses, a.changed
		a.streams++
		a.mu.Unlock()
		if says == nil {
			return status.Error(cmp.Or(refuses, codes.PermissionDenied), "no identity issued")
		}
		if err := out.Send(says); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

func (a *agent) open(w mtls.Workload) *mtls.Source {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	w.Socket = a.socket
	s, err := mtls.OpenWorkload(ctx, w)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

// follow runs Watch. news waits for what it tells next.
func follow(t *testing.T, s *mtls.Source) (news func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan error, 100)
	var done sync.WaitGroup
	done.Go(func() { s.Watch(ctx, time.Hour, func(err error) { told <- err }) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return func() error {
		t.Helper()
		select {
		case err := <-told:
			return err
		case <-time.After(time.Minute):
			t.Fatal("no news in a minute")
			return nil
		}
	}
}
