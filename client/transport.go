package client

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Transport is an http.RoundTripper that calls an API with a credential's token. When the API answers 401 it reports that token to the
// broker and, if that brings a newer one and the request can be sent again, sends it once more: safe methods without a body, and
// any request with GetBody, as http.NewRequest sets it for buffers and strings. The token goes to the host that was asked
// for, over https or to a loopback address, and is left out where a redirect leads elsewhere. base is what sends; nil is http.DefaultTransport.
func (c *Client) Transport(credential string, base http.RoundTripper, opts ...Option) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{c: c, credential: credential, opts: opts, base: base}
}

type transport struct {
	c          *Client
	credential string
	opts       []Option
	base       http.RoundTripper
}

// drainMost is how much of a refused reply is read so that its connection can be used again.
const drainMost = 64 << 10

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if strayed(req) {
		return t.base.RoundTrip(req)
	}
	tok, err := t.token(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.base.RoundTrip(authorized(req, tok))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	newer := t.report(req, tok)
	if newer.Generation <= tok.Generation {
		return resp, nil
	}
	again, ok := replay(req)
	if !ok {
		return resp, nil
	}
	_, _ = io.CopyN(io.Discard, resp.Body, drainMost)
	_ = resp.Body.Close()
	return t.base.RoundTrip(authorized(again, newer))
}

// report tells the broker of a refused token and returns the current one. Why there is none is not told: the API's answer tells the
// caller more than ours would.
func (t *transport) report(req *http.Request, refused tokenbroker.Token) tokenbroker.Token {
	newer, _, err := t.c.ReportRejected(req.Context(), t.credential, refused, http.StatusUnauthorized, t.opts...)
	if err != nil {
		return refused
	}
	return newer
}

// token gets the token for a request that may carry one.
func (t *transport) token(req *http.Request) (tokenbroker.Token, error) {
	ip := net.ParseIP(req.URL.Hostname())
	if req.URL.Scheme != "https" && !ip.IsLoopback() && req.URL.Hostname() != "localhost" {
		return tokenbroker.Token{}, tokenbroker.Invalid("url", errors.New("must be https: a token is not sent in the clear, but to a loopback address"))
	}
	return t.c.Token(req.Context(), t.credential, t.opts...)
}

// authorized is a copy of a request with a token; a RoundTripper must not change the one that it was given.
func authorized(req *http.Request, tok tokenbroker.Token) *http.Request {
	r := req.Clone(req.Context())
	r.Header.Set(tok.Header())
	return r
}

// replay makes a request that can be sent once more.
func replay(req *http.Request) (*http.Request, bool) {
	r := req.Clone(req.Context())
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return r, true
	case req.GetBody == nil:
		return nil, false
	}
	body, err := req.GetBody()
	r.Body = body
	return r, err == nil
}

// strayed reports whether redirects have led to another host than the one that the caller asked for, or whether that can't be known
// because a reply does not say what it answered.
func strayed(req *http.Request) bool {
	first := req
	for first.Response != nil {
		if first = first.Response.Request; first == nil {
			return true
		}
	}
	return !strings.EqualFold(first.URL.Host, req.URL.Host)
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}
