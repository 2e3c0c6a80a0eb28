package server_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// rounds is how often a promise is tried: a few times, or as often as the soak wants it.
func rounds(few, soak int) int {
	if os.Getenv("TOKENBROKER_SOAK") != "" {
		return soak
	}
	return few
}

// gone waits until a connection is not there any more, and says how long after a moment that was.
func gone(conn *grpc.ClientConn, since time.Time) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for conn.GetState() == connectivity.Ready && conn.WaitForStateChange(ctx, connectivity.Ready) {
	}
	return time.Since(since)
}

// cutInTime wants the stream of a connection to end with a reason, the connection to end within two seconds of a moment, and no other to take
// its place.
func cutInTime(t *testing.T, conn *grpc.ClientConn, w *watcher, since time.Time, reason string) {
	t.Helper()
	wantFault(t, w.end(), codes.Unauthenticated, reason)
	if late := gone(conn, since); late < 0 || late > 2*time.Second {
		t.Errorf("the connection ended after %v, want within 2 s", late)
	}
	_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("afterwards: got %v, want no connection", err)
	}
}

// wantEnds wants n streams that have ended, and the trail to say of each that the broker ended it for a reason.
func wantEnds(t *testing.T, b *brokertest.Broker, n int, code string) {
	t.Helper()
	var got []string
	for _, l := range auditLines(t, b) {
		if l.Kind == "stream_close" {
			got = append(got, l.Code)
		}
	}
	if len(got) != n || slices.ContainsFunc(got, func(c string) bool { return c != code }) {
		t.Errorf("the trail says that %d streams ended, of these %v, want %d times %s", len(got), slices.Compact(got), n, code)
	}
}

func TestP13TheEndOfACertificateCutsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := rounds(20, 1000)
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{StreamsPerIdentity: n + 1, ConnectionAge: 1000 * time.Hour}})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		bystander := watch(t, b.ConnWith(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(100 * time.Hour)}), sel("example/api"))
		defer bystander.cancel()
		bystander.ready(0)
		for range n {
			conn := b.ConnWith(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true, NotAfter: time.Now().Add(10 * time.Second)})
			end := time.Now().Truncate(time.Second).Add(10 * time.Second)
			w := watch(t, conn, sel("example/api"))
			w.patience = time.Minute
			w.ready(0)
			cutInTime(t, conn, w, end, "CERTIFICATE_EXPIRED")
			_ = conn.Close()
		}
		wantEnds(t, b, n, "CERTIFICATE_EXPIRED")
		select {
		case err := <-bystander.ended:
			t.Errorf("another's stream ended: %v", err)
		default:
		}
	})
}

func parsed(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// serialOf is the serial number of a certificate file, in hex.
func serialOf(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", parsed(t, data).SerialNumber)
}

func TestP13TheDenyListCutsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := rounds(20, 1000)
		list := filepath.Join(t.TempDir(), "deny.txt")
		put(t, list, []byte("# nobody\n"))
		log := new(syncBuffer)
		b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{StreamsPerIdentity: n + 1, ConnectionAge: 1000 * time.Hour}, Log: log,
			Settings: func(c *daemon.Config) { c.DenyFile = list }})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		bystander := watch(t, b.Worker(), sel("example/api"))
		defer bystander.cancel()
		bystander.ready(0)
		denied := "# lost keys\n"
		for range n {
			files := b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
			conn := connOf(t, b, files)
			w := watch(t, conn, sel("example/api"))
			w.patience = time.Minute
			w.ready(0)
			denied += serialOf(t, files.Cert) + " " + brokertest.TrustDomain + "\n"
			since := time.Now()
			put(t, list, []byte(denied))
			cutInTime(t, conn, w, since, "CERTIFICATE_DENIED")
			_ = conn.Close()
		}
		wantEnds(t, b, n, "CERTIFICATE_DENIED")
		put(t, list, []byte("garbage\n")) // keeps the last good one
		select {
		case err := <-bystander.ended:
			t.Errorf("another's stream ended: %v", err)
		case <-time.After(5 * time.Second):
		}
		for _, want := range []string{"deny list in force", "deny list refused", "connection cut for its certificate"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
	})
}

// A call on a connection whose certificate was denied is refused as of the reload, not only when the connection is cut.
func TestADeniedCertificateIsRefusedOnItsNextCall(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	list := filepath.Join(t.TempDir(), "deny.txt")
	put(t, list, []byte("# nobody\n"))
	deny, err := mtls.OpenDenyList(list)
	if err != nil {
		t.Fatal(err)
	}
	var cuts atomic.Int64
	r := newRig(t, b, func(c *server.Config) { c.Accept.Deny, c.Cut = deny, func(string) { cuts.Add(1) } })
	r.serve(brokertest.WorkerID)
	cfg := clientTLS(t, b, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	conn := r.connWith(cfg)
	defer conn.Close()
	get := func() error {
		_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	put(t, list, []byte("4f3a\n")) // another's
	if _, err := deny.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := get(); err != nil {
		t.Errorf("with another's serial denied: %v", err)
	}
	put(t, list, fmt.Appendf(nil, "%x\n", cfg.Certificates[0].Leaf.SerialNumber))
	if _, err := deny.Reload(); err != nil { // and nobody tells the server
		t.Fatal(err)
	}
	wantFault(t, get(), codes.Unauthenticated, "CERTIFICATE_DENIED")
	if cuts.Load() != 1 {
		t.Errorf("got %d cuts, want 1", cuts.Load())
	}
}

// connOf makes a connection with certificate files, which it takes up when they change.
func connOf(t *testing.T, b *brokertest.Broker, files mtls.Files) *grpc.ClientConn {
	t.Helper()
	source, err := mtls.Open(files)
	if err != nil {
		t.Fatal(err)
	}
	return connFrom(t, b, source)
}

// connFrom makes a connection with what a source holds at the handshake.
func connFrom(t *testing.T, b *brokertest.Broker, source *mtls.Source) *grpc.ClientConn {
	t.Helper()
	cfg, err := source.ClientTLS(brokertest.ServerID)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(brokertest.Target, grpc.WithTransportCredentials(credentials.NewTLS(cfg)), b.Dialer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// turnover is a broker whose files a test replaces under load.
type turnover struct {
	*brokertest.Broker
	t       *testing.T
	source  *mtls.Source    // of the workers
	files   mtls.Files      // of source
	callers [4]atomic.Int64 // connections that each caller has been through
	calls   atomic.Int64
	failed  atomic.Int64
}

// load gets tokens, a few on a connection and then a few on another, until stop is closed.
func (o *turnover) load(n int, stop <-chan struct{}) {
	for {
		conn := connFrom(o.t, o.Broker, o.source)
		for range 5 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_, err := tokensOf(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
			cancel()
			if err != nil {
				o.failed.Add(1)
				o.t.Errorf("under rotation: %v", err)
			}
			o.calls.Add(1)
		}
		_ = conn.Close()
		o.callers[n].Add(1)
		select {
		case <-stop:
			return
		default:
		}
	}
}

// settle waits until every caller is on a connection that began after now.
func (o *turnover) settle() {
	o.t.Helper()
	for i := range o.callers {
		until := o.callers[i].Load() + 1
		eventually(o.t, "callers go on", func() bool { return o.callers[i].Load() >= until })
	}
}

// bundle replaces the broker's bundle and has it taken up.
func (o *turnover) bundle(data []byte) {
	put(o.t, filepath.Join(o.Dir, "ca.pem"), data)
	o.Daemon.Reload(context.Background())
}

func TestP14ARotationOfTheCADropsNobody(t *testing.T) {
	log := new(syncBuffer)
	b := brokertest.Start(t, brokertest.Config{Log: log})
	b.AddClientCredentials("example/api", "files.read")
	o := &turnover{Broker: b, t: t, files: b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})}
	own := filepath.Join(t.TempDir(), "ca.pem") // the worker's bundle is that of the broker's CA, which stays
	put(t, own, b.CA().CertPEM())
	o.files.CA = own
	var err error
	if o.source, err = mtls.Open(o.files); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for n := range o.callers {
		callers.Go(func() { o.load(n, stop) })
	}
	old := b.CA()
	for range rounds(3, 100) {
		next, err := mtls.NewCA("next", time.Hour, brokertest.TrustDomain)
		if err != nil {
			t.Fatal(err)
		}
		o.bundle(append(old.CertPEM(), next.CertPEM()...)) // 1. trust the new CA as well
		o.settle()
		late := connFrom(t, b, o.source) // of the old CA, and stays open
		w := watch(t, late, sel("example/api"))
		w.ready(0)
		cert, key := leaf(t, next, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}) // 2. new certificates
		put(t, o.files.Cert, cert)
		put(t, o.files.Key, key)
		if changed, err := o.source.Reload(); !changed || err != nil {
			t.Fatalf("reload of the worker: %v, %v", changed, err)
		}
		o.settle()               // none is on a connection of the old certificate any more
		o.bundle(next.CertPEM()) // 3. forget the old CA
		wantFault(t, w.end(), codes.Unauthenticated, "CERTIFICATE_UNTRUSTED")
		o.settle()
		_ = late.Close()
		o.refused(old)
		old = next
	}
	close(stop)
	callers.Wait()
	if !strings.Contains(log.String(), "unknown authority") {
		t.Error("the log does not say why certificates of the removed CA were refused")
	}
	if o.failed.Load() != 0 {
		t.Errorf("%d of %d calls failed", o.failed.Load(), o.calls.Load())
	}
}

// refused wants no connection for a certificate of a CA.
func (o *turnover) refused(ca *mtls.CA) {
	o.t.Helper()
	files := o.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	cert, key := leaf(o.t, ca, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	put(o.t, files.Cert, cert)
	put(o.t, files.Key, key)
	files.CA = o.files.CA
	_, err := tokensOf(connOf(o.t, o.Broker, files)).GetToken(brief(o.t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	if status.Code(err) != codes.Unavailable {
		o.t.Errorf("with a certificate of the removed CA: got %v, want no connection", err)
	}
}

// TestS07BadFilesChangeNothing spoils the broker's files, one way after the other.
func TestS07BadFilesChangeNothing(t *testing.T) {
	log := new(syncBuffer)
	b := brokertest.Start(t, brokertest.Config{Log: log, Ops: true, WatchEvery: time.Hour})
	b.AddClientCredentials("example/api", "files.read")
	path := func(name string) string { return filepath.Join(b.Dir, name) }
	read := func(name string) []byte {
		data, err := os.ReadFile(path(name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := map[string][]byte{"server.pem": read("server.pem"), "server.key": read("server.key"), "ca.pem": read("ca.pem")}
	_, otherKey := leaf(t, b.CA(), mtls.Template{SPIFFEID: brokertest.ServerID, Server: true})
	open := b.Worker()
	for _, row := range []struct {
		name, file string
		data       []byte
		want       string // in the log
	}{
		{"a certificate of garbage", "server.pem", []byte("garbage"), "no PEM block"},
		{"a key that does not fit", "server.key", otherKey, "does not match"},
		{"an empty bundle", "ca.pem", nil, "no PEM block"},
		{"half a bundle", "ca.pem", good["ca.pem"][:len(good["ca.pem"])/2], "cut short"},
	} {
		put(t, path(row.file), row.data)
		b.Daemon.Reload(t.Context())
		if !strings.Contains(log.String(), "certificates refused, the last good ones stay in use") || !strings.Contains(log.String(), row.want) {
			t.Errorf("%s: the log does not say it, with %q", row.name, row.want)
		}
		if got := scrape(t, b, "/metrics"); !strings.Contains(got, `tokenbroker_tls_last_reload_successful{what="certificates"} 0`) {
			t.Errorf("%s: no metric says so", row.name)
		}
		if got := scrape(t, b, "/readyz"); got != "ok\n" {
			t.Errorf("%s: readiness is %q, want it unchanged", row.name, got)
		}
		files := b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
		files.CA = filepath.Join(t.TempDir(), "ca.pem")
		put(t, files.CA, good["ca.pem"])
		for what, conn := range map[string]*grpc.ClientConn{"open": open, "new": connOf(t, b, files)} {
			if _, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
				t.Errorf("%s: a call on the %s connection: %v", row.name, what, err)
			}
		}
		put(t, path(row.file), good[row.file])
		b.Daemon.Reload(t.Context())
		if got := scrape(t, b, "/metrics"); !strings.Contains(got, `tokenbroker_tls_last_reload_successful{what="certificates"} 1`) {
			t.Errorf("%s: mended, and no metric says so", row.name)
		}
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
}

// scrape reads a page of the ops listener.
func scrape(t *testing.T, b *brokertest.Broker, page string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(brief(t), http.MethodGet, "http://"+b.Daemon.OpsAddr().String()+page, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return string(data)
}
