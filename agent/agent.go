package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/client"
)

// Config says whom an agent serves, where, and what.
type Config struct {
	Client      *client.Client // of the broker; required. It stays the caller's, to close after Run
	Socket      string         // path of the Unix socket; required
	AuditFile   string         // where the trail goes; required
	Checkpoints Checkpoints    // of the trail; the zero value is none
	Rules       []Rule         // who may have what; nil = Own()
	Log         *slog.Logger   // nil = nowhere

	HTTP       string   // 127.0.0.1:PORT to serve HTTP on, too; "" = none
	BearerFile string   // with HTTP: where the secret goes that callers have to show; required then
	Metadata   Metadata // the emulated metadata server; the zero value is none

	// UnidentifiedAsOwn judges callers of TCP listeners whose uid can't be found as the agent's own uid. Otherwise they are refused.
	UnidentifiedAsOwn bool

	TokensPerUser int // different ones (by credential, scopes, subject, audience) that a user may have in use at once; 0 = 512
	CallsPerUser  int // that a user may make in a second, ten times as many at once; 0 = 500

	DrainFor   time.Duration // how long calls may take to end; 0 = 5 s
	SlowReader time.Duration // a subscriber that does not read what it is sent for this long is cut; 0 = 10 s
}

// Agent serves the jobs of a host.
type Agent struct {
	cfg       Config
	rules     atomic.Pointer[ruleset]
	denials   *denials
	pace      *pace
	handed    *handed
	shares    *shares
	lobby     *lobby
	fronts    []*front
	sink      *audit.File
	log       *audit.Log
	place     *audit.Place   // nil = checkpoints have no second place
	witness   *audit.Witness // the same
	hurry     rate.Sometimes // lines of the log on users who make too many calls
	news      trailNews
	unplaced  rate.Sometimes // lines of the log on a second place that takes nothing
	socket    *net.UnixListener
	ending    chan struct{} // closed when streams have to end
	bearer    *bearer       // nil = no HTTP port
	health    *healthService
	outage    rate.Sometimes // lines of the log on a broker that does not answer
	crooked   rate.Sometimes // and on tokens that can't be sent
	crowd     rate.Sometimes // lines of the log on users who use too many tokens
	namespace namespace

	mu sync.Mutex // of SetRules
}

// Open opens the trail and all listeners: from then on jobs may connect, and are answered once Run runs. ctx governs opening. A value that no agent
// could take is a tokenbroker.Problem, whose Field is that of Config.
func Open(ctx context.Context, cfg Config) (_ *Agent, err error) {
	if err := errors.Join(identifies(), cfg.check()); err != nil {
		return nil, err
	}
	rules, err := newRuleset(cfg.Rules)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", tokenbroker.Invalid("Rules", err))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.DrainFor, cfg.SlowReader = cmp.Or(cfg.DrainFor, 5*time.Second), cmp.Or(cfg.SlowReader, 10*time.Second)
	a := &Agent{cfg: cfg, denials: newDenials(), pace: newPace(cmp.Or(cfg.CallsPerUser, callsPerSecond)), handed: newHanded(), lobby: newLobby(), ending: make(chan struct{}),
		outage: rate.Sometimes{First: 1, Interval: 10 * time.Second}, crooked: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		crowd: rate.Sometimes{First: 1, Interval: time.Minute},
		hurry: rate.Sometimes{First: 1, Interval: time.Minute}, unplaced: rate.Sometimes{First: 1, Interval: 5 * time.Minute}}
	a.news.log, a.news.file = cfg.Log, cfg.AuditFile
	a.health = newHealthService(a.ail)
	a.shares = newShares(cmp.Or(cfg.TokensPerUser, maxTokensPerUser), func(q *question) { cfg.Client.Forget(q.credential, q.options()...) })
	if a.namespace, err = thisNamespace(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.rules.Store(rules)
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	// An agent that answers on the socket already is what is told first, and the bearer file is written last: it may be that of another one.
	for _, open := range []func(context.Context) error{a.openSocket, a.openTrail, a.openLoopback, a.openMetadata} {
		if err := open(ctx); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	return a, nil
}

func (c *Config) check() error {
	var errs []error
	for name, missing := range map[string]bool{"Client": c.Client == nil, "Socket": c.Socket == "", "AuditFile": c.AuditFile == ""} {
		if missing {
			errs = append(errs, fmt.Errorf("agent: Config.%s is missing", name))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) openSocket(ctx context.Context) (err error) {
	if a.socket, err = listenUnix(ctx, a.cfg.Socket, a.rules.Load().shared()); err != nil {
		return err
	}
	a.fronts = append(a.fronts, a.newFront("socket", a.socket, a.identifyUnix, a.routes(), a.newGRPC()))
	return nil
}

func (a *Agent) identifyUnix(c net.Conn) (Peer, error) {
	p, err := peerOf(c.(*net.UnixConn))
	if err != nil {
		return p, err
	}
	return a.namespace.known(p)
}

// Close closes what Open opened, if it is not run. Run does so itself.
func (a *Agent) Close() {
	for _, f := range a.fronts {
		f.close()
	}
	a.bearer.remove()
	a.lobby.close()
	if a.sink != nil {
		_ = a.sink.Close()
	}
	if a.place != nil {
		_ = a.place.Close()
	}
}

// Run serves until ctx ends, then drains, and closes everything. The error says what went wrong, nil after an orderly end.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Close()
	life, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: the last records need it
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	failed := make(chan error, 5+len(a.fronts))
	run := func(what string, do func() error) {
		wg.Go(func() {
			if err := do(); err != nil && life.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	run("certificate", func() error { return a.watchCertificate(life) })
	run("audit log", func() error { return a.log.RunWitnessed(life, a.witness) })
	if err := a.record(ctx, a.system("agent.start", a.listeners())); err != nil {
		return err
	}
	run("trail", func() error { return a.watchTrail(life) })
	run("health", func() error { return a.health.watch(life) })
	run("broker", func() error { return a.watchBroker(life) })
	for _, f := range a.fronts {
		run(f.name, f.serve)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	a.drain()
	return err
}

// drain ends in order: streams are told, calls end, and the trail says so.
func (a *Agent) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.DrainFor)
	defer cancel()
	close(a.ending)
	a.health.Shutdown()
	var wg sync.WaitGroup
	for _, f := range a.fronts {
		wg.Go(func() { f.drain(ctx) })
	}
	wg.Wait()
	a.lobby.close()
	_ = a.record(ctx, a.system("agent.stop", ""))
}

// SetRules puts other rules in force. Open streams are judged anew.
func (a *Agent) SetRules(ctx context.Context, rules []Rule) error {
	now, err := newRuleset(rules)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	folder, socket := modes(now.shared())
	if err := errors.Join(makeFolder(filepath.Dir(a.cfg.Socket), folder), os.Chmod(a.cfg.Socket, socket)); err != nil {
		return err
	}
	old := a.rules.Swap(now)
	close(old.replaced)
	return a.record(ctx, a.system("agent.reload", fmt.Sprintf("%d rules", len(now.rules))))
}

// record writes a record. A caller who leaves does not take back what was done for it.
func (a *Agent) record(ctx context.Context, r audit.Record) error {
	err := a.log.Write(context.WithoutCancel(ctx), r)
	if err != nil {
		a.news.note(err)
	}
	return err
}

func (a *Agent) system(action, reason string) audit.Record {
	return audit.Record{Kind: audit.KindSystem, Action: action, Reason: reason}
}

// Addr is where an agent serves.
type Addr struct {
	Name string // "socket", "http" or "metadata"
	URL  string
}

// Addrs are where the agent serves.
func (a *Agent) Addrs() []Addr {
	var all []Addr
	for _, f := range a.fronts {
		scheme := "http"
		if at := f.listener.Addr(); at.Network() == "unix" {
			scheme = "unix"
		}
		all = append(all, Addr{Name: f.name, URL: scheme + "://" + f.listener.Addr().String()})
	}
	return all
}

// listeners says where is served, for the trail.
func (a *Agent) listeners() string {
	var all []string
	for _, at := range a.Addrs() {
		all = append(all, at.URL)
	}
	return strings.Join(all, " ")
}

// unanswered tells the log, now and then, why the broker did not answer: jobs are not told.
func (a *Agent) unanswered(err error) {
	a.outage.Do(func() { a.cfg.Log.Warn("the broker does not answer", "error", err) })
}

// requestID tells the records of one call from those of others. It is no secret.
func requestID() string { return strconv.FormatUint(rand.Uint64(), 32) }
