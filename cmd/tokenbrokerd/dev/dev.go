// Package dev runs a whole broker to look at: with sandbox providers, credentials, workers, and faults at the press of a key.
//
// Everything is in one process and on loopback. The broker is the one that "tokenbrokerd serve" runs, over a throwaway store with a
// development CA; each provider is an issuer of package sandbox, which is asked without a socket. The parts hand on in one direction: the
// world (folder, sandbox, broker) and the workers tell what happens, a table.Model folds it, and a terminal or plain lines show that model.
// Keys act on the world alone, so that what is seen of a fault is what the broker makes of it.
//
// It promises that it shows and prints no token and no secret, that it listens on loopback only, that a terminal is given back as it was
// on every way out, and that nothing is left of a temporary folder. With an operator's own config it opens neither the store, the key nor
// the audit log which that names. It removes and writes only within its folder and under names of its own, and takes no folder with
// anything else in it.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/table"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
	"github.com/tokenbroker/tokenbroker/daemon"
)

// Config is what Run needs.
type Config struct {
	Dir      string             // folder for its files, which stay; "" = a temporary one, which goes
	Listen   string             // loopback address for gRPC; "" = any free port
	Own      *daemon.Config     // an operator's config to try; nil = sample credentials and workers
	OwnFile  string             // the file that Own was read from; "" = none
	Out      io.Writer          // for what is printed
	Terminal *terminal.Terminal // for the table; nil = plain lines on Out
	Colour   bool               // of the table
	Version  string             // of the program
}

// change is something that happened: it changes the model, and may be worth a line.
type change func(*table.Model, time.Time) *table.Entry

// session is one run of dev.
type session struct {
	cfg     Config
	world   *world
	screen  atomic.Pointer[terminal.Screen] // nil = plain lines, or not yet
	changes chan change
	keys    chan terminal.Key
	actions chan struct{} // a place for each action that may be under way
	wg      sync.WaitGroup
	fleet   *fleet // nil with an operator's own config
	join    string // how to join in
	began   time.Time
	model   table.Model
}

const (
	frame    = 250 * time.Millisecond // between two looks at the clock
	backlog  = 4096                   // changes that wait for the model
	inFlight = 8                      // actions at a time
)

// Run makes everything, says so, and shows what happens until ctx ends or somebody quits.
func Run(ctx context.Context, cfg Config) error {
	if err := loopback(cfg.Listen); err != nil {
		return err
	}
	s := &session{cfg: cfg, changes: make(chan change, backlog), keys: make(chan terminal.Key, 64), actions: make(chan struct{}, inFlight),
		began: time.Now()}
	w, err := openWorld(ctx, cfg, s.observe)
	if err != nil {
		return err
	}
	defer w.leave()
	s.world = w
	return s.run(ctx)
}

// run serves, and shows what happens.
func (s *session) run(ctx context.Context) error {
	life, end := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer end()
	failed := make(chan error, 1)
	s.start(func() {
		failed <- s.world.serve(life, s.tell)
		end()
	})
	if err := s.populate(life); err != nil {
		end()
		return errors.Join(err, <-failed)
	}
	err := s.show(life)
	end()
	return errors.Join(err, <-failed)
}

// populate adds what there is to see, and says how to join in.
func (s *session) populate(ctx context.Context) error {
	join, err := s.world.scene.populate(ctx, s)
	if err != nil {
		return err
	}
	s.join = join
	s.model.Title = s.world.title()
	s.model.Join = s.world.scene.hints(s.world)
	_, err = fmt.Fprint(s.cfg.Out, join, "\nready\n")
	return err
}

// start runs do in a goroutine that run waits for. A panic gives the terminal back before it ends the process.
func (s *session) start(do func()) {
	s.wg.Go(func() {
		defer s.rescue()
		do()
	})
}

func (s *session) rescue() {
	if p := recover(); p != nil {
		if screen := s.screen.Load(); screen != nil {
			screen.Leave()
		}
		panic(p)
	}
}

// tell hands a change on. When nobody keeps up with them, one is lost: the next survey makes up for it.
func (s *session) tell(c change) {
	select {
	case s.changes <- c:
	default:
	}
}

func (s *session) observe(ev broker.Event) {
	s.tell(func(m *table.Model, now time.Time) *table.Entry { return m.Event(now, ev) })
}

// note tells what somebody did.
func (s *session) note(credential, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.tell(func(m *table.Model, now time.Time) *table.Entry { return m.Note(now, credential, text) })
}

// remark tells why something is not done.
func (s *session) remark(credential, text string) {
	s.tell(func(m *table.Model, now time.Time) *table.Entry { return m.Remark(now, credential, text) })
}

// show shows what happens until ctx ends or somebody quits.
func (s *session) show(ctx context.Context) error {
	if s.cfg.Terminal == nil {
		return s.plain(ctx)
	}
	return s.table(ctx)
}

// plain prints a line for whatever happens.
func (s *session) plain(ctx context.Context) error {
	s.start(func() { s.world.watch(ctx, s.tell) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-s.changes:
			if e := c(&s.model, time.Now()); e != nil {
				if _, err := fmt.Fprintln(s.cfg.Out, e.Line()); err != nil {
					return err
				}
			}
		}
	}
}

// table shows the table, and takes keys.
func (s *session) table(ctx context.Context) error {
	t := s.cfg.Terminal
	screen, err := terminal.Take(t)
	if err != nil {
		return err
	}
	s.screen.Store(screen)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGQUIT) // they would end the process with the terminal as it is
	defer stop()
	defer context.AfterFunc(ctx, screen.Leave)() // at once: what is to be waited for can take a while
	s.start(func() { s.world.watch(ctx, s.tell) })
	s.start(func() { terminal.Keys(t.In, func(k terminal.Key) { s.press(ctx, k) }) })
	defer s.summary()
	defer screen.Leave()
	defer func() { _ = t.In.Close() }()
	if t.Stop != nil {
		defer t.Stop()
	}
	s.loop(ctx, screen)
	return nil
}

func (s *session) press(ctx context.Context, k terminal.Key) {
	select {
	case s.keys <- k:
	case <-ctx.Done():
	}
}

// loop draws, until ctx ends or somebody quits.
func (s *session) loop(ctx context.Context, screen *terminal.Screen) {
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for hidden := false; ; {
		if !hidden {
			width, height := s.cfg.Terminal.Size()
			screen.Draw(s.model.View(width, height, time.Now(), s.cfg.Colour))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.catchUp()
		case <-s.cfg.Terminal.Resized:
		case c := <-s.changes:
			c(&s.model, time.Now())
			s.catchUp()
		case k := <-s.keys:
			switch {
			case k == 'q' || k == terminal.Interrupt:
				return
			case hidden:
				hidden = false
			case k == 'h' || k == '?':
				hidden = true
				screen.Hide(s.join + "\n" + keysText + "\nAny key goes back to the table.\n")
			default:
				s.key(ctx, k)
			}
		}
	}
}

// catchUp takes up all changes that wait, so that a burst of them costs one frame.
func (s *session) catchUp() {
	for range backlog {
		select {
		case c := <-s.changes:
			c(&s.model, time.Now())
		default:
			return
		}
	}
}

// summary says what was seen, on the usual screen.
func (s *session) summary() {
	_, _ = fmt.Fprintln(s.cfg.Out)
	for _, l := range s.model.Summary(s.began, time.Now()) {
		_, _ = fmt.Fprintln(s.cfg.Out, l)
	}
	if s.cfg.Dir != "" {
		_, _ = fmt.Fprintf(s.cfg.Out, "Its files are in %s.\n", s.world.dir.Dir)
	}
}

// Colour says whether a table is to have colours: not where NO_COLOR is set (https://no-color.org).
func Colour() bool { return os.Getenv("NO_COLOR") == "" }
