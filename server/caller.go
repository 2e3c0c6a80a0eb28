package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// certificateGrace is how long after the end of a peer's time its connection is cut, so that its streams can say why they end.
const certificateGrace = time.Second

// clocksTrusted is for how long the clocks of peers are left alone. A timer goes by the monotonic clock, which stands still while a machine
// sleeps, and a certificate ends by the wall clock, which may be set.
const clocksTrusted = time.Second

// peers is the register of open connections.
type peers struct {
	log *slog.Logger
	cut func(reason string)

	mu    sync.Mutex
	open  map[*caller]struct{}
	count uint64      // so far
	look  *time.Timer // nil = nobody is there to look after
}

func newPeers(log *slog.Logger, cut func(string)) *peers {
	return &peers{log: log, cut: cut, open: map[*caller]struct{}{}}
}

// add takes up a connection, and gives it a number.
func (r *peers) add(c *caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	c.number = r.count
	r.open[c] = struct{}{}
	if r.look == nil {
		r.look = time.AfterFunc(clocksTrusted, r.lookAgain)
	}
}

// lookAgain looks after all connections, as long as there are any.
func (r *peers) lookAgain() {
	r.reconsider()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) == 0 {
		r.look = nil
		return
	}
	r.look.Reset(clocksTrusted)
}

func (r *peers) remove(c *caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

// reconsider judges every peer by what is in force.
func (r *peers) reconsider() {
	r.mu.Lock()
	open := make([]*caller, 0, len(r.open))
	for c := range r.open {
		open = append(open, c)
	}
	r.mu.Unlock()
	for _, c := range open {
		_ = c.check() // ends what may not go on
	}
}

// caller is the other end of a connection. It implements credentials.AuthInfo through TLSInfo.
type caller struct {
	credentials.TLSInfo
	mtls.Peer
	gate   *mtls.Gate
	admin  bool // it came by the listener of operators
	addr   string
	cut    func() error           // closes the connection, whatever its peer does
	number uint64                 // of the connection
	outlet *outlet                // what its subscriptions have to send
	memory memory                 // what it was given
	bucket atomic.Pointer[bucket] // of its identity; nil before its first call
	debt   debt                   // what has to be recorded before it is sent anything
	peers  *peers

	refused error // what it is told, whatever it calls; nil = it was let in

	aside  atomic.Int32           // health watches and reflections open now
	judged atomic.Uint64          // the gate's revision at the last look
	over   atomic.Pointer[ending] // why it may not go on; nil = it may

	mu      sync.Mutex
	clock   *time.Timer // of the certificate's end, and then of the cut
	left    bool        // the connection is closed
	streams map[*context.CancelFunc]struct{}
}

// ending is why a peer may not go on, and when its connection is cut.
type ending struct {
	why error
	cut time.Time
}

// begin judges a peer that has shaken hands, and winds up its clock.
func (c *caller) begin(all *peers) error {
	c.judged.Store(c.gate.Revision())
	p, err := c.gate.Peer(c.State)
	if err != nil {
		return err
	}
	c.Peer, c.peers, c.streams = p, all, map[*context.CancelFunc]struct{}{}
	c.mu.Lock() // the clock may ring at once
	c.clock = time.AfterFunc(time.Until(p.NotAfter), c.rung)
	c.mu.Unlock()
	all.add(c)
	return nil
}

// gone is told that the connection is closed.
func (c *caller) gone() {
	c.peers.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	c.clock.Stop()
}

// check says why a peer may not go on; nil if it may. What is in force was not when the peer was let in.
func (c *caller) check() error {
	if end := c.over.Load(); end != nil {
		return end.why
	}
	if !time.Now().Before(c.NotAfter) {
		return c.end(c.expired())
	}
	if now := c.gate.Revision(); now != c.judged.Load() {
		return c.judge(now)
	}
	return nil
}

// judge looks at a peer by what is in force since a revision of the gate.
func (c *caller) judge(revision uint64) error {
	p, err := c.gate.Peer(c.State)
	if err != nil {
		return c.end(lost(err))
	}
	c.judged.Store(revision)
	if p.NotAfter.Before(c.NotAfter) {
		c.wind(time.Until(p.NotAfter), false)
	}
	if end := c.over.Load(); end != nil { // another look ended it meanwhile
		return end.why
	}
	return nil
}

// lost is why a peer that was let in would not be now.
func lost(err error) error {
	if errors.Is(err, mtls.ErrDenied) {
		return &tokenbroker.Problem{Err: errCertificateDenied, Detail: "it is on the broker's deny list"}
	}
	return &tokenbroker.Problem{Err: errUntrusted, Detail: "present one that the broker's present CAs vouch for, in a new connection"}
}

// expired tells the end of a CA from that of the leaf, which whoever looks for the fault looks at.
func (c *caller) expired() error {
	detail := "present a new one, in a new connection"
	if c.NotAfter.Before(c.State.PeerCertificates[0].NotAfter) {
		detail = "the certificate of a CA above it ended at " + c.NotAfter.UTC().Format(time.RFC3339) + ": present one of a CA that is valid, in a new connection"
	}
	return &tokenbroker.Problem{Err: errCertificateExpired, Detail: detail}
}

// end ends a peer's streams with a reason, and its connection soon after. It returns the reason; that of whoever comes first counts.
func (c *caller) end(why error) error {
	if !c.over.CompareAndSwap(nil, &ending{why, time.Now().Add(certificateGrace)}) {
		return c.over.Load().why
	}
	c.mu.Lock()
	for cancel := range c.streams {
		(*cancel)()
	}
	c.mu.Unlock()
	c.wind(certificateGrace, true)
	reason := codeOf(why)
	c.peers.log.Warn("connection cut for its certificate", "identity", c.Identity, "serial", c.Serial, "reason", reason, "not_after", c.NotAfter)
	if c.peers.cut != nil {
		c.peers.cut(reason)
	}
	return why
}

// wind sets the clock. Once the peer may not go on, only the cut does, so that no look which began earlier puts the cut off.
func (c *caller) wind(after time.Duration, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.left && (cut || c.over.Load() == nil) {
		c.clock.Reset(after)
	}
}

// rung is the clock's: first the certificate ends, then the connection.
func (c *caller) rung() {
	end := c.over.Load()
	if end == nil {
		_ = c.end(c.expired())
		return
	}
	if early := time.Until(end.cut); early > 0 { // a look ended it just now, before the clock was set to the cut
		c.wind(early, true)
		return
	}
	_ = c.cut()
}

// during makes the context of one of the peer's streams, which ends when the peer may not go on. done has to be called after it.
func (c *caller) during(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[&cancel] = struct{}{}
	if c.over.Load() != nil {
		cancel()
	}
	return ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.streams, &cancel)
		cancel()
	}
}

// because is an error of a stream, or why the peer may not go on in its place.
func (c *caller) because(err error) error {
	if end := c.over.Load(); end != nil && err != nil {
		return end.why
	}
	return err
}
