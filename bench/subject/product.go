package subject

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/server"
)

// product is a whole broker. The limit of calls is out of the way, as the load has one identity and is there to find where it ends; everything
// else is as it is served.
type product struct {
	daemon    *daemon.Daemon
	upstream  *upstream
	published atomic.Int64 // Unix nanoseconds of the first record of a delivery since publish last began
	stop      context.CancelFunc
	done      chan error
}

func openProduct(ctx context.Context, c Config) (*product, error) {
	up, err := newUpstream()
	if err != nil {
		return nil, err
	}
	if c.Seed.Credentials > 0 {
		if err := Fill(ctx, c.Site, c.Store, c.Seed, up.refreshToken); err != nil {
			return nil, err
		}
	}
	p := &product{upstream: up, done: make(chan error, 1)}
	p.daemon, err = daemon.Open(ctx, daemon.Config{
		Listen: "127.0.0.1:0", OpsListen: "127.0.0.1:0", TLS: c.Site.files("server"),
		StorePath: StorePath(c.Store), AuditFile: filepath.Join(c.Store, "audit.jsonl"),
		KEKFile: c.Site.path("kek.key"), PolicyFile: c.Site.path("policy.yaml"),
		Providers: profiles(), Transport: func(string) http.RoundTripper { return up },
		Limits:   server.Limits{CallsPerSecond: 1e9, Heartbeat: time.Hour},
		DrainFor: 5 * time.Second, Observe: p.observe, Version: "bench", Log: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go func() { p.done <- p.daemon.Run(life) }()
	return p, nil
}

// profiles describes the sandbox's issuers, with no limit on exchanges that would be measured in place of the broker.
func profiles() map[string]provider.Profile {
	no, yes, floor := false, true, provider.Duration(time.Millisecond)
	at := func(issuer string, rotates *bool) provider.Profile {
		return provider.Profile{TokenEndpoint: "https://sandbox.example/" + issuer + "/token", Rotates: rotates, Floor: &floor, Rate: 1e6, Burst: 1e6}
	}
	return map[string]provider.Profile{issuerSteady: at(issuerSteady, &no), issuerRotating: at(issuerRotating, &yes)}
}

// observe notes when a fresh token is about to be sent.
func (p *product) observe(ev broker.Event) {
	if ev.Kind == broker.EventDeliver {
		p.published.CompareAndSwap(0, time.Now().UnixNano())
	}
}

func (p *product) addr() string { return p.daemon.Addr().String() }

func (p *product) replies(Order) error { return errors.New("the product has replies of its own") }

// publish has the engine fetch a fresh token of the first credential, as RefreshCredential does.
func (p *product) publish(ctx context.Context) (Report, error) {
	p.published.Store(0)
	if _, err := p.daemon.Broker().Refresh(ctx, CredentialName(0)); err != nil {
		return Report{}, err
	}
	return Report{Answered: p.upstream.answered.Load(), Published: p.published.Load()}, nil
}

func (p *product) close() error {
	p.stop()
	return <-p.done
}
