package grant

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/tokenbroker/tokenbroker/provider"
)

// tunnel connects to a provider through a proxy. The name is resolved here, each of its addresses is judged, and the proxy is asked for an
// address: it never hears the name, so that what it would make of it makes no difference. TLS still asks the server for the name.
type tunnel struct {
	proxy    *url.URL
	profile  provider.Profile
	resolver *net.Resolver
	dialer   *net.Dialer // to the proxy
	tls      *tls.Config // for a proxy that speaks TLS
}

// dial is http.Transport.DialContext.
func (t *tunnel) dial(ctx context.Context, network, address string) (net.Conn, error) {
	targets, err := t.targets(ctx, address)
	if err != nil {
		return nil, err
	}
	for _, to := range targets[:min(len(targets), mostTargets)] {
		var conn net.Conn
		if conn, err = t.connect(ctx, to); err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &net.OpError{Op: "proxyconnect", Net: network, Err: err}
}

// mostTargets bounds the addresses of one name that are tried.
const mostTargets = 3

// targets are the addresses of the provider. If one is not allowed none is: a name that points both outside and inside is not to be trusted.
func (t *tunnel) targets(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	port, err := t.resolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, err
	}
	addrs, err := t.resolver.LookupNetIP(ctx, "ip", host) // a literal is its own address
	if err != nil {
		return nil, err
	}
	var targets []netip.AddrPort
	for _, addr := range addrs {
		if err := t.profile.CheckAddr(addr); err != nil {
			return nil, fmt.Errorf("%w: %w", errAddress, err)
		}
		targets = append(targets, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return targets, nil
}

// connect asks the proxy for one address.
func (t *tunnel) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := t.dialer.DialContext(ctx, "tcp", proxyAddress(t.proxy))
	if err != nil {
		return nil, err
	}
	if t.proxy.Scheme == "https" {
		cfg := t.tls.Clone()
		cfg.ServerName = t.proxy.Hostname()
		conn = tls.Client(conn, cfg)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = askProxy(conn, to.String())
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// askProxy has a proxy connect to an address. Of what the proxy says only the status counts.
func askProxy(conn net.Conn, to string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{"User-Agent": {"tokenbroker"}}}
	if err := req.Write(conn); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxHeader))
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return errors.New("the proxy gives no answer that can be read")
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the proxy answers with status %d", resp.StatusCode)
	case in.Buffered() > 0:
		return errors.New("the proxy sends more than its answer")
	}
	return nil
}

// proxyAddress is what to dial.
func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	switch {
	case port != "":
	case proxy.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}
