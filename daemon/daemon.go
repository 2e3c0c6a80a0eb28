package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/explain"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/server"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
	"github.com/tokenbroker/tokenbroker/usage"
)

// Config is what a Daemon needs. Paths are as the operating system takes them.
type Config struct {
	Listener    net.Listener                            // for gRPC; nil = listen on Listen
	Listen      string                                  // TCP address for gRPC; "" = 127.0.0.1:8443
	OpsListen   string                                  // TCP address of the ops listener; "" = none
	Consent     Consent                                 // the listener for browsers; the zero value is none
	Admin       Admin                                   // the listener for operators; the zero value is none, and Listen serves all
	TLS         mtls.Files                              // the broker's certificate, key, and the CAs of its clients
	Workload    Workload                                // where the certificate comes from if not from files; the zero value is nowhere
	DenyFile    string                                  // the deny list of certificates; "" = none
	AllowDNS    bool                                    // take a DNS name for an identity where a certificate has no SPIFFE ID
	StorePath   string                                  // the database file; made if it is not there
	StoreSize   int64                                   // bytes it may grow to; 0 = no limit but the disk
	KEKFile     string                                  // the key encryption key
	PolicyFile  string                                  // the policy
	AuditFile   string                                  // the audit log; made if it is not there
	AuditSync   bool                                    // make each group of audit records durable before answers leave
	Checkpoints Checkpoints                             // of the audit log
	Providers   map[string]provider.Profile             // the providers
	Limits      server.Limits                           // zero values are good
	DrainFor    time.Duration                           // how long a shutdown may take; 0 = 45 s, more than an exchange
	Exchange    time.Duration                           // how long a token request may take; 0 = 30 s
	WatchEvery  time.Duration                           // how often policy and certificates are looked at; 0 = 250 ms
	Log         *slog.Logger                            // nil = slog.Default()
	Transport   func(provider string) http.RoundTripper // in place of the network, where it returns one; nil = the network
	Ambient     grant.Ambient                           // the machine's own Google credentials, for google_adc; zero = none
	Observe     func(broker.Event)                      // sees every event of the engine; must not block; nil = nobody looks
	Lives       func(fresh bool) int64                  // bytes of memory in use, for Limits.Memory; nil = as the runtime has it
	Version     string                                  // for the metric build_info
}

// GCPercent is how much garbage a process that is a broker lets grow, in percent of what lives: its live heap is small, and each call
// leaves garbage. It is for debug.SetGCPercent, which is the process's, not the Daemon's.
const GCPercent = 400

// Daemon is a broker that is open. Run serves it, once.
type Daemon struct {
	cfg         Config
	log         *slog.Logger
	policy      *policy.File
	identity    identity
	sink        *audit.File
	audit       *audit.Log
	trail       *audit.Trail
	witness     *audit.Witness // nil = checkpoints have no second place
	checkpoints rate.Sometimes // limits what is logged of it
	keys        *audit.Keys    // name tokens
	auditKeys   auditKeeper
	grants      *grant.Client
	metadata    grant.MetadataCache
	usage       *usage.Book
	used        usage.Keeper
	engine      *bolt.Engine
	broker      *broker.Broker
	server      *server.Server
	consent     *consent.Service
	web         *webListener // nil = none
	certificate *mtls.Public // of web
	metrics     *metrics
	events      *engineLog
	listen      net.Listener
	adminListen net.Listener // nil = none
	ops         *ops

	closers []func()
}

// Open opens all that a broker is made of, and listens. ctx governs the opening. Run it, or Close it.
func Open(ctx context.Context, cfg Config) (*Daemon, error) {
	cfg.fill()
	d := &Daemon{cfg: cfg, log: cfg.Log, events: newEngineLog(cfg.Log), checkpoints: rate.Sometimes{First: 1, Interval: 5 * time.Minute}}
	if err := d.open(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (c *Config) fill() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8443"
	}
	if c.DrainFor <= 0 {
		c.DrainFor = 45 * time.Second
	}
	if c.WatchEvery <= 0 {
		c.WatchEvery = 250 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// open goes from what only reads to what writes: the store comes last.
func (d *Daemon) open(ctx context.Context) error {
	catalogue, kek, err := d.openFiles(func() error { return d.identity.open(ctx, d.cfg) })
	if err != nil {
		return err
	}
	for _, warning := range d.identity.unbounded() {
		d.log.Warn("allowed, but to be known", "warning", warning)
	}
	if err := d.openNetwork(ctx); err != nil {
		return err
	}
	d.engine, err = bolt.Open(d.cfg.StorePath, bolt.Options{MaxSize: d.cfg.StoreSize})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() { _ = d.engine.Close() })
	records, err := store.Open(ctx, d.engine, store.Options{KEK: kek, Exercise: exercise(catalogue)})
	if err != nil {
		return fmt.Errorf("open the store %s: %w", d.cfg.StorePath, err)
	}
	if err := d.openAudit(ctx, records); err != nil {
		return err
	}
	d.loadMetadata(ctx, records)
	if err := d.loadUsage(ctx, records); err != nil {
		return err
	}
	d.metrics = newMetrics(d.cfg.Version, d.identity.tls.Expiry, d.policy.Err, d.audit.Healthy)
	d.metrics.watchCheckpoints(d.witness)
	d.metrics.watchIdentity(&d.identity)
	return d.assemble(ctx, records, catalogue)
}

// openFiles opens what is read: providers, policy, certificates, key encryption key. It reports all that is wrong at once.
func (d *Daemon) openFiles(certificates func() error) (*provider.Catalogue, keyring.KEK, error) {
	catalogue, provErr := provider.New(d.cfg.Providers)
	var policyErr, grantErr error
	d.policy, policyErr = policy.Load(d.cfg.PolicyFile)
	tlsErr := certificates()
	kek, kekErr := keyring.FileKEK(d.cfg.KEKFile)
	var webErr error
	d.certificate, webErr = d.cfg.Consent.open()
	if provErr == nil {
		d.grants, grantErr = grant.New(grant.Config{Catalogue: catalogue, Transport: d.cfg.Transport, Ambient: d.cfg.Ambient,
			Timeout: d.cfg.Exchange})
	}
	if d.grants != nil {
		d.closers = append(d.closers, d.grants.Close)
	}
	return catalogue, kek, errors.Join(provErr, grantErr, policyErr, tlsErr, kekErr, webErr, checkAudit(d.cfg))
}

func (d *Daemon) openNetwork(ctx context.Context) (err error) {
	d.listen = d.cfg.Listener
	if d.listen == nil {
		if d.listen, err = new(net.ListenConfig).Listen(ctx, "tcp", d.cfg.Listen); err != nil {
			return fmt.Errorf("listen for gRPC: %w", err)
		}
	}
	d.closers = append(d.closers, func() { _ = d.listen.Close() })
	if err := d.openAdmin(ctx); err != nil {
		return err
	}
	if err := d.openWeb(ctx); err != nil {
		return err
	}
	if d.cfg.OpsListen == "" {
		return nil
	}
	d.ops, err = openOps(ctx, d.cfg.OpsListen, d.ready)
	if err == nil {
		d.closers = append(d.closers, d.ops.close)
	}
	return err
}

func (d *Daemon) assemble(ctx context.Context, records *store.Store, catalogue *provider.Catalogue) (err error) {
	d.broker, err = broker.New(ctx, broker.Config{
		Store: records, Upstream: d.grants, Judge: d.grants, Traits: catalogue.Traits, Limits: limits(catalogue),
		Advice: advice(), ExchangeTimeout: d.cfg.Exchange, Encode: server.Encode, MAC: d.mac, Audit: d.record, Observe: d.observe,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.broker.Close)
	if d.consent, err = d.newConsent(records, catalogue); err != nil {
		return err
	}
	d.server, err = server.New(server.Config{
		Broker: d.broker, Consents: d.consent, Providers: providers{catalogue, d.consent.LinkRedirect()}, Policy: d.policy.Current, Audit: d.audit.Write, AuditLate: d.audit.Later,
		Trail: d.trail, MACs: d.keys.MACs,
		TLS: d.identity.tls, Accept: mtls.ServerOptions{AllowDNS: d.cfg.AllowDNS, Deny: d.identity.deny},
		Admin: d.identity.admin, AdminLets: mtls.ServerOptions{AllowDNS: d.cfg.Admin.AllowDNS, Deny: d.identity.deny},
		Log: d.log, Limits: d.cfg.Limits, Cut: d.metrics.wasCut,
		Meter: d.metrics.calls.unary, Stream: d.metrics.stream(), Opened: d.metrics.opened, Denied: d.metrics.denied, Audited: d.metrics.audited, Usage: d.usage,
		Edge: d.metrics.edge(), Lives: d.cfg.Lives,
	})
	if err == nil {
		d.closers = append(d.closers, d.server.Close)
	}
	return err
}

// observe passes an event on to all who look.
func (d *Daemon) observe(ev broker.Event) {
	d.metrics.observe(ev)
	d.events.observe(ev)
	if ev.Kind == broker.EventForgotten {
		d.usage.Forget(ev.Credential)
	}
	if d.cfg.Observe != nil {
		d.cfg.Observe(ev)
	}
}

// advice gives the engine the words of package explain for what to do about a cause, or else about a code.
func advice() func(string, tokenbroker.Cause, tokenbroker.GrantType) string {
	causes, codes := map[tokenbroker.Cause]explain.Entry{}, map[string]explain.Entry{}
	for _, e := range explain.All() {
		switch e.Kind {
		case explain.KindCause:
			causes[tokenbroker.Cause(e.Name)] = e
		case explain.KindCode:
			codes[e.Name] = e
		default: // what no provider says
		}
	}
	return func(code string, cause tokenbroker.Cause, grant tokenbroker.GrantType) string {
		return cmp.Or(causes[cause].DoFor(grant), codes[code].DoFor(grant))
	}
}

// exercise tells the store what it needs for its summaries.
func exercise(c *provider.Catalogue) func(string, tokenbroker.Grant) time.Time {
	return func(name string, g tokenbroker.Grant) time.Time {
		t, _ := c.Traits(name)
		return broker.LookAt(g, t)
	}
}

func limits(c *provider.Catalogue) func(string) broker.Limit {
	return func(name string) broker.Limit {
		p, _ := c.Profile(name)
		return broker.Limit{PerSecond: p.Rate, Burst: p.Burst}
	}
}

// Addr is where gRPC is served.
func (d *Daemon) Addr() net.Addr { return d.listen.Addr() }

// OpsAddr is where the ops listener is served; nil if there is none.
func (d *Daemon) OpsAddr() net.Addr {
	if d.ops == nil {
		return nil
	}
	return d.ops.listen.Addr()
}

// Broker is the engine, for those who look at it from within the process.
func (d *Daemon) Broker() *broker.Broker { return d.broker }

// Close closes what Open opened, if it is not run. Run does so itself.
func (d *Daemon) Close() {
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		d.closers[last]()
		d.closers = d.closers[:last]
	}
}

// Run serves until ctx ends, then drains, and closes everything. The error says what went wrong, nil after an orderly shutdown.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.Close()
	life, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: drains and the last records need it
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	failed := make(chan error, 5)
	run := func(what string, do func() error) {
		wg.Go(func() {
			if err := do(); err != nil && life.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	run("audit log", func() error { return d.audit.RunWitnessed(life, d.witness) })
	if err := d.started(ctx); err != nil {
		return err
	}
	wg.Go(func() { _ = d.broker.Run(life) })
	wg.Go(func() { d.consent.Run(life) })
	wg.Go(func() { d.watch(life) })
	wg.Go(func() { d.server.WatchMemory(life) })
	if d.ops != nil {
		run("ops listener", func() error { return d.ops.serve(d.metrics.handler()) })
	}
	if d.web != nil {
		run("consent listener", func() error { return d.web.serve(d.consent, d.cfg) })
	}
	run("gRPC", func() error { return d.server.Serve(d.listen) })
	if d.adminListen != nil {
		run("gRPC for operators", func() error { return d.server.ServeAdmin(d.adminListen) })
	}
	d.server.SetServing(true)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.drain()
	return err
}

// started records the start; without that record nothing is served. A shutdown that is asked for meanwhile is still one in order.
func (d *Daemon) started(ctx context.Context) error {
	r := system("start", d.listeners())
	r.PolicyRevision, r.CertFingerprint = d.policy.Current().Revision(), d.identity.tls.Fingerprint()
	return d.audit.Write(context.WithoutCancel(ctx), r)
}

// listeners says where is served.
func (d *Daemon) listeners() string {
	text := "grpc " + d.Addr().String()
	if a := d.AdminAddr(); a != nil {
		text += ", admin " + a.String()
	}
	if a := d.OpsAddr(); a != nil {
		text += ", ops " + a.String()
	}
	if a := d.ConsentAddr(); a != nil {
		text += ", consent " + a.String()
	}
	return text
}

func (d *Daemon) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.DrainFor)
	defer cancel()
	d.log.Info("draining")
	var wg sync.WaitGroup
	if d.web != nil {
		wg.Go(func() { d.web.close(ctx) })
	}
	d.server.Drain(ctx)
	wg.Wait()
	d.saveUsage(ctx)
	_ = d.audit.Write(ctx, system("stop", ""))
	if d.ops != nil {
		d.ops.close()
	}
	d.broker.Close()
}

// ready says why the broker should get no calls, for /readyz; nil if it should.
func (d *Daemon) ready() error {
	if d.audit == nil || d.server == nil {
		return errors.New("starting")
	}
	return errors.Join(d.audit.Healthy(), d.server.Ready())
}

// Check opens all that a broker reads (config, providers, policy, certificates, key encryption key) and nothing that it writes. The
// warnings are of what is allowed but should be known.
func Check(cfg Config) (warnings []string, err error) {
	cfg.fill()
	d := &Daemon{cfg: cfg, log: cfg.Log}
	defer d.Close()
	catalogue, _, err := d.openFiles(func() error { return d.identity.check(cfg) })
	if catalogue != nil {
		warnings = catalogue.Warnings()
	}
	return append(warnings, d.identity.warnings(cfg)...), err
}
