package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// mallory is who the strangers say they are, where that is not what is wrong with them.
const mallory = domain + "worker/mallory"

// stranger is a client that must not get in.
type stranger struct {
	name   string
	config *tls.Config
	why    string // in the log
}

// holding is TLS with a pair, which is shown whatever the broker asks for and whatever is wrong with it.
func (s *site) holding(cert, key []byte) *tls.Config {
	s.t.Helper()
	certBlock, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	own, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	must(s.t, err)
	pair := &tls.Certificate{Certificate: [][]byte{certBlock.Bytes}, PrivateKey: own}
	config := s.as("worker/mallory")
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	return config
}

// forged is TLS with what the CA of the broker's clients signed, and should not have.
func (s *site) forged(ca *mtls.CA, spoil func(*x509.Certificate)) *tls.Config {
	s.t.Helper()
	return s.holding(brokertest.Forge(s.t, ca, mallory, spoil))
}

// anyCA is a CA that the broker trusts besides its own, and that may sign every name: it is not what keeps strangers out.
func (w *world) anyCA() *mtls.CA {
	w.t.Helper()
	ca, err := mtls.NewCA("any", time.Hour)
	must(w.t, err)
	w.write("ca.pem", w.read("ca.pem")+string(ca.CertPEM()))
	good := w.with(ca, mtls.Template{SPIFFEID: domain + "worker/good", Client: true})
	eventually(w.t, "the other CA's certificates are taken", func() bool { return w.shake(good) == nil })
	return ca
}

// turnAway has each of them knock, and wants none to be heard while a worker is served.
func (w *world) turnAway(t *testing.T, all []stranger) {
	t.Helper()
	v := w.victim()
	for _, s := range all {
		if err := w.shake(s.config); err == nil {
			t.Errorf("%s: was served, want the handshake refused", s.name)
		}
		_, err := tokenbrokerv1.NewTokenServiceClient(w.conn(s.config)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/one"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v for a call, want no connection", s.name, err)
		}
		eventually(t, s.name+": the log says "+s.why, func() bool { // of many it tells some
			_ = w.shake(s.config)
			return strings.Contains(w.proc.text(), s.why)
		})
	}
	if list := w.records("worker/mallory"); len(list) != 0 {
		t.Errorf("the trail has %d records of somebody who never came in: %+v", len(list), list[0])
	}
	v.well(t)
}

// TestS01CertificatesThatAreNotGood knocks at the broker with certificates that are missing, foreign, over, or made for something else.
func TestS01CertificatesThatAreNotGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	ca := w.anyCA()
	foreign, err := mtls.NewCA("foreign", time.Hour)
	must(t, err)
	none := w.as("worker/mallory")
	none.Certificates = nil
	signer, err := foreign.KeyPEM()
	must(t, err)
	at := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	w.turnAway(t, []stranger{
		{"none", none, "didn't provide a certificate"},
		{"self-signed", w.holding(foreign.CertPEM(), signer), "unknown authority"},
		{"of another CA", w.forged(foreign, func(*x509.Certificate) {}), "unknown authority"},
		{"over", w.forged(ca, at(-2*time.Hour, -time.Hour)), "expired"},
		{"not valid yet", w.forged(ca, at(time.Hour, 2*time.Hour)), "not yet valid"},
		{"of a CA", w.forged(ca, func(c *x509.Certificate) { c.IsCA = true }), "CA:TRUE"},
		{"that may sign others", w.forged(ca, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "keyCertSign"},
		{"of a server", w.forged(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "incompatible key usage"},
	})
}

// TestS02NamesThatAreNoURI knocks with the right name in the wrong place.
func TestS02NamesThatAreNoURI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	ca := w.anyCA()
	w.turnAway(t, []stranger{
		{"in the CN only", w.forged(ca, func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: mallory} }), "no URI SAN"},
		{"in a DNS SAN", w.forged(ca, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"mallory.worker.tokenbroker.local"} }), "no URI SAN"},
	})
}

// TestS03NamesThatAreNoSPIFFEID knocks with names that are not exactly one SPIFFE ID.
func TestS03NamesThatAreNoSPIFFEID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	ca := w.anyCA()
	named := func(names ...string) *tls.Config {
		return w.forged(ca, func(c *x509.Certificate) {
			c.URIs = nil
			for _, n := range names {
				c.URIs = append(c.URIs, brokertest.RawURI(n))
			}
		})
	}
	w.turnAway(t, []stranger{
		{"two", named(mallory, domain+"operator/admin"), "2 URI SANs"},
		{"one and another URI", named(mallory, "https://tokenbroker.local/worker"), "2 URI SANs"},
		{"a trust domain alone", named(strings.TrimSuffix(domain, "/")), "no path"},
		{"a root path", named(domain), "slash"},
		{"a slash at the end", named(mallory + "/"), "slash"},
		{"an upper-case trust domain", named("spiffe://TOKENBROKER.local/worker/mallory"), "trust domain"},
		{"a percent-encoded path", named(domain + "worker/%6dallory"), "path segment"},
		{"a dot segment", named(domain + "worker/../operator/admin"), "dot segment"},
		{"a query", named(mallory + "?operator"), "path segment"},
		{"a NUL", named(mallory + "\x00"), "certificate"},
		{"another scheme", named("https://tokenbroker.local/worker/mallory"), "scheme"},
		{"another trust domain", named("spiffe://elsewhere.example/worker/mallory"), "elsewhere.example"},
	})
}

// TestS04NoSessionIsResumed comes back again and again with what a TLS client keeps for it. Each handshake is a whole one, so that a CA which is
// taken away lets nobody in that it let in before.
func TestS04NoSessionIsResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	ca := w.anyCA()
	config := w.with(ca, mtls.Template{SPIFFEID: mallory, Client: true})
	kept := tls.NewLRUClientSessionCache(8)
	config.ClientSessionCache = kept
	visit := func() (resumed bool, err error) {
		c, err := (&tls.Dialer{Config: config}).DialContext(within(t, each), "tcp", w.grpc())
		if err != nil {
			return false, err
		}
		defer c.Close()
		if _, err = io.WriteString(c, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err == nil {
			_, err = c.Read(make([]byte, 100)) // tickets would come before it
		}
		return c.(*tls.Conn).ConnectionState().DidResume, err
	}
	for range 5 {
		resumed, err := visit()
		must(t, err)
		if _, ok := kept.Get("localhost"); ok || resumed {
			t.Fatalf("resumed: %v, got a ticket: %v, want neither", resumed, ok)
		}
	}
	w.write("ca.pem", string(w.ca.CertPEM()))
	eventually(t, "the CA that was taken away lets nobody in", func() bool { _, err := visit(); return err != nil })
	w.victim().well(t)
}

// TestS06TheListenerOfOperators has each side knock at the listener of the other.
func TestS06TheListenerOfOperators(t *testing.T) {
	t.Parallel()
	ca, err := mtls.NewCA("operators", time.Hour)
	must(t, err)
	s := newSite(t, plan{more: "admin_listen: 127.0.0.1:0\nadmin_tls: {client_ca_file: operators.pem}\n"})
	s.write("operators.pem", string(ca.CertPEM()))
	s.start()
	admin := func() string { return s.admin }
	list := func(addr func() string, of *mtls.CA, path string) error {
		conn := s.connTo(addr, s.with(of, mtls.Template{SPIFFEID: domain + path, Client: true}))
		_, err := tokenbrokerv1.NewCredentialServiceClient(conn).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{})
		return err
	}
	must(t, list(admin, ca, "operator/admin"))
	for what, got := range map[string]error{
		"a worker at the listener of operators":       list(admin, s.ca, "worker/mallory"),
		"an operator's name of the workers' CA there": list(admin, s.ca, "operator/admin"),
		"an operator at the listener of workers":      list(s.grpc, ca, "operator/admin"),
	} {
		if status.Code(got) != codes.Unavailable {
			t.Errorf("%s: got %v, want no connection", what, got)
		}
	}
	if got := list(s.grpc, s.ca, "operator/admin"); reason(got) != "UNKNOWN_METHOD" {
		t.Errorf("an operator's name of the workers' CA at theirs: got %v, want that there is no such method", got)
	}
	if n := len(s.records("worker/mallory")); n != 0 {
		t.Errorf("the trail has %d records of a worker who never came in", n)
	}
}

// TestS07BadCertificateFiles spoils the broker's own files while it serves. The last good ones stay in use, the operator is told, and nobody else
// notices.
func TestS07BadCertificateFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	_, otherKey, err := w.ca.Issue(mtls.Template{SPIFFEID: domain + "broker", Server: true})
	must(t, err)
	bundle := w.read("ca.pem")
	for _, row := range []struct{ name, file, text, why string }{
		{"a certificate of garbage", "server.pem", "\x00\xff garbage", "no PEM block"},
		{"a key that does not fit", "server.key", string(otherKey), "does not match"},
		{"a key where the certificate belongs", "server.pem", string(otherKey), "server.pem"},
		{"an empty bundle", "ca.pem", "", "no PEM block"},
		{"half a bundle", "ca.pem", bundle[:len(bundle)/2], "cut short"},
		{"no bundle", "ca.pem", "-", "no such file"},
	} {
		good, said := w.read(row.file), len(w.proc.text())
		if row.text == "-" {
			must(t, os.Remove(w.path(row.file)))
		} else {
			w.write(row.file, row.text)
		}
		w.certificates(0)
		eventually(t, fmt.Sprintf("%s: the log says so, with %q", row.name, row.why), func() bool { // the metric may be first
			text := w.proc.text()[said:]
			return strings.Contains(text, "the last good ones stay in use") && strings.Contains(text, row.why)
		})
		if status, text := w.ask("/readyz"); status != http.StatusOK {
			t.Errorf("%s: readiness is %d, %q, want it unchanged", row.name, status, text)
		}
		if _, err := get(brief(t), w.conn(w.as("worker/new")), "example/one"); err != nil {
			t.Errorf("%s: a new connection: %v", row.name, err)
		}
		w.write(row.file, good)
		w.certificates(1)
	}
	for _, key := range []string{string(otherKey), w.read("server.key")} {
		if line := strings.Split(key, "\n")[1]; strings.Contains(w.proc.text(), line) {
			t.Errorf("the log holds a key: %q", line)
		}
	}
	v.well(t)
}

// certificates waits until the broker says whether the certificate files are those in use.
func (w *world) certificates(good int) {
	w.t.Helper()
	line := fmt.Sprintf("\ntokenbroker_tls_last_reload_successful{what=\"certificates\"} %d\n", good)
	eventually(w.t, strings.TrimSpace(line), func() bool { return strings.Contains(w.metrics(), line) })
}

// TestS08AnIdentityInAHeader claims to be an operator in every header that a proxy may have set.
func TestS08AnIdentityInAHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	operator := domain + "operator/admin"
	var claims []string
	for _, header := range []string{"x-forwarded-client-cert", "x-client-cert", "x-ssl-client-cert", "ssl-client-cert", "x-spiffe-id", "x-client-identity", "forwarded", "identity"} {
		for _, value := range []string{operator, "URI=" + operator, "By=spiffe://x/y;URI=" + operator, url.QueryEscape(string(w.ca.CertPEM()))} {
			claims = append(claims, header, value)
		}
	}
	claims = append(claims, "authorization", "Bearer "+operator)
	ctx := metadata.NewOutgoingContext(brief(t), metadata.Pairs(claims...))
	conn := w.conn(w.as("outsider/mallory"))
	_, err := tokenbrokerv1.NewCredentialServiceClient(conn).ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PERMISSION_DENIED", err)
	}
	_, err = tokenbrokerv1.NewTokenServiceClient(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}, grpc.WaitForReady(true))
	if status.Code(err) != codes.NotFound && status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want a denial", err)
	}
	denied := 0
	for _, r := range w.records("outsider/mallory") {
		if r.Decision == "deny" {
			denied++
		}
	}
	if denied != 2 {
		t.Errorf("the trail has %d denials of who called, want 2", denied)
	}
	v.well(t)
}
