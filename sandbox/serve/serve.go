package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const anyPort = "127.0.0.1:0"

// ErrRemote is for an address that is not loopback, without [Config.AllowRemote].
var ErrRemote = errors.New("others could reach a sandbox here, which belongs on a loopback address such as 127.0.0.1")

// Config says what to serve, and where.
type Config struct {
	Scenario sandbox.Scenario // the server and its script

	Listen      string       // host:port of the sandbox; "" = 127.0.0.1:0
	Control     string       // host:port of the control endpoint, loopback; "" = 127.0.0.1:0
	PlainHTTP   bool         // no TLS
	AllowRemote bool         // Listen may be an address that others reach
	Log         *slog.Logger // where net/http says what went wrong with a connection; nil = nowhere
}

// Server is a sandbox with two open ports.
type Server struct {
	*sandbox.Server
	URL        string // of the sandbox, without a slash at the end; an issuer is at URL/name
	ControlURL string // of the control endpoint, which is at ControlURL/control/
	CA         []byte // PEM file with the CA of the certificate; nil without TLS

	listener, control net.Listener
	issuers           []sandbox.Issuer
	log               *slog.Logger
}

// Listen makes the sandbox and opens its ports. The context is for opening them alone.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	cfg.Listen, cfg.Control = cmp.Or(cfg.Listen, anyPort), cmp.Or(cfg.Control, anyPort)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Scenario.AllowHTTP = cfg.Scenario.AllowHTTP || cfg.PlainHTTP
	srv, err := cfg.Scenario.New()
	if err != nil {
		return nil, err
	}
	s := &Server{Server: srv, issuers: cfg.Scenario.Issuers, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))}
	var open net.ListenConfig
	if s.listener, err = open.Listen(ctx, "tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if s.control, err = open.Listen(ctx, "tcp", cfg.Control); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for control: %w", err), s.listener.Close())
	}
	s.ControlURL, s.URL = "http://"+s.control.Addr().String(), "http://"+s.listener.Addr().String()
	if !cfg.PlainHTTP {
		if err := s.secure(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (c Config) validate() error {
	var errs []error
	if !loopback(c.Control) {
		errs = append(errs, fmt.Errorf("control endpoint at %s: it must be at a loopback address such as 127.0.0.1", c.Control))
	}
	switch {
	case loopback(c.Listen):
	case !c.AllowRemote:
		errs = append(errs, fmt.Errorf("%w: %s", ErrRemote, c.Listen))
	case c.PlainHTTP:
		errs = append(errs, fmt.Errorf("plain HTTP at %s: only a loopback address goes without TLS", c.Listen))
	}
	return errors.Join(errs...)
}

// loopback reports whether an address, given as a literal, is reached from this machine alone. A name could be anything.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// secure puts TLS before the sandbox.
func (s *Server) secure() error {
	host, _, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	ca, leaf, err := certify(host, time.Now())
	if err != nil {
		return err
	}
	s.CA, s.URL = ca, "https://"+s.listener.Addr().String()
	s.listener = tls.NewListener(s.listener, &tls.Config{
		Certificates: []tls.Certificate{leaf},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	})
	return nil
}

// Run serves until ctx ends, then ends what hangs, waits for the rest and closes the ports. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			BaseContext: func(net.Listener) context.Context { return requests }}
	}
	servers := map[net.Listener]*http.Server{s.listener: server(s.Server), s.control: server(atLoopback(s.ControlHandler()))}
	var running sync.WaitGroup
	failed := make(chan error, len(servers))
	for l, one := range servers {
		running.Go(func() {
			if err := one.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve: %w", err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	end()
	for _, one := range servers {
		err = errors.Join(err, shutDown(one))
	}
	running.Wait()
	return err
}

// shutDown waits for the requests, which the end of their context has ended, but not for ever.
func shutDown(one *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := one.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down: %w", err), one.Close())
	}
	return nil
}

// Close closes the ports of a server that is not run.
func (s *Server) Close() error { return errors.Join(s.listener.Close(), s.control.Close()) }

// Client returns an HTTP client that trusts the sandbox and follows no redirect. Close its idle connections when done.
func (s *Server) Client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// atLoopback refuses requests that came by another name: a web page's host may resolve to this machine, too.
func atLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil || host != "localhost" && !loopback(r.Host) {
			http.Error(w, "name the control endpoint by its loopback address and port", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
