package grant_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// names is a name server on loopback. What it says of a name is what the test has put there last.
type names struct {
	conn net.PacketConn
	done chan struct{}

	mu    sync.Mutex
	addrs map[string][]netip.Addr
	asked int
}

func newNames(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{conn: conn, done: make(chan struct{}), addrs: map[string][]netip.Addr{}}
	go n.serve()
	t.Cleanup(func() { _ = conn.Close(); <-n.done })
	return n
}

func (n *names) say(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name+"."] = nil
	for _, a := range addrs {
		n.addrs[name+"."] = append(n.addrs[name+"."], netip.MustParseAddr(a))
	}
}

func (n *names) queries() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *names) serve() {
	defer close(n.done)
	for text := make([]byte, 1500); ; {
		size, from, err := n.conn.ReadFrom(text)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(text[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		if packed, err := n.answer(m).Pack(); err == nil {
			_, _ = n.conn.WriteTo(packed, from)
		}
	}
}

func (n *names) answer(m dnsmessage.Message) *dnsmessage.Message {
	q := m.Questions[0]
	out := &dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	addrs, known := n.addrs[q.Name.String()]
	if !known {
		out.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return out
}

// resolver asks the name server.
func (n *names) resolver(cfg *grant.Config) {
	cfg.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

// connectProxy is a proxy that connects to whatever it is asked for, as far as that is on loopback, and notes it.
type connectProxy struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func newConnectProxy(t *testing.T, names map[string]string) *connectProxy {
	t.Helper()
	p := &connectProxy{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host)
		p.mu.Unlock()
		to := r.Host
		if host, port, err := net.SplitHostPort(to); err == nil && names[host] != "" {
			to = net.JoinHostPort(names[host], port)
		}
		tunnel(t, w, to)
	}))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *connectProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// named is a server on loopback under a name, and the profile of one who knows it by that.
func named(t *testing.T, name string) (*server, provider.Profile) {
	t.Helper()
	cert, file := mint(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{name} })
	s := serve(t, reply(200, "", plainReply), func(s *httptest.Server) { s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	u, _ := url.Parse(s.URL)
	return s, provider.Profile{TokenEndpoint: "https://" + net.JoinHostPort(name, u.Port()) + "/token", AllowPrivate: true, CAFile: file}
}

// inside are addresses that no name may lead to.
func inside() []string {
	return []string{"127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:169.254.169.254", "::ffff:127.0.0.1", "::127.0.0.1",
		"64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:a9fe:a9fe::1", "2002:7f00:1::1", "2001::1"}
}

func TestS26ANameThatLeadsInsideIsRefusedWhenConnecting(t *testing.T) {
	n := newNames(t)
	proxy := newConnectProxy(t, nil)
	for _, way := range []string{"", proxy.URL} {
		for _, addr := range inside() {
			n.say("rebind.example.com", addr)
			c := newClient(t, provider.Profile{TokenEndpoint: "https://rebind.example.com/token", Proxy: way}, n.resolver)
			for _, r := range []tokenbroker.ExchangeRequest{refreshRequest(), ccRequest()} {
				_, err := c.Exchange(t.Context(), r)
				if f := failureOf(t, err); f.Sent || f.Class != config || f.Code != "address_not_allowed" {
					t.Errorf("%s by %q: got %+v, want it refused before anything is sent", addr, way, f)
				}
			}
		}
	}
	if got := proxy.requests(); len(got) != 0 {
		t.Errorf("the proxy was asked %q, want nothing", got)
	}
	if n.queries() == 0 {
		t.Error("the name server was not asked: nothing was tested")
	}
}

// Every endpoint goes the same way: a provider's documents and keys, and what asks about tokens and ends them.
func TestS26EveryEndpointIsGuarded(t *testing.T) {
	n := newNames(t)
	proxy := newConnectProxy(t, nil)
	const at = "https://rebind.example.com"
	n.say("rebind.example.com", "169.254.169.254")
	for _, way := range []string{"", proxy.URL} {
		p := provider.Profile{Issuer: at, TokenEndpoint: at + "/token", RevocationEndpoint: at + "/revoke", IntrospectionEndpoint: at + "/introspect",
			JWKSURI: at + "/jwks", UserinfoEndpoint: at + "/userinfo", DeviceAuthorizationEndpoint: at + "/device", AllowPrivate: true, Proxy: way}
		check := func(method tokenbroker.CheckMethod, token string) func() error {
			return func() error {
				_, err := newClient(t, only(p, method), n.resolver).Check(t.Context(), checkRequest(token))
				return err
			}
		}
		for what, do := range map[string]func() error{
			"revocation": func() error {
				return newClient(t, p, n.resolver).Revoke(t.Context(), revokeRequest(tokenbroker.RefreshTokenKind))
			},
			"introspection": check(tokenbroker.CheckIntrospection, refreshCanary),
			"keys":          check(tokenbroker.CheckJWT, newSigner(t, "one").sign(t, "one", map[string]any{"iss": at})),
			"test call":     check(tokenbroker.CheckTestCall, refreshCanary),
		} {
			if f := failureOf(t, do()); f.Sent || f.Code != "address_not_allowed" {
				t.Errorf("%s by %q: got %+v, want it refused before anything is sent", what, way, f)
			}
		}
		discover := provider.Profile{Issuer: at, Discover: new(true), AllowPrivate: true, Proxy: way}
		if report := refreshOnce(t, newClient(t, discover, n.resolver), newMemory()); !strings.Contains(fmt.Sprint(report.Err), "address_not_allowed") {
			t.Errorf("discovery by %q: got %v, want it refused", way, report.Err)
		}
	}
	if got := proxy.requests(); len(got) != 0 {
		t.Errorf("the proxy was asked %q, want nothing", got)
	}
}

func TestS26AProxyIsAskedForTheAddressThatWasJudged(t *testing.T) {
	n := newNames(t)
	s, p := named(t, "login.example.com")
	n.say("login.example.com", "127.0.0.1")
	proxy := newConnectProxy(t, map[string]string{"login.example.com": "127.0.0.2"}) // it knows another address
	p.Proxy = proxy.URL
	if _, err := newClient(t, p, n.resolver).Exchange(t.Context(), refreshRequest()); err != nil {
		t.Fatalf("got %v, want a token by the server's name", err)
	}
	u, _ := url.Parse(s.URL)
	if got, want := proxy.requests(), []string{"CONNECT 127.0.0.1:" + u.Port()}; !slices.Equal(got, want) {
		t.Errorf("the proxy was asked %q, want %q", got, want)
	}
	if got := s.requests(); len(got) != 1 {
		t.Errorf("the server got %d requests, want 1", len(got))
	}
}

func TestS26ANameThatLeadsInsideAndOutsideIsRefusedThroughAProxy(t *testing.T) {
	n := newNames(t)
	proxy := newConnectProxy(t, nil)
	n.say("both.example.com", "203.0.113.7", "10.0.0.1")
	c := newClient(t, provider.Profile{TokenEndpoint: "https://both.example.com/token", Proxy: proxy.URL}, n.resolver)
	_, err := c.Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Sent || f.Code != "address_not_allowed" || len(proxy.requests()) != 0 {
		t.Errorf("got %+v after the proxy was asked %q, want it refused", f, proxy.requests())
	}
}

func TestAProxyMayResolveNamesWhereTheProfileSaysSo(t *testing.T) {
	n := newNames(t) // knows no name
	s, p := named(t, "login.example.com")
	proxy := newConnectProxy(t, map[string]string{"login.example.com": "127.0.0.1"})
	p.Proxy = proxy.URL
	_, err := newClient(t, p, n.resolver).Exchange(t.Context(), refreshRequest())
	if f := failureOf(t, err); f.Sent || f.Class != transient || f.Code != "dns_failed" {
		t.Errorf("without proxy_resolves: got %+v, want an unsent dns_failed", f)
	}
	p.ProxyResolves = true
	if _, err := newClient(t, p, n.resolver).Exchange(t.Context(), refreshRequest()); err != nil || len(s.requests()) != 1 {
		t.Errorf("with proxy_resolves: got %v and %d requests, want one that works", err, len(s.requests()))
	}
	if got := proxy.requests(); len(got) != 1 || !strings.HasPrefix(got[0], "CONNECT login.example.com:") {
		t.Errorf("the proxy was asked %q, want the name once", got)
	}
}

func TestProxiesThatDoNotConnect(t *testing.T) {
	for name, answer := range map[string]string{
		"a refusal":       "HTTP/1.1 407 " + replyCanary + "\r\nContent-Length: 0\r\n\r\n",
		"no HTTP":         replyCanary + "\r\n\r\n",
		"nothing":         "",
		"endless headers": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-"+replyCanary+": "+strings.Repeat("y", 1000)+"\r\n", 200),
		"words besides":   "HTTP/1.1 200 OK\r\n\r\n" + replyCanary,
	} {
		t.Run(name, func(t *testing.T) {
			s := serveRaw(t, func(c net.Conn, _ *rawServer) {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
			})
			p := provider.Profile{TokenEndpoint: "https://203.0.113.7/token", Proxy: "http://" + s.addr}
			_, err := newClient(t, p).Exchange(t.Context(), refreshRequest())
			if f := failureOf(t, err); f.Sent || f.Class != transient || f.Code != "proxy_failed" {
				t.Errorf("got %+v, want an unsent proxy_failed", f)
			}
		})
	}
}

func TestAProxyMaySpeakTLS(t *testing.T) {
	n := newNames(t)
	s, p := named(t, "localhost.example.com")
	n.say("localhost.example.com", "127.0.0.1")
	proxy := &connectProxy{}
	proxy.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tunnel(t, w, r.Host) }))
	proxy.TLS = &tls.Config{Certificates: s.TLS.Certificates}
	proxy.StartTLS()
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	p.Proxy = "https://localhost.example.com:" + u.Port()
	if _, err := newClient(t, p, n.resolver).Exchange(t.Context(), refreshRequest()); err != nil {
		t.Errorf("got %v, want a token", err)
	}
}
