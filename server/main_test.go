package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "spiffe://" + brokertest.TrustDomain

func worker(name string) string { return domain + "/worker/" + name }

// patience is how long a test waits for what must come. It is never waited out when all is well.
const patience = 2 * time.Minute

func brief(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fault is an error as a client sees it.
type fault struct {
	Code     codes.Code
	Reason   string
	Recovery string
	Retry    time.Duration
	Fields   []string
	Meta     map[string]string
	Text     string
}

// faultOf reads an error that came over the wire. It has to hold exactly one ErrorInfo.
func faultOf(t *testing.T, err error) fault {
	t.Helper()
	st := status.Convert(err)
	f := fault{Code: st.Code(), Text: st.Message()}
	infos := 0
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			infos++
			f.Reason, f.Recovery, f.Meta = d.GetReason(), d.GetMetadata()["recoveryAction"], d.GetMetadata()
			if d.GetDomain() != server.Domain {
				t.Errorf("got domain %q, want %q", d.GetDomain(), server.Domain)
			}
		case *errdetails.RetryInfo:
			f.Retry = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.Fields = append(f.Fields, v.GetField())
			}
		default:
			t.Errorf("unexpected detail %T", d)
		}
	}
	if infos != 1 {
		t.Errorf("got %d ErrorInfos in %v, want 1", infos, err)
	}
	return f
}

// wantFault checks code and reason of an error.
func wantFault(t *testing.T, err error, code codes.Code, reason string) fault {
	t.Helper()
	f := faultOf(t, err)
	if f.Code != code || f.Reason != reason {
		t.Errorf("got %v %s (%s), want %v %s", f.Code, f.Reason, f.Text, code, reason)
	}
	return f
}

// rig is a server of the test's own over a broker's engine, so that a test can bring the parts that fail.
type rig struct {
	*server.Server
	t   *testing.T
	b   *brokertest.Broker
	mem *brokertest.Listener
}

// records keeps audit records.
type records struct {
	mu   sync.Mutex
	list []audit.Record
}

func (r *records) write(_ context.Context, rec audit.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, rec)
	return nil
}

func (r *records) all() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]audit.Record(nil), r.list...)
}

// newRig makes the server. It is not served yet.
func newRig(t *testing.T, b *brokertest.Broker, change func(*server.Config)) *rig {
	t.Helper()
	file, err := policy.Load(filepath.Join(b.Dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := mtls.Open(mtls.Files{Cert: filepath.Join(b.Dir, "server.pem"), Key: filepath.Join(b.Dir, "server.key"), CA: filepath.Join(b.Dir, "ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{Broker: b.Daemon.Broker(), Policy: file.Current, Audit: new(records).write, TLS: source, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &rig{Server: s, t: t, b: b}
}

// serve serves until the test ends, and returns a connection of an identity.
func (r *rig) serve(identity string) *grpc.ClientConn {
	r.t.Helper()
	r.mem = brokertest.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- r.Serve(r.mem) }()
	r.SetServing(true)
	conn := r.conn(identity)
	r.t.Cleanup(func() {
		_ = conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r.Drain(ctx)
		if err := <-served; err != nil {
			r.t.Errorf("Serve: %v", err)
		}
	})
	return conn
}

func (r *rig) conn(identity string) *grpc.ClientConn {
	r.t.Helper()
	return r.connWith(clientTLS(r.t, r.b, mtls.Template{SPIFFEID: identity, Client: true}))
}

func (r *rig) connWith(cfg *tls.Config) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///rig", grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.mem.DialContext(ctx) }))
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// clientTLS is a TLS configuration with a certificate of the broker's CA.
func clientTLS(t *testing.T, b *brokertest.Broker, tmpl mtls.Template) *tls.Config {
	t.Helper()
	cert, key, err := b.CA().Issue(tmpl)
	if err != nil {
		t.Fatal(err)
	}
	return clientTLSWith(t, b, cert, key)
}

func clientTLSWith(t testing.TB, b *brokertest.Broker, cert, key []byte) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.CA().CertPEM())
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
}

// auditLine is what the tests read of a line of the audit file.
type auditLine struct {
	Seq        uint64   `json:"seq"`
	Kind       string   `json:"kind"`
	Identity   string   `json:"identity"`
	Action     string   `json:"action"`
	Credential string   `json:"credential"`
	Rule       string   `json:"rule"`
	Decision   string   `json:"decision"`
	Reason     string   `json:"reason"`
	Code       string   `json:"code"`
	Generation uint64   `json:"generation"`
	Streams    []uint64 `json:"streams"`
}

// auditLines reads the audit file; every line must be JSON.
func auditLines(t *testing.T, b *brokertest.Broker) []auditLine {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.Dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []auditLine
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		var l auditLine
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatalf("audit line %q: %v", sc.Text(), err)
		}
		lines = append(lines, l)
	}
	return lines
}

// eventually waits in real time until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("in vain: %s", what)
}

func tokensOf(c *grpc.ClientConn) tokenbrokerv1.TokenServiceClient {
	return tokenbrokerv1.NewTokenServiceClient(c)
}
func credentialsOf(c *grpc.ClientConn) tokenbrokerv1.CredentialServiceClient {
	return tokenbrokerv1.NewCredentialServiceClient(c)
}
func clientsOf(c *grpc.ClientConn) tokenbrokerv1.OAuthClientServiceClient {
	return tokenbrokerv1.NewOAuthClientServiceClient(c)
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
