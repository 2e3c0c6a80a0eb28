package dev

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/table"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	pause    = 3 * time.Second // between a drain and the broker's return
	drainFor = 5 * time.Second
	surveyed = 1000 // credentials that a survey looks at
)

// scene is what the world is filled with: the samples, or an operator's own config.
type scene interface {
	// prepare makes the scene's files and its sandbox, and completes the broker's config. The roles say who plays which provider.
	prepare(*folder, *daemon.Config) (sb *sandbox.Server, roles map[string]role, err error)
	// populate adds credentials and workers, and says how to join in.
	populate(context.Context, *session) (string, error)
	// hints are the lines about joining in that stay in view.
	hints(*world) []string
	// herd has many callers ask for a token at once that is valid for at least a while.
	herd(ctx context.Context, w *world, credential string, least time.Duration) error
}

// role is who stands in for a provider.
type role struct {
	issuer  string        // of the sandbox
	clients []string      // ids that it knows
	floor   time.Duration // the least time between refreshes that callers cause
}

// world is the broker with all that it stands on.
type world struct {
	dir       folder
	front     *front // where the API is, and the sandbox's pages
	scene     scene
	sandbox   *sandbox.Server
	roles     map[string]role // provider → who plays it
	cfg       daemon.Config
	Addr, Ops string // where it listens

	mu      sync.Mutex
	present *daemon.Daemon
	stop    context.CancelFunc // drains the present daemon; nil = it is not run
}

// openWorld makes the folder and opens the broker. What happens is observed.
func openWorld(ctx context.Context, cfg Config, observe func(broker.Event)) (*world, error) {
	w := &world{}
	err := w.choose(cfg)
	if err != nil {
		return nil, err
	}
	if w.dir, err = openFolder(cfg.Dir, cfg.named()); err != nil {
		w.leave()
		return nil, err
	}
	w.cfg = daemon.Config{Listen: cmp.Or(cfg.Listen, "127.0.0.1:0"), OpsListen: "127.0.0.1:0", DrainFor: drainFor,
		Log: slog.New(slog.DiscardHandler), Version: cfg.Version, Observe: observe}
	if err := w.open(ctx); err != nil {
		w.leave()
		return nil, err
	}
	return w, nil
}

// choose chooses the scene.
func (w *world) choose(cfg Config) (err error) {
	if w.front, err = openFront(); err != nil {
		return err
	}
	if cfg.Own == nil {
		w.scene = sample{w.front}
		return nil
	}
	o, err := newOwn(*cfg.Own)
	if err != nil {
		w.front.close()
		return err
	}
	o.front, w.scene = w.front, o
	return nil
}

// leave removes what is not to stay.
func (w *world) leave() {
	if w.front != nil {
		w.front.close()
	}
	w.dir.leave()
}

func (w *world) open(ctx context.Context) (err error) {
	if err := w.dir.clear(storeFile, auditFile); err != nil { // the sandbox has forgotten its refresh tokens, too
		return err
	}
	w.cfg.StorePath, w.cfg.AuditFile, w.cfg.Checkpoints = w.dir.Path(storeFile), w.dir.Path(auditFile), daemon.Checkpoints{}
	if w.sandbox, w.roles, err = w.scene.prepare(&w.dir, &w.cfg); err != nil {
		return err
	}
	w.cfg.TLS = mtls.Files{Cert: w.dir.Path("server.pem"), Key: w.dir.Path("server.key"), CA: w.dir.Path("ca.pem")}
	if w.present, err = daemon.Open(ctx, w.cfg); err != nil {
		return err
	}
	w.Addr, w.Ops = w.present.Addr().String(), w.present.OpsAddr().String()
	w.cfg.Listen, w.cfg.OpsListen = w.Addr, w.Ops // it comes back where it was
	return nil
}

func (w *world) title() string {
	return fmt.Sprintf("%s · sandbox, not for production", w.Addr)
}

// serve runs the broker until ctx ends. A broker that was drained comes back after a pause.
func (w *world) serve(ctx context.Context, tell func(change)) error {
	for {
		err := w.serveOnce(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		away(tell, "drained, back in 3 s; workers keep their last tokens")
		if !sleep(ctx, pause) {
			return nil
		}
		away(tell, "")
		next, err := daemon.Open(ctx, w.cfg)
		if err != nil {
			return fmt.Errorf("open the broker again: %w", err)
		}
		w.mu.Lock()
		w.present = next
		w.mu.Unlock()
	}
}

func away(tell func(change), why string) {
	tell(func(m *table.Model, now time.Time) *table.Entry { return m.Away(now, why) })
}

// serveOnce runs the present daemon to its end.
func (w *world) serveOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	d := w.present
	w.stop = cancel
	w.mu.Unlock()
	err := d.Run(ctx)
	w.mu.Lock()
	w.present, w.stop = nil, nil
	w.mu.Unlock()
	return err
}

// drain ends the present daemon in order, and reports whether there was one to end.
func (w *world) drain() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		return false
	}
	w.stop()
	w.stop = nil
	return true
}

// engine is the broker's engine; nil while there is none.
func (w *world) engine() *broker.Broker {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.present == nil {
		return nil
	}
	return w.present.Broker()
}

// watch surveys the credentials until ctx ends.
func (w *world) watch(ctx context.Context, tell func(change)) {
	for ctx.Err() == nil {
		if b := w.engine(); b != nil {
			all, _, err := b.Credentials(ctx, "", surveyed, func(string) bool { return true })
			if err == nil {
				tell(func(m *table.Model, now time.Time) *table.Entry {
					m.Survey(now, all)
					return nil
				})
			}
		}
		sleep(ctx, frame)
	}
}

// arm has the next token requests of a credential go wrong.
func (w *world) arm(name, provider string, f sandbox.Fault) {
	r, played := w.roles[provider]
	if !played {
		return // it came from nowhere: a row of which nothing is known yet
	}
	if c, known := find(name); known && slices.Contains(r.clients, c.client) {
		f.ClientID = c.client
	}
	script := slices.Contains(r.clients, flakyClient)
	if script {
		w.sandbox.Clear(r.issuer) // a fault that somebody asks for goes before those of the script
	}
	w.sandbox.Fail(r.issuer, f)
	if script {
		playFlaky(w.sandbox)
	}
}

// sleep waits for d, and reports whether it did: not if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// inPlace has the sandbox answer for every provider.
func inPlace(s *sandbox.Server) func(string) http.RoundTripper {
	return func(string) http.RoundTripper { return s }
}
