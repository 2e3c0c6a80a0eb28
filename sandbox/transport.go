package sandbox

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
)

// errRefused is what a dialler gives when nobody listens: nothing of the request was sent.
var errRefused error = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// RoundTrip implements [http.RoundTripper]. It answers for every host, in the calling goroutine; the journal tells which
// host was asked. A Content-Encoding that a fault sets is not undone. A request that hangs or waits ends with its context. The httptrace hooks about connections, writing and
// the first byte are called as a network transport would, so that a client can tell what was sent from what was not.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) { return s.roundTrip(r, nil) }

// Presenting returns a round tripper that shows a client certificate, and what it chains to, as a TLS connection would.
func (s *Server) Presenting(chain ...*x509.Certificate) http.RoundTripper {
	return presenting{s, chain}
}

type presenting struct {
	server *Server
	chain  []*x509.Certificate
}

// RoundTrip implements http.RoundTripper.
func (p presenting) RoundTrip(r *http.Request) (*http.Response, error) {
	return p.server.roundTrip(r, p.chain)
}

func (s *Server) roundTrip(r *http.Request, peers []*x509.Certificate) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }() // it is ours to close, and there is nobody to tell
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	v := s.receive(r, r.URL.Scheme == "https", peers)
	if v.bodyErr != nil && !errors.Is(v.bodyErr, errBodyTooLarge) {
		return nil, fmt.Errorf("sandbox: read the request body: %w", v.bodyErr)
	}
	trace := httptrace.ContextClientTrace(r.Context())
	if v.fault == nil || !v.fault.Refuse {
		traceSent(trace, r.URL.Host)
	}
	a, err := s.respond(v)
	if err != nil {
		return nil, err
	}
	if trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
	return response(r, a), nil
}

func traceSent(t *httptrace.ClientTrace, host string) {
	if t == nil {
		return
	}
	if t.GetConn != nil {
		t.GetConn(host)
	}
	if t.GotConn != nil {
		t.GotConn(httptrace.GotConnInfo{})
	}
	if t.WroteHeaders != nil {
		t.WroteHeaders()
	}
	if t.WroteRequest != nil {
		t.WroteRequest(httptrace.WroteRequestInfo{})
	}
}

func response(r *http.Request, a answer) *http.Response {
	res := &http.Response{
		Status:        fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		StatusCode:    a.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        a.header,
		Body:          http.NoBody,
		ContentLength: int64(len(a.body)),
		Request:       r,
	}
	if hasBody(r.Method, a.status) {
		res.Body = newBody(r.Context(), a)
	}
	return res
}

// body is a response body that may drip and may break off.
type body struct {
	rest   []byte
	end    error        // what comes after rest: io.EOF, or a break
	pause  func() error // before each piece; the error of the request's context once that has ended
	drip   bool
	closed atomic.Bool
}

func newBody(ctx context.Context, a answer) *body {
	b := &body{rest: a.body, end: io.EOF, drip: a.drip > 0}
	b.pause = func() error { return sleep(ctx, a.drip) }
	if a.cut >= 0 && a.cut < len(a.body) {
		b.rest, b.end = a.body[:a.cut], io.ErrUnexpectedEOF
	}
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case len(p) == 0:
		return 0, nil
	case len(b.rest) == 0:
		return 0, b.end
	}
	if err := b.pause(); err != nil {
		return 0, err
	}
	if b.drip {
		p = p[:1]
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.closed.Store(true)
	return nil
}
