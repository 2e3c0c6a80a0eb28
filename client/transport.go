package client

import (
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// HTTPClient is an http.Client that calls an API with a credential's token, by a Transport. It has no timeout of its own: give each
// request a context.
func (c *Client) HTTPClient(credential string, opts ...TransportOption) *http.Client {
	return &http.Client{Transport: c.Transport(credential, opts...)}
}

// Transport is an http.RoundTripper that calls an API with a credential's token, in the header that the token belongs into.
//
// When the API answers 401 it reports the refused generation to the broker, unless a newer one is held by then; waits for a newer one,
// up to 5 s or as RetryWait says; and sends the request once more if its body can be had again, as with http.NewRequest for buffers and
// strings. Otherwise the caller gets the API's 401. However many requests are refused, a client has one report of a generation under way, and
// no further one before the broker says that it can help.
//
// When the API answers 403 with insufficient_scope (RFC 6750 §3.1) no refresh can help: that is reported too, and the error is a *ScopeError.
//
// The token goes over https, to the host that the request was made for. A redirect to another scheme, host or port is followed without it,
// and so is all that comes after. Refused before anything is sent are: plain http (see LoopbackHTTP), a host that AllowHosts does not name, a
// Host header for another one, a URL with user information or with access_token= in it, and a request which has the token's header already.
func (c *Client) Transport(credential string, opts ...TransportOption) http.RoundTripper {
	t := &transport{c: c, credential: credential, base: http.DefaultTransport, wait: retryWait}
	for _, o := range opts {
		o(t)
	}
	t.variant = variantKey(credential, t.opts)
	return t
}

// TransportOption changes a Transport.
type TransportOption func(*transport)

// For asks for another token than the credential's own: by Scopes, Subject, Audience or MinValidity.
func For(opts ...Option) TransportOption {
	return func(t *transport) { t.opts = append(t.opts, opts...) }
}

// Base is what sends the requests, in place of http.DefaultTransport.
func Base(rt http.RoundTripper) TransportOption {
	return func(t *transport) {
		if rt != nil {
			t.base = rt
		}
	}
}

// AllowHosts names the only hosts that may get the token: "api.example.com", or "api.example.com:8443" where the port is not that of the
// scheme. Without it each host may for which a request is made.
func AllowHosts(hosts ...string) TransportOption {
	return func(t *transport) { t.hosts = append(t.hosts, hosts...) }
}

// LoopbackHTTP lets the token go over plain http to a loopback address, written as such: 127.0.0.0/8 or [::1]. The name localhost is none: who
// answers to it is up to a resolver.
func LoopbackHTTP() TransportOption { return func(t *transport) { t.loopback = true } }

// RetryStatuses are statuses by which this API, too, says that a token is not good any more, as others do by 401. They are reported as
// 401, which alone has the broker refresh, with the code "status_403" and so on if the API gives none. A 403 with insufficient_scope stays one.
func RetryStatuses(statuses ...int) TransportOption {
	return func(t *transport) { t.retryOn = append(t.retryOn, statuses...) }
}

// RetryWait is how long a refused request may wait for a newer token in all, in place of 5 s. With 0 it is sent again only if a newer token is
// held already, and nothing is reported.
func RetryWait(d time.Duration) TransportOption { return func(t *transport) { t.wait = d } }

const (
	retryWait = 5 * time.Second
	drainMost = 64 << 10               // how much of a refused reply is read so that its connection can be used again
	drainTime = 250 * time.Millisecond // how long that may take
)

type transport struct {
	c          *Client
	credential string
	variant    string // key of credential and opts
	opts       []Option
	base       http.RoundTripper
	hosts      []string // that may get the token; none = any
	loopback   bool
	retryOn    []int // besides 401
	wait       time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := harmless(req); err != nil {
		return nil, unsent(req, err)
	}
	if strayed(req) {
		return t.base.RoundTrip(req)
	}
	tok, err := t.token(req)
	if err != nil {
		return nil, unsent(req, err)
	}
	resp, err := t.attempt(req, tok)
	if err != nil || !t.refuses(resp) {
		return resp, err
	}
	newer, ok := t.newer(req, resp, tok)
	if !ok {
		return resp, nil
	}
	again, ok := replay(req)
	if !ok {
		return resp, nil
	}
	discard(resp.Body)
	return t.attempt(again, newer)
}

// CloseIdleConnections lets http.Client's method of that name reach what sends.
func (t *transport) CloseIdleConnections() {
	if closer, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// token gets the token for a request that may carry it.
func (t *transport) token(req *http.Request) (tokenbroker.Token, error) {
	if err := t.destined(req); err != nil {
		return tokenbroker.Token{}, err
	}
	tok, err := t.c.Token(req.Context(), t.credential, t.opts...)
	if err != nil {
		return tokenbroker.Token{}, err
	}
	return tok, unclaimed(req, tok)
}

// attempt sends a request with a token. What it answers is the caller's request again, whose headers hold no token.
func (t *transport) attempt(req *http.Request, tok tokenbroker.Token) (*http.Response, error) {
	resp, err := t.base.RoundTrip(carrying(req, tok))
	if err != nil {
		return resp, err
	}
	resp.Request = req
	if missing, ok := lacksScope(resp, tok); ok {
		discard(resp.Body)
		t.narrow(req, tok)
		return nil, &ScopeError{Credential: t.credential, Missing: missing, Host: req.URL.Host}
	}
	return resp, nil
}

// refuses reports whether a reply says that the token is not good any more.
func (t *transport) refuses(resp *http.Response) bool {
	return resp.StatusCode == http.StatusUnauthorized || slices.Contains(t.retryOn, resp.StatusCode)
}

// carrying is a request with a token. It is a shallow copy, which a RoundTripper may make: the body writes into the very map of trailers that
// the caller gave.
func carrying(req *http.Request, tok tokenbroker.Token) *http.Request {
	r := req.WithContext(req.Context())
	r.Header = req.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set(tok.Header())
	return r
}

func bodiless(req *http.Request) bool { return req.Body == nil || req.Body == http.NoBody }

func replayable(req *http.Request) bool { return bodiless(req) || req.GetBody != nil }

// replay makes a request that can be sent once more.
func replay(req *http.Request) (*http.Request, bool) {
	if !replayable(req) || bodiless(req) {
		return req, replayable(req)
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	r := req.WithContext(req.Context())
	r.Body = body
	return r, true
}

// discard reads what is left of a reply that nobody wants, if it is little and comes soon, and closes it.
func discard(body io.ReadCloser) {
	slow := time.AfterFunc(drainTime, func() { _ = body.Close() })
	defer slow.Stop()
	_, _ = io.CopyN(io.Discard, body, drainMost)
	_ = body.Close()
}

// unsent closes the body of a request that is not sent, as a RoundTripper has to.
func unsent(req *http.Request, why error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return why
}
