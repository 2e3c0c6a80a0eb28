package grant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const (
	connectTimeout   = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 30 * time.Second
	maxHeader        = 64 << 10
	maxBody          = 256 << 10
)

var errAddress = errors.New("address not allowed")

// newTransport returns a transport for one provider. With single set each request has a connection of its own, in HTTP/1.1, so
// that one request's fate is never another's.
func newTransport(p provider.Profile, roots *x509.CertPool, resolver *net.Resolver, single bool) *http.Transport {
	t := &http.Transport{
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true,
		DisableKeepAlives:      single,
		ForceAttemptHTTP2:      !single,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	dialer := &net.Dialer{Timeout: connectTimeout, ControlContext: guard(p), Resolver: resolver}
	t.DialContext = dialer.DialContext
	proxy, err := url.Parse(p.Proxy)
	if err != nil || p.Proxy == "" {
		return t
	}
	behind := p
	p.AllowPrivate = true // it is the proxy that is dialled, by the operator's wish
	dialer.ControlContext = guard(p)
	if p.ProxyResolves {
		t.Proxy = http.ProxyURL(proxy)
		return t
	}
	way := &tunnel{proxy: proxy, profile: behind, resolver: resolver, dialer: dialer, tls: t.TLSClientConfig}
	t.DialContext = way.dial
	return t
}

// guard judges each address that is about to be connected to.
func guard(p provider.Profile) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %q", errAddress, address)
		}
		if err := p.CheckAddr(to.Addr()); err != nil {
			return fmt.Errorf("%w: %w", errAddress, err)
		}
		return nil
	}
}

// answer is what came back, as far as it came.
type answer struct {
	status int
	header http.Header
	body   []byte
	fault  string        // why body is not all there is; "" if it is
	sent   time.Time     // when the request was sent, with a monotonic reading
	skew   time.Duration // how far our clock is ahead of the provider's; 0 = not known, or it is not
}

// lost is the failure of a request that got no reply. What the network said is added only if nothing was sent: later errors
// may quote the server.
func lost(ctx context.Context, err error, sent bool) error {
	f := &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "connection_lost", Sent: sent}
	if ctx.Err() != nil {
		f.Code = ended(ctx)
	}
	if sent {
		return f
	}
	f.Class = tokenbroker.ClassTransient
	var (
		dns *net.DNSError
		op  *net.OpError
	)
	switch {
	case errors.Is(err, errAddress):
		f.Class, f.Code = tokenbroker.ClassConfiguration, "address_not_allowed"
		return fmt.Errorf("%w: %w", f, err)
	case errors.As(err, &dns):
		f.Code = "dns_failed"
		return fmt.Errorf("%w: %w", f, dns)
	case ctx.Err() != nil:
		return f
	case errors.As(err, &op) && op.Op == "dial":
		f.Code = "connect_failed"
		return fmt.Errorf("%w: %w", f, op)
	}
	f.Code = unsentCode(err)
	return f
}

func ended(ctx context.Context) string {
	if errors.Is(ctx.Err(), context.Canceled) {
		return "canceled"
	}
	return "timeout"
}

// unsentCode names what failed between the TCP connection and the first byte of the request.
func unsentCode(err error) string {
	var (
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		certs     *tls.CertificateVerificationError
		op        *net.OpError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &host):
		return "tls_wrong_host"
	case errors.As(err, &authority):
		return "tls_unknown_authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "tls_certificate_expired"
	case errors.As(err, &certs):
		return "tls_bad_certificate"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "proxy_failed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "connect_timeout"
	}
	return "connection_failed"
}
