package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // asks brokers whether they are well
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// ErrAddress is for a Config.Addr that is none.
var ErrAddress = errors.New("address")

// target is where the broker is, as grpc wants it.
type target struct {
	name  string   // for grpc.NewClient
	local bool     // a unix socket: whoever may open it is trusted, and there is no TLS
	hosts []string // that a server certificate may have to hold; nil = those that a resolver comes to
	list  []string // addresses, when there are several; nil = grpc finds them by itself
}

const listScheme = "tokenbroker" // of a target with several addresses

// parseTarget reads Config.Addr.
func parseTarget(addr string) (target, error) {
	if isSocket(addr) {
		path := strings.TrimPrefix(strings.TrimPrefix(addr, "unix:"), "//")
		if !strings.HasPrefix(path, "/") || strings.Contains(path, ",") {
			return target{}, fmt.Errorf("%w %q: a socket is one absolute path, unix:///path", ErrAddress, addr)
		}
		return target{name: "unix://" + path, local: true}, nil
	}
	if strings.Contains(addr, "://") && !strings.Contains(addr, ",") {
		return target{name: addr, hosts: []string{hostOf(addr)}}, nil
	}
	if strings.HasPrefix(addr, "/") && !strings.Contains(addr, ",") {
		return target{}, fmt.Errorf("%w %q: is a path; an agent's socket is unix://%s", ErrAddress, addr, addr)
	}
	var t target
	for one := range strings.SplitSeq(addr, ",") {
		one = strings.TrimSpace(one)
		if one == "" || strings.ContainsAny(one, "/ ") {
			return target{}, fmt.Errorf("%w %q: must be host:port, several of them with commas between, dns:///host:port or unix:///path", ErrAddress, addr)
		}
		t.list, t.hosts = append(t.list, one), append(t.hosts, hostOf(one))
	}
	if len(t.list) == 1 {
		t.name, t.list = t.list[0], nil
		return t, nil
	}
	t.name = listScheme + ":///" + strings.Join(t.list, ",")
	return t, nil
}

func isSocket(addr string) bool { return strings.HasPrefix(addr, "unix:") }

// hostOf is the host of an address or of a target of grpc.
func hostOf(addr string) string {
	addr = addr[strings.LastIndex(addr, "/")+1:]
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// serviceConfig has calls that no broker has seen, or that one says it could not do now, made again a few times. grpc draws the jitter, and
// heeds a server that names the time or wants no more. What the broker can't do for want of something (RESOURCE_EXHAUSTED) is not asked
// for again.
const serviceConfig = `{%s"methodConfig":[{"name":[
	{"service":"tokenbroker.v1.TokenService","method":"GetToken"},{"service":"tokenbroker.v1.TokenService","method":"ReportRejected"}],
	"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.1s","maxBackoff":"2s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// balanced is the part of it for brokers: calls and streams go round those that say that they are well, if they have a way to say so.
const balanced = `"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""},`

// reconnect is how soon a lost broker is looked for again: sooner than grpc does, which waits up to two minutes.
func reconnect() grpc.ConnectParams {
	return grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
		Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 2 * time.Second}}
}

// options are what grpc has to know of the target. source is nil for a socket.
func (t target) options(server string, source *mtls.Source) ([]grpc.DialOption, error) {
	if t.local {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithChainUnaryInterceptor(plainly),
			grpc.WithDefaultServiceConfig(fmt.Sprintf(serviceConfig, "")), grpc.WithConnectParams(reconnect())}, nil
	}
	hosts := t.hosts
	if server != "" {
		hosts = []string{server}
	}
	creds := peers{by: map[string]credentials.TransportCredentials{}}
	for _, host := range hosts {
		cfg, err := source.ClientTLS(host)
		if err != nil {
			return nil, err
		}
		creds.TransportCredentials = credentials.NewTLS(cfg)
		creds.by[host] = creds.TransportCredentials
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithChainUnaryInterceptor(plainly),
		grpc.WithDefaultServiceConfig(fmt.Sprintf(serviceConfig, balanced)), grpc.WithConnectParams(reconnect()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second})}
	if t.list != nil {
		opts = append(opts, grpc.WithResolvers(list(t.list)))
	}
	return opts, nil
}

// plainly has the error of a call be what the server said: grpc, when it has made a call as often as it may, puts words of its own around it,
// which would stand in what people read.
func plainly(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if inner := errors.Unwrap(err); inner != nil {
		if st, ok := status.FromError(inner); ok {
			return st.Err()
		}
	}
	return err
}

// peers expects of each of several addresses a certificate of its own host. With one address, or one name for all, it is what it embeds.
type peers struct {
	credentials.TransportCredentials
	by map[string]credentials.TransportCredentials // host → what shakes hands with it
}

// ClientHandshake implements credentials.TransportCredentials.
func (p peers) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if len(p.by) == 1 {
		return p.TransportCredentials.ClientHandshake(ctx, authority, conn)
	}
	creds := p.by[hostOf(authority)]
	if creds == nil {
		return nil, nil, errors.New("a connection to none of the addresses")
	}
	return creds.ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (p peers) Clone() credentials.TransportCredentials { return p }

// list resolves to addresses that are known beforehand.
type list []string

// Scheme implements resolver.Builder.
func (list) Scheme() string { return listScheme }

// Build implements resolver.Builder.
func (l list) Build(_ resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var state resolver.State
	for _, addr := range l {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr, ServerName: addr}}})
	}
	return resolved{}, conn.UpdateState(state)
}

// resolved has nothing to look up again.
type resolved struct{}

// ResolveNow implements resolver.Resolver.
func (resolved) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (resolved) Close() {}
