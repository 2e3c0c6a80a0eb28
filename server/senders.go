package server

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// stuckAfter is how often a sender is looked at. One that is in the same send then stays with that stream, and another takes over the
// rest: at the latest after twice the time.
const stuckAfter = 50 * time.Millisecond

// senders carry what feeds have to their streams. They are a few goroutines that go from connection to connection, and live only while
// there is something to send: to wake a goroutine for each stream costs more than the sends themselves, and streams of one connection
// in a row share its writes.
//
// A send may block for as long as its reader likes, and nothing tells beforehand. The sender that is caught by it stays with the
// stream, a fresh one takes its place, and until the reader has caught up each stream of that connection has a goroutine of its own.
type senders struct {
	running sync.WaitGroup

	mu    sync.Mutex
	queue []*outlet // connections that have something to send, oldest first
	busy  int       // senders, but for those that are caught
	most  int       // senders at a time; more each time one is caught, until the queue is empty
}

func newSenders() *senders { return &senders{most: usualSenders()} }

func usualSenders() int { return max(2, runtime.GOMAXPROCS(0)) }

// mostSenders bounds the senders at a time, but for those that are caught.
const mostSenders = 1024

// wait waits until all is sent. Call it when no subscription is left.
func (p *senders) wait() { p.running.Wait() }

// outlet is what is to be sent on one connection.
type outlet struct {
	mu     sync.Mutex
	ready  []*subscription // oldest first
	queued bool            // a sender has it, or it waits for one
	slow   int             // streams whose reader held up a sender and has not caught up
}

// ready has a subscription delivered. It never blocks.
func (p *senders) ready(sub *subscription) {
	if !sub.waiting.CompareAndSwap(false, true) {
		return
	}
	o := sub.call.outlet
	o.mu.Lock()
	if o.slow > 0 {
		o.mu.Unlock()
		p.running.Go(sub.deliverAlone)
		return
	}
	o.ready = append(o.ready, sub)
	queued := o.queued
	o.queued = true
	o.mu.Unlock()
	if !queued {
		p.push(o)
	}
}

// push queues a connection, and sees that somebody comes for it.
func (p *senders) push(o *outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, o)
	p.hireLocked()
}

// hireLocked has as many senders as may be, and as there are connections for.
func (p *senders) hireLocked() {
	for want := min(p.most, p.busy+len(p.queue)); p.busy < want; p.busy++ {
		p.running.Go(p.send)
	}
}

// next is the connection that waits longest; nil if none does, and then the sender is one no more.
func (p *senders) next() *outlet {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue, p.busy, p.most = nil, p.busy-1, usualSenders()
		return nil
	}
	o := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return o
}

// take is the stream of a connection that waits longest; nil if none does. alone says that it needs a goroutine of its own.
func (o *outlet) take() (sub *subscription, alone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 {
		o.ready, o.queued = nil, false
		return nil, false
	}
	sub = o.ready[0]
	o.ready[0] = nil
	o.ready = o.ready[1:]
	return sub, o.slow > 0
}

// slower counts streams whose readers are slow.
func (o *outlet) slower(by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slow += by
}

// send is a sender's life.
func (p *senders) send() {
	w := &sender{of: p}
	w.start()
	defer w.stop()
	for o := p.next(); o != nil; o = p.next() {
		for sub, alone := o.take(); sub != nil; sub, alone = o.take() {
			if alone {
				p.running.Go(sub.deliverAlone)
				continue
			}
			sub.deliver(w)
			if w.caught.Load() {
				return
			}
		}
	}
}

// sender is one that sends.
type sender struct {
	of     *senders
	begun  atomic.Uint64 // streams and sends
	caught atomic.Bool   // in a send that blocks: another sender has its place

	mu    sync.Mutex
	timer *time.Timer // nil once the sender is none any more
	seen  uint64      // what begun was at the last look
	on    *subscription
}

func (w *sender) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(stuckAfter, w.look)
}

func (w *sender) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// turnTo notes which stream the sender sends on; nil once it has sent.
func (w *sender) turnTo(sub *subscription) {
	w.begun.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = sub
}

// look sees whether a send blocks, and lets another sender have what is left.
func (w *sender) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	begun := w.begun.Load()
	switch {
	case w.timer == nil:
	case w.on == nil || begun != w.seen:
		w.seen = begun
		w.timer.Reset(stuckAfter)
	default:
		w.on.held()
		w.caught.Store(true)
		w.of.replace(w.on.call.outlet)
	}
}

// replace takes a sender out of the count, and gives its connection to another. Where one reader is slow many may be, and each would
// hold up those behind it for as long, so there are twice as many senders from then on.
func (p *senders) replace(o *outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	p.most = min(mostSenders, 2*p.most)
	p.queue = append(p.queue, o)
	p.hireLocked()
}
