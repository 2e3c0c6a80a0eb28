package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// sortTimeout is how long a connection may take to say which protocol it speaks.
const sortTimeout = 10 * time.Second

// sortAtOnce is for how many connections at a time a front finds out who they are from. Further ones wait in the kernel.
const sortAtOnce = 16

// front is one listener: it finds out who connects, and brings the connection to the server of its protocol.
type front struct {
	name     string
	listener net.Listener
	identify func(net.Conn) (Peer, error)
	lobby    *lobby
	knows    func(Peer) bool // whether any rule is for a peer

	http   *http.Server
	httpIn *inlet
	grpc   *grpc.Server // nil = HTTP alone
	grpcIn *inlet

	sorting chan struct{} // holds a value for each connection whose peer is being found out

	done chan struct{} // closed when it ends
	once sync.Once
}

// peerKey is where a handler finds who asks.
type peerKey struct{}

// caller is who sent an HTTP request.
func caller(ctx context.Context) Peer {
	p, _ := ctx.Value(peerKey{}).(Peer)
	return p
}

// newFront makes a front of an agent. Without g it speaks HTTP alone.
func (a *Agent) newFront(name string, l net.Listener, identify func(net.Conn) (Peer, error), h http.Handler, g *grpc.Server) *front {
	f := &front{name: name, listener: l, identify: identify, lobby: a.lobby, grpc: g, httpIn: newInlet(l.Addr()), grpcIn: newInlet(l.Addr()),
		knows: func(p Peer) bool { return a.rules.Load().knows(p) }, sorting: make(chan struct{}, sortAtOnce), done: make(chan struct{})}
	f.http = &http.Server{Handler: a.recovering(h), ReadHeaderTimeout: sortTimeout, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*conn).peer)
		}}
	return f
}

// serve serves until close, or until the listener fails.
func (f *front) serve() error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer f.close()
	wg.Go(func() { _ = f.http.Serve(f.httpIn) })
	if f.grpc != nil {
		wg.Go(func() { _ = f.grpc.Serve(f.grpcIn) })
	}
	for {
		f.sorting <- struct{}{}
		c, err := f.listener.Accept()
		if err == nil {
			wg.Go(func() { f.receive(c) })
			continue
		}
		<-f.sorting
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			pause(f.done) // no file descriptors, perhaps: those that are open go on
			select {
			case <-f.done:
				return nil
			default:
			}
		}
	}
}

// receive finds out who a connection is from, and what it speaks.
func (f *front) receive(c net.Conn) {
	p, err := f.identify(c)
	<-f.sorting
	if err != nil {
		_ = c.Close()
		return
	}
	in := f.lobby.enter(c, p, f.knows(p))
	if in == nil {
		_ = c.Close()
		return
	}
	if f.grpc == nil {
		f.httpIn.put(in)
		return
	}
	two, err := in.speaksTwo()
	switch {
	case err != nil:
		_ = in.Close()
	case two:
		f.grpcIn.put(in)
	default:
		f.httpIn.put(in)
	}
}

// preface is how an HTTP/2 connection begins (RFC 9113, section 3.4). No request of HTTP/1.1 does.
const preface = "PRI * HTTP/2.0\r\n"

// speaksTwo reads as much as tells HTTP/2 from HTTP/1.1.
func (c *conn) speaksTwo() (bool, error) {
	if err := c.SetReadDeadline(time.Now().Add(sortTimeout)); err != nil {
		return false, err
	}
	begun := make([]byte, 0, len(preface))
	for strings.HasPrefix(preface, string(begun)) && len(begun) < len(preface) {
		n, err := c.Conn.Read(begun[len(begun):cap(begun)])
		if err != nil {
			return false, err
		}
		begun = begun[:len(begun)+n]
	}
	c.begun = begun
	return string(begun) == preface, c.SetReadDeadline(time.Time{})
}

// close ends the listener at once, and lets what runs go on.
func (f *front) close() {
	f.once.Do(func() { close(f.done) })
	_ = f.listener.Close()
}

// drain lets requests end until ctx does, and then cuts them off.
func (f *front) drain(ctx context.Context) {
	f.close()
	if err := f.http.Shutdown(ctx); err != nil {
		_ = f.http.Close()
	}
	_ = f.httpIn.Close()
	if f.grpc == nil {
		return
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		f.grpc.GracefulStop()
		close(ended)
	})
	select {
	case <-ended:
	case <-ctx.Done():
		f.grpc.Stop()
	}
	_ = f.grpcIn.Close()
	wg.Wait()
}
