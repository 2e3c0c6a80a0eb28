package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenbroker/tokenbroker/bench/load"
	"github.com/tokenbroker/tokenbroker/bench/subject"
)

// scale is how much is done.
type scale struct {
	rounds   int           // of each comparison
	warmUp   time.Duration // before calls are measured
	callsFor time.Duration // of calls that are measured

	conns, streams int // of a fleet; streams are per connection
	publishes      int // that are measured, per subject
	idleConns      int
	memoryRounds   int

	stored      int // credentials of a start
	startRounds int
	due         int // credentials due at once
	dueRounds   int
}

// scales are the long form, for figures, and the short one, which only shows that everything works.
func scales(short bool) scale {
	if short {
		return scale{rounds: 1, warmUp: time.Millisecond, callsFor: 20 * time.Millisecond,
			conns: 4, streams: 5, publishes: 1, idleConns: 10, memoryRounds: 1, stored: 200, startRounds: 1, due: 50, dueRounds: 1}
	}
	return scale{rounds: 7, warmUp: 300 * time.Millisecond, callsFor: 2 * time.Second,
		conns: 100, streams: 100, publishes: 15, idleConns: 1000, memoryRounds: 3, stored: 100_000, startRounds: 5, due: 10_000, dueRounds: 3}
}

// choices are about the servers.
type choices struct {
	gogc     int    // of the product; 0 = as it has it
	profiles string // folder for CPU profiles; "" = none
}

// bench is what all measurements share.
type bench struct {
	scale scale
	choices
	dir  string
	site subject.Site
	tls  *tls.Config

	getRequest       []byte
	subscribeRequest []byte
	made             int // folders and servers, so far
}

// newBench makes a folder with certificates. remove removes it.
func newBench(s scale, c choices) (b *bench, remove func(), err error) {
	dir, err := os.MkdirTemp("", "tokenbroker-bench-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	b = &bench{scale: s, choices: c, dir: dir}
	if b.site, err = subject.NewSite(dir); err == nil {
		b.tls, err = b.site.ClientTLS()
	}
	if err == nil {
		b.getRequest, b.subscribeRequest, err = requests()
	}
	if err != nil {
		remove()
		return nil, nil, err
	}
	return b, remove, nil
}

// folder makes a folder for a store.
func (b *bench) folder() (string, error) {
	b.made++
	dir := filepath.Join(b.dir, fmt.Sprintf("store-%d", b.made))
	return dir, os.Mkdir(dir, 0o700)
}

// start starts a server. The product gets a new store unless there is one.
func (b *bench) start(ctx context.Context, c subject.Config) (*subject.Process, error) {
	c.Site = b.site
	if c.Role == subject.Product {
		c.GOGC = b.gogc
	}
	if c.Role == subject.Product && c.Store == "" {
		var err error
		if c.Store, err = b.folder(); err != nil {
			return nil, err
		}
	}
	if b.profiles != "" {
		b.made++
		c.Profile = filepath.Join(b.profiles, fmt.Sprintf("%d-%s.pprof", b.made, c.Role))
	}
	return subject.Start(ctx, c)
}

// dial makes connections to a server.
func (b *bench) dial(ctx context.Context, to *contender, n int) ([]*load.Conn, error) {
	var conns []*load.Conn
	for range n {
		c, err := load.Dial(ctx, load.Target{Addr: to.Addr, TLS: b.tls})
		if err != nil {
			hangUp(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func hangUp(conns []*load.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// measures are all there is to measure, by the names that -only takes.
func (b *bench) measures() []measure {
	return []measure{{"gettoken", b.getTokens}, {"fanout", b.fanOut}, {"memory", b.memories}, {"start", b.starts}, {"due", b.dues}}
}

type measure struct {
	name string
	run  func(context.Context, *Result) error
}

// run runs the measurements that are wanted; all if none is named.
func (b *bench) run(ctx context.Context, r *Result, wanted func(string) bool) error {
	for _, m := range b.measures() {
		if !wanted(m.name) {
			continue
		}
		if err := m.run(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if r.Errors > 0 {
		return fmt.Errorf("%d replies were not right, so the figures mean nothing: %w", r.Errors, r.first)
	}
	return nil
}
