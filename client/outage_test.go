package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// valid asks for a token each time that has passed, and fails the test unless it is valid and none from before.
func valid(t *testing.T, b *brokertest.Broker, c *client.Client, times int, each time.Duration) {
	t.Helper()
	var last tokenbroker.Generation
	for range times {
		tok, err := c.Token(t.Context(), "example/api")
		if err != nil || tok.Generation < last || !b.Sandbox.Valid(tok.AccessToken.Reveal()) {
			t.Fatalf("got generation %d after %d, %v, want a token that is valid", tok.Generation, last, err)
		}
		last = tok.Generation
		time.Sleep(each)
	}
}

// short has an issuer whose tokens live for a minute and a half.
var short = []sandbox.Issuer{{Name: "fast", Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}},
	Rotation: sandbox.RotateNone, AccessLife: 90 * time.Second}}

func TestScopesThatTheCredentialHasAnywayAreNoOtherTokenInAnOutage(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read", "files.write")
		own, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Shutdown()
		if got, err := c.Token(t.Context(), "example/api", client.Scopes("files.write", "files.read")); err != nil || got.Generation != own.Generation {
			t.Errorf("the same scopes: got generation %d, %v, want %d", got.Generation, err, own.Generation)
		}
		for name, opts := range map[string][]client.Option{
			"fewer scopes":     {client.Scopes("files.read")},
			"more scopes":      {client.Scopes("files.read", "files.write", "x")},
			"another subject":  {client.Scopes("files.read", "files.write"), client.Subject("a@b.example")},
			"another audience": {client.Scopes("files.read", "files.write"), client.Audience("b")},
			"a longer life":    {client.Scopes("files.read", "files.write"), client.MinValidity(20 * time.Hour)},
		} {
			if _, err := c.Token(t.Context(), "example/api", opts...); err == nil {
				t.Errorf("%s: got a token, want an error", name)
			}
		}
		b.Restart()
	})
}

func TestNoRequestFailsWhileTheBrokerIsAway(t *testing.T) {
	tapped(t, brokertest.Config{Issuers: short}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		valid(t, b, c, 100, time.Second)
		b.Restart()
		valid(t, b, c, 100, time.Second)
		b.Shutdown()
		valid(t, b, c, 100, 100*time.Millisecond)
		b.Restart()
		valid(t, b, c, 300, time.Second)
		if got := p.now(); !slices.Equal(got, []int{1}) {
			t.Errorf("got streams of %d selectors, want one", got)
		}
	})
}

func TestWhoHasNoTokenYetWaitsForTheBrokerToCome(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		b.Shutdown()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := c.Token(ctx, "example/api"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ask the broker") {
			t.Errorf("got %v, want the caller's deadline and what was wrong until then", err)
		}
		if _, err := c.Token(t.Context(), "example/api"); err == nil || !strings.Contains(err.Error(), "ask the broker") {
			t.Errorf("got %v, want what is wrong", err)
		}
		done := make(chan error)
		go func() { _, err := c.Token(t.Context(), "example/api"); done <- err }()
		time.Sleep(time.Second)
		b.Restart()
		if err := <-done; err != nil {
			t.Errorf("got %v, want a token as soon as there is a broker", err)
		}
	})
}

// pair are two brokers, each at an address, and a way to them.
type pair struct {
	at   map[string]*brokertest.Broker
	dead atomic.Pointer[brokertest.Broker] // nothing comes through to it, and nobody is told
}

func (p *pair) dial(ctx context.Context, addr string) (net.Conn, error) {
	b := p.at[addr]
	conn, err := b.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: conn, cut: func() bool { return p.dead.Load() == b }, closed: make(chan struct{})}, nil
}

// wire is a connection that may be cut without anybody being told.
type wire struct {
	net.Conn
	cut    func() bool
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.cut() {
		<-w.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	if w.cut() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// bundle writes a file with the CAs of two brokers.
func bundle(t *testing.T, cas ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(path, slices.Concat(cas...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// twoBrokers runs a test in fake time with a client of two brokers, which know the credential example/api.
func twoBrokers(t *testing.T, do func(*testing.T, *pair, *client.Client, *tap)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		one := brokertest.Start(t, brokertest.Config{WatchEvery: time.Minute})
		defer one.Stop()
		two := brokertest.Start(t, brokertest.Config{WatchEvery: time.Minute, Settings: func(c *daemon.Config) {
			own, err := os.ReadFile(c.TLS.CA)
			if err != nil {
				t.Fatal(err)
			}
			c.TLS.CA = bundle(t, own, one.CA().CertPEM())
		}})
		defer two.Stop()
		brokers := &pair{at: map[string]*brokertest.Broker{"one:8443": one, "two:8443": two}}
		for _, b := range brokers.at {
			b.AddClientCredentials("example/api", "files.read")
		}
		p := &tap{}
		files := one.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
		files.CA = bundle(t, one.CA().CertPEM(), two.CA().CertPEM())
		c, err := client.New(client.Config{Addr: "one:8443, two:8443", Server: brokertest.ServerID, Files: files, Dial: append(p.options(), grpc.WithContextDialer(brokers.dial))})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		do(t, brokers, c, p)
	})
}

func TestWhenOneOfTwoBrokersDiesTheOtherServes(t *testing.T) {
	for name, end := range map[string]func(*pair, *brokertest.Broker){
		"it drains":         func(_ *pair, b *brokertest.Broker) { b.Shutdown() },
		"its wires are cut": func(p *pair, b *brokertest.Broker) { p.dead.Store(b) },
	} {
		t.Run(name, func(t *testing.T) {
			twoBrokers(t, func(t *testing.T, brokers *pair, c *client.Client, p *tap) {
				var told diary
				c.OnChange("example/api", told.add)
				time.Sleep(10 * time.Second)
				for _, dies := range []string{"one:8443", "two:8443"} {
					end(brokers, brokers.at[dies])
					time.Sleep(time.Minute) // a cut wire is found out by its silence
					if got := p.now(); !slices.Equal(got, []int{1}) {
						t.Errorf("without %s: got streams of %d selectors, want one", dies, got)
					}
					if _, err := c.Token(t.Context(), "example/api", client.MinValidity(30*time.Minute)); err != nil {
						t.Errorf("without %s: %v", dies, err)
					}
					n := len(told.tokens())
					time.Sleep(2 * time.Hour)
					if got := len(told.tokens()); got <= n {
						t.Errorf("without %s: got no token in two hours", dies)
					}
					brokers.dead.Store(nil)
					brokers.at[dies].Restart()
					time.Sleep(30 * time.Second)
				}
			})
		})
	}
}

func TestAStreamGoesElsewhereBeforeItsBrokerEnds(t *testing.T) {
	twoBrokers(t, func(t *testing.T, brokers *pair, c *client.Client, p *tap) {
		c.OnChange("example/api", func(client.Change) {})
		time.Sleep(10 * time.Second)
		for range 4 { // whichever has the stream
			for _, b := range brokers.at {
				b.Shutdown()
				time.Sleep(10 * time.Second)
				b.Restart()
				time.Sleep(10 * time.Second)
			}
		}
		if _, opened, _ := p.counts(); opened < 4 {
			t.Errorf("got %d streams, want one for each broker that drained with it", opened)
		}
		if got := p.now(); !slices.Equal(got, []int{1}) {
			t.Errorf("got streams of %d selectors, want one", got)
		}
	})
}

func TestTheStreamGoesOnWithTheNextCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{WatchEvery: time.Minute})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		issue := func(files mtls.Files) {
			cert, key, err := b.CA().Issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(20 * time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			for path, data := range map[string][]byte{files.Key: key, files.Cert: cert} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		files := b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
		issue(files)
		p := &tap{}
		c, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID, Files: files, Dial: append(p.options(), b.Dialer())})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for range 12 { // three hours, in which the certificate ends nine times
			valid(t, b, c, 15, time.Minute)
			issue(files)
		}
		gets, opened, _ := p.counts()
		if got := p.now(); !slices.Equal(got, []int{1}) || gets > 3 || opened < 9 {
			t.Errorf("got streams of %d selectors after %d were opened, and %d calls, want one after at least 9, and hardly a call", got, opened, gets)
		}
	})
}

func TestATokenIsStaleWhenTheBrokerCanNotRenewIt(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		if _, stale := c.Stale("example/api"); stale {
			t.Errorf("before there is one: got a stale token")
		}
		var refresh time.Time
		c.OnChange("example/api", func(got client.Change) {
			if refresh.IsZero() {
				refresh = got.RefreshTime
			}
		})
		time.Sleep(time.Minute)
		b.Sandbox.Fail("fast", sandbox.Fault{Status: 503, Times: sandbox.Forever})
		if since, stale := c.Stale("example/api"); stale {
			t.Errorf("at first: got stale since %s", since)
		}
		time.Sleep(time.Until(refresh) + 2*time.Minute)
		if since, stale := c.Stale("example/api"); !stale || !since.Equal(refresh) {
			t.Errorf("past its refresh: got stale %t since %s, want since %s", stale, since, refresh)
		}
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Errorf("while it is stale: %v, want the token", err)
		}
		b.Sandbox.Clear("fast")
		time.Sleep(5 * time.Minute)
		if since, stale := c.Stale("example/api"); stale {
			t.Errorf("with a newer one: got stale since %s", since)
		}
	})
}
