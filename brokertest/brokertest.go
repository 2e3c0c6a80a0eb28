// Package brokertest runs a whole broker inside a test: real mTLS, a real store in a temporary folder, the real engine, and the
// sandbox authorization server in place of providers. For worker authors it is one line:
//
//	b := brokertest.Start(t, brokertest.Config{})
//	b.AddClientCredentials("example/api", "files.read")
//	conn := b.Worker() // a *grpc.ClientConn with the certificate of spiffe://brokertest.local/worker/test
//
// Connections run over memory unless Config.TCP is set, and the sandbox answers without a socket, so a broker can live in a
// testing/synctest bubble: start it inside, and end it before the bubble ends (Stop; t.Cleanup comes too late there).
//
// Whatever goes wrong fails the test; no function returns an error. It is for tests only: its CA is made anew each time and nothing
// survives the test.
package brokertest

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// TrustDomain is the SPIFFE trust domain of every certificate.
const TrustDomain = "brokertest.local"

// Target is an address for grpc.NewClient together with Dialer.
const Target = "passthrough:///broker"

// The identities that DefaultPolicy knows, and that of the broker.
const (
	ServerID   = "spiffe://" + TrustDomain + "/broker"
	OperatorID = "spiffe://" + TrustDomain + "/operator/test"
	WorkerID   = "spiffe://" + TrustDomain + "/worker/test"
)

// DefaultPolicy lets operators do everything, and every worker use the credentials under "example/".
const DefaultPolicy = `version: 1
rules:
  - name: operators
    identities: ["spiffe://brokertest.local/operator/*"]
    actions: ["credential.*", "oauth_client.*", "token.*", "consent.*", "provider.read", "audit.*", "policy.*", "reflection.use"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
    subjects: ["**"]
    audiences: ["**"]
  - name: workers
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["**"]
`

// Config changes what Start makes. The zero value is a good broker.
type Config struct {
	// Policy is the text of the policy file. "" = DefaultPolicy.
	Policy string
	// Issuers are the authorization servers of the sandbox; each is also a provider of that name. nil = "fast" (client credentials and
	// refresh tokens that stay, one hour), "rotating" (strict rotation) and "graceful" (rotation with a minute of grace), each with
	// the client "job" and the secret "s3cret/+ %".
	Issuers []sandbox.Issuer
	// Providers are further providers, by name, as a config file would have them.
	Providers map[string]provider.Profile
	// Upstream answers for a provider in place of the sandbox, where it returns something. nil = the sandbox answers for all.
	Upstream func(provider string) http.RoundTripper
	// Profile changes a provider's profile, which otherwise says what its issuer does. nil = nothing.
	Profile func(issuer string, p *provider.Profile)
	// Limits are the server's.
	Limits server.Limits
	// Lives says how many bytes of memory are in use, for Limits.Memory. nil = as the runtime has it.
	Lives func(fresh bool) int64
	// TCP has the broker listen on a loopback port instead of in memory.
	TCP bool
	// Ops opens the ops listener, on a loopback port.
	Ops bool
	// Web opens the consent listener, on a loopback port; see Broker.WebURL.
	Web bool
	// AuditFile is where the audit log goes. "" = a file in the temporary folder.
	AuditFile string
	// Checkpoints are those of the audit log. The zero value is none.
	Checkpoints daemon.Checkpoints
	// StoreSize bounds the database file in bytes. 0 = no bound.
	StoreSize int64
	// Log takes the broker's log. nil = nowhere.
	Log io.Writer
	// AllowDNS takes the DNS name of a certificate without SPIFFE ID for an identity.
	AllowDNS bool
	// Exchange is how long a token request may take. 0 = 30 s; longer where a fault holds it until a slow machine is ready.
	Exchange time.Duration
	// WatchEvery is how often the broker looks at the policy and its certificates. 0 = 250 ms; longer where fake days have to pass.
	WatchEvery time.Duration
	// CertLife is the life of client certificates. 0 = an hour. The CA and the broker's own live for at least as long, and for a week.
	CertLife time.Duration
	// Settings changes whatever else there is to the broker's configuration. nil = nothing.
	Settings func(*daemon.Config)
	// Observe sees every event of the engine. It must not block, nor call the broker. nil = nobody looks.
	Observe func(broker.Event)
}

// Secret is the secret of the client "job" at the default issuers.
const Secret = "s3cret/+ %"

// Broker is a running broker.
type Broker struct {
	Dir     string // holds all its files: tokenbroker.db, policy.yaml, audit.jsonl, …
	Sandbox *sandbox.Server
	Daemon  *daemon.Daemon
	WebURL  string // with Config.Web: the public URL of the consent listener, whose certificate is of the broker's CA

	t    testing.TB
	cfg  Config
	dc   daemon.Config
	ca   *mtls.CA
	web  string // address of the consent listener
	addr string // over TCP: the same after a Restart, for clients that know no Dialer
	stop context.CancelFunc
	done chan error

	mu    sync.Mutex
	mem   *Listener
	conns []*grpc.ClientConn
	made  map[string]bool // OAuth clients that exist
}

// Start runs a broker until the test ends, or Stop.
func Start(t testing.TB, cfg Config) *Broker {
	t.Helper()
	b := &Broker{Dir: t.TempDir(), t: t, cfg: cfg, made: map[string]bool{}}
	if cfg.TCP {
		b.addr = Addr(t)
	}
	if cfg.Web {
		b.takeWeb()
	}
	b.sandbox()
	b.files()
	b.start()
	t.Cleanup(b.Stop)
	return b
}

func defaultIssuers() []sandbox.Issuer {
	job := []sandbox.Client{{ID: "job", Secrets: []string{Secret}}}
	return []sandbox.Issuer{
		{Name: "fast", Clients: job, Rotation: sandbox.RotateNone, Downscope: true},
		{Name: "rotating", Clients: job, Rotation: sandbox.RotateStrict, Downscope: true},
		{Name: "graceful", Clients: job, Rotation: sandbox.RotateGrace, Grace: time.Minute},
	}
}

func (b *Broker) sandbox() {
	b.t.Helper()
	if b.cfg.Issuers == nil {
		b.cfg.Issuers = defaultIssuers()
	}
	b.registerWeb()
	var err error
	b.Sandbox, err = sandbox.New(sandbox.Config{Issuers: b.cfg.Issuers})
	b.must("make the sandbox", err)
}

// profiles describes the sandbox's issuers as an operator would.
func (b *Broker) profiles() map[string]provider.Profile {
	profiles := map[string]provider.Profile{}
	for _, is := range b.cfg.Issuers {
		rotates, grace := is.Rotation != sandbox.RotateNone, provider.Duration(is.Grace)
		p := provider.Profile{TokenEndpoint: "https://sandbox.example/" + is.Name + "/token",
			Rotates: &rotates, Grace: &grace, KillsOld: &is.KillsOld, Downscopes: &is.Downscope}
		if is.RefreshLife > 0 {
			idle := provider.Duration(is.RefreshLife)
			p.IdleLife = &idle
		}
		consentEndpoints(is, &p)
		if b.cfg.Profile != nil {
			b.cfg.Profile(is.Name, &p)
		}
		profiles[is.Name] = p
	}
	maps.Copy(profiles, b.cfg.Providers)
	return profiles
}

// transport is the way to a provider.
func (b *Broker) transport(name string) http.RoundTripper {
	if b.cfg.Upstream != nil {
		if rt := b.cfg.Upstream(name); rt != nil {
			return rt
		}
	}
	return b.Sandbox
}

func (b *Broker) path(name string) string { return filepath.Join(b.Dir, name) }

// files makes the CA, the broker's certificate, the key encryption key and the policy.
func (b *Broker) files() {
	b.t.Helper()
	var err error
	b.ca, err = mtls.NewCA("brokertest", max(30*24*time.Hour, b.cfg.CertLife), TrustDomain)
	b.must("make a CA", err)
	b.issue("server", mtls.Template{SPIFFEID: "spiffe://" + TrustDomain + "/broker", DNSNames: []string{"localhost"},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, NotAfter: time.Now().Add(max(7*24*time.Hour, b.cfg.CertLife))})
	b.must("write the CA", mtls.WriteNew(b.path("ca.pem"), b.ca.CertPEM(), 0o644))
	b.must("make a key encryption key", keyring.GenerateFileKEK(b.path("kek.key")))
	if b.cfg.Policy == "" {
		b.cfg.Policy = DefaultPolicy
	}
	b.SetPolicy(b.cfg.Policy)
	if b.cfg.AuditFile == "" {
		b.cfg.AuditFile = b.path("audit.jsonl")
	}
	if b.cfg.Log == nil {
		b.cfg.Log = io.Discard
	}
	b.dc = daemon.Config{
		TLS:       mtls.Files{Cert: b.path("server.pem"), Key: b.path("server.key"), CA: b.path("ca.pem")},
		StorePath: b.path("tokenbroker.db"), StoreSize: b.cfg.StoreSize, WatchEvery: b.cfg.WatchEvery, Exchange: b.cfg.Exchange,
		KEKFile: b.path("kek.key"), PolicyFile: b.path("policy.yaml"),
		AuditFile: b.cfg.AuditFile, Checkpoints: b.cfg.Checkpoints, AllowDNS: b.cfg.AllowDNS, Providers: b.profiles(), Limits: b.cfg.Limits, Lives: b.cfg.Lives, Log: slog.New(slog.NewTextHandler(b.cfg.Log, nil)),
		Transport: b.transport, Observe: b.cfg.Observe, Version: "test",
	}
	if b.cfg.Ops {
		b.dc.OpsListen = "127.0.0.1:0"
	}
	if b.cfg.Settings != nil {
		b.cfg.Settings(&b.dc)
	}
}

func (b *Broker) issue(name string, t mtls.Template) {
	b.t.Helper()
	cert, key, err := b.ca.Issue(t)
	b.must("issue a certificate", err)
	b.must("write a certificate", mtls.WriteNew(b.path(name+".pem"), cert, 0o644))
	b.must("write a key", mtls.WriteNew(b.path(name+".key"), key, 0o600))
}

func (b *Broker) start() {
	b.t.Helper()
	dc := b.dc
	if b.cfg.TCP {
		l, err := net.Listen("tcp", b.addr)
		b.must("listen", err)
		dc.Listener = l
	} else {
		b.mu.Lock()
		b.mem = Listen(256 << 10)
		dc.Listener = b.mem
		b.mu.Unlock()
	}
	if b.cfg.Web {
		dc.Consent = b.startWeb()
	}
	ctx, cancel := context.WithCancel(context.Background())
	d, err := daemon.Open(ctx, dc)
	if err != nil {
		cancel()
		b.t.Fatalf("open the broker: %v", err)
	}
	b.mu.Lock() // a client that comes back by itself dials
	b.Daemon, b.stop, b.done = d, cancel, make(chan error, 1)
	b.mu.Unlock()
	done := b.done
	go func() { done <- d.Run(ctx) }()
}

// Stop shuts the broker down in order and closes all connections. It may be called more than once.
func (b *Broker) Stop() {
	b.t.Helper()
	b.Shutdown()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.conns = nil
}

// Shutdown shuts the broker down in order and leaves connections open, so that a test can look at what clients see.
func (b *Broker) Shutdown() {
	b.t.Helper()
	if b.stop == nil {
		return
	}
	b.stop()
	b.stop = nil
	if err := <-b.done; err != nil {
		b.t.Errorf("the broker ended with: %v", err)
	}
}

// Restart shuts the broker down and starts it again over the same files. Connections go on to the new one.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Shutdown()
	b.start()
}

// SetPolicy replaces the policy file. The broker takes it up within a quarter of a second.
func (b *Broker) SetPolicy(text string) {
	b.t.Helper()
	tmp := b.path("policy.yaml.new")
	b.must("write the policy", os.WriteFile(tmp, []byte(text), 0o600))
	b.must("replace the policy", os.Rename(tmp, b.path("policy.yaml")))
}

// Operator is a connection of OperatorID.
func (b *Broker) Operator() *grpc.ClientConn { b.t.Helper(); return b.Conn(OperatorID) }

// Worker is a connection of WorkerID.
func (b *Broker) Worker() *grpc.ClientConn { b.t.Helper(); return b.Conn(WorkerID) }

// Conn makes a connection with a certificate of an identity. It is closed when the broker stops.
func (b *Broker) Conn(identity string, opts ...grpc.DialOption) *grpc.ClientConn {
	b.t.Helper()
	life := b.cfg.CertLife
	if life == 0 {
		life = time.Hour
	}
	return b.ConnWith(mtls.Template{SPIFFEID: identity, Client: true, NotAfter: time.Now().Add(life)}, opts...)
}

// ConnWith makes a connection with a certificate of the broker's CA as the template says.
func (b *Broker) ConnWith(tmpl mtls.Template, opts ...grpc.DialOption) *grpc.ClientConn {
	b.t.Helper()
	source, err := mtls.Open(b.Files(tmpl))
	b.must("open a certificate", err)
	tlsConfig, err := source.ClientTLS(ServerID)
	b.must("make a TLS configuration", err)
	opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)), b.Dialer())
	conn, err := grpc.NewClient(Target, opts...)
	b.must("make a connection", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, conn)
	return conn
}

// Files writes a certificate of the broker's CA, as the template says, into files for a client of its own; see Target, ServerID and
// Dialer for the rest that it needs.
func (b *Broker) Files(tmpl mtls.Template) mtls.Files {
	b.t.Helper()
	dir := b.t.TempDir()
	cert, key, err := b.ca.Issue(tmpl)
	b.must("issue a certificate", err)
	files := mtls.Files{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key"), CA: b.path("ca.pem")}
	b.must("write a certificate", os.WriteFile(files.Cert, cert, 0o600))
	b.must("write a key", os.WriteFile(files.Key, key, 0o600))
	return files
}

// Dialer leads any address to the broker, also to the next one after a Restart.
func (b *Broker) Dialer() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.Dial(ctx) })
}

// CA is the broker's CA, for tests that bring certificates of their own.
func (b *Broker) CA() *mtls.CA { return b.ca }

// Dial connects to the broker, for a dialer of a test's own.
func (b *Broker) Dial(ctx context.Context) (net.Conn, error) {
	b.mu.Lock()
	mem, d := b.mem, b.Daemon
	b.mu.Unlock()
	if mem != nil {
		return mem.DialContext(ctx)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", d.Addr().String())
}

func (b *Broker) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("brokertest: %s: %v", what, err)
	}
}
