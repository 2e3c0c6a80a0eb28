package fleet_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/mtls"
)

const idHeader = "X-Request" // says which request of a worker an attempt is of

// attempt is one try of a request, as the resource server saw it.
type attempt struct {
	at     time.Time
	token  string
	status int
}

// resource is an API that takes tokens, and breaks them.
type resource struct {
	*ledger
	url, grpcAddr string
	pem           []byte
	cert          tls.Certificate

	mu       sync.Mutex
	dice     *rand.Rand
	spite    map[string]bool      // credential → its next request is refused for no reason
	attempts map[string][]attempt // request → its tries
	counts   map[int]int          // status → replies
}

func newResource(t testing.TB, l *ledger, dice *rand.Rand) *resource {
	t.Helper()
	r := &resource{ledger: l, dice: dice, spite: map[string]bool{}, attempts: map[string][]attempt{}, counts: map[int]int{}}
	srv := httptest.NewUnstartedServer(r)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca, err := mtls.NewCA("the API's", time.Hour)
	must(t, err)
	cert, key, err := ca.Issue(mtls.Template{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, NotAfter: time.Now().Add(time.Hour)})
	must(t, err)
	r.cert, err = tls.X509KeyPair(cert, key) // not httptest's own: signing with RSA is most of what short processes would wait for
	must(t, err)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{r.cert}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	r.url, r.pem = srv.URL, ca.CertPEM()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	r.serveGRPC(t)
	return r
}

// ServeHTTP implements http.Handler.
func (r *resource) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	if req.URL.Path != "/reports" { // it is only asked whether it is there
		return
	}
	switch code := r.judge(req.Header.Get("Authorization"), req.Header.Get(idHeader)); code {
	case http.StatusUnauthorized:
		r.challenge(w)
		w.WriteHeader(code)
	case http.StatusForbidden:
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="everything.write"`)
		w.WriteHeader(code)
	default:
		w.WriteHeader(code)
	}
}

// challenge says why, or something less.
func (r *resource) challenge(w http.ResponseWriter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.dice.IntN(4) {
	case 0: // nothing at all
	case 1:
		w.Header().Set("WWW-Authenticate", `Bearer realm="api"`)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token", error_description="it is over"`)
	}
}

// judge looks at the token of an attempt.
func (r *resource) judge(authorization, id string) int {
	token := strings.TrimPrefix(authorization, "Bearer ")
	one, good := r.find(token)
	r.mu.Lock()
	defer r.mu.Unlock()
	code := http.StatusOK
	switch first := len(r.attempts[id]) == 0; {
	case !good:
		code = http.StatusUnauthorized
	case first && r.spite[one.credential]:
		delete(r.spite, one.credential)
		code = http.StatusUnauthorized
	case r.dice.IntN(50) == 0:
		code = http.StatusForbidden
	}
	r.counts[code]++
	r.attempts[id] = append(r.attempts[id], attempt{at: time.Now(), token: token, status: code})
	return code
}

// tries are the attempts of a request.
func (r *resource) tries(id string) []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts[id]
}

// refuseOnce has the next request with a token of a credential refused.
func (r *resource) refuseOnce(credential string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spite[credential] = true
}

// serveGRPC serves the same over gRPC. Its one service is that of health.
func (r *resource) serveGRPC(t testing.TB) {
	t.Helper()
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&r.cert)), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			value := func(name string) string { return strings.Join(md.Get(name), "") }
			switch r.judge(value("authorization"), value(idHeader)) {
			case http.StatusUnauthorized:
				return nil, status.Error(codes.Unauthenticated, "invalid_token")
			case http.StatusForbidden:
				return nil, status.Error(codes.PermissionDenied, "insufficient_scope")
			}
			return next(ctx, req)
		}))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.grpcAddr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Stop()
		wg.Wait()
	})
}
