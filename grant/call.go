package grant

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// The ways to write the fields of a request.
const (
	formatForm  = "form" // RFC 6749 appendix B
	formatJSON  = "json"
	formatQuery = "query"
)

// call is one request to an endpoint of a provider, to be sent at most once.
type call struct {
	at      *endpoint
	method  string // "" = POST
	url     string
	form    url.Values
	format  string // how the form is written; "" = form
	header  http.Header
	secrets []string         // what is sent and must not be shown if it comes back
	spends  bool             // carries what works once or dies by itself: that is what invalid_grant speaks of
	signed  bool             // carries an assertion, which clocks that differ make void
	single  bool             // on a connection of its own, since it can't be repeated
	limit   int64            // bytes of the reply that are read; 0 = 256 KiB
	cert    *tls.Certificate // shown on the connection, which is then this call's own
}

// newCall starts a request to a URL of the provider, without any field.
func (e *endpoint) newCall(to string) call {
	return call{at: e, url: to, form: url.Values{}, header: e.newHeader()}
}

// ask sends a call and reads the reply, within the time-out of the Config. The error is a *tokenbroker.Failure, perhaps wrapped
// with what the network said before anything was sent.
func (c *Client) ask(ctx context.Context, q *call) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return q.send(ctx)
}

// send sends the call, see ask.
func (q *call) send(ctx context.Context) (answer, error) {
	a := answer{sent: time.Now()}
	req, gone, err := q.request(ctx)
	if err != nil {
		return a, err
	}
	resp, err := q.transport().RoundTrip(req)
	if err != nil {
		return a, lost(ctx, err, gone())
	}
	defer func() { _ = resp.Body.Close() }()
	return receive(ctx, resp, a.sent, cmp.Or(q.limit, maxBody)), nil
}

// request builds the HTTP request. gone seals it, so that nothing of it leaves any more, and reports whether anything may have left.
func (q *call) request(ctx context.Context) (req *http.Request, gone func() bool, err error) {
	to, body, err := q.written()
	if err != nil {
		return nil, nil, refuse("bad_token_endpoint")
	}
	method := q.method
	if method == "" {
		method = http.MethodPost
	}
	var left atomic.Bool
	if body == "" {
		// There is no body to seal: the request counts as gone once it has a connection.
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { left.Store(true) }})
	}
	req, err = http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, nil, refuse("bad_token_endpoint")
	}
	req.Header = q.header
	if body == "" {
		req.Header.Del("Content-Type")
		_, traced := q.at.shared.(*http.Transport)
		return req, func() bool { return left.Load() || !traced }, nil
	}
	once := newOnceBody(body)
	req.Body, req.ContentLength = once, once.text.Size()
	return req, once.seal, nil
}

// written returns the URL and the body as the format has them. The URL holds secrets if the format is query.
func (q *call) written() (to, body string, err error) {
	switch {
	case len(q.form) == 0:
		return q.url, "", nil
	case q.format == formatJSON:
		q.header.Set("Content-Type", "application/json")
		text, err := json.Marshal(flat(q.form))
		return q.url, string(text), err
	case q.format == formatQuery || q.method == http.MethodGet:
		u, err := url.Parse(q.url)
		if err != nil {
			return "", "", err
		}
		values := u.Query()
		maps.Copy(values, q.form)
		u.RawQuery = values.Encode()
		return u.String(), "", nil
	}
	return q.url, q.form.Encode(), nil
}

// flat returns a form as the members of an object: a text where there is one value, else an array.
func flat(form url.Values) map[string]any {
	members := map[string]any{}
	for name, list := range form {
		if len(list) == 1 {
			members[name] = list[0]
			continue
		}
		members[name] = list
	}
	return members
}

// transport chooses the connections. One with a client certificate is the call's own: nobody else may speak as that client.
func (q *call) transport() http.RoundTripper {
	shared, ours := q.at.shared.(*http.Transport)
	switch {
	case q.cert != nil && ours:
		t := newTransport(q.at.profile, shared.TLSClientConfig.RootCAs, q.at.resolver, true)
		t.TLSClientConfig.Certificates = []tls.Certificate{*q.cert}
		return t
	case q.single:
		return q.at.single
	}
	return q.at.shared
}

// receive reads a reply up to the limit.
func receive(ctx context.Context, resp *http.Response, sent time.Time, limit int64) answer {
	a := answer{status: resp.StatusCode, header: resp.Header, sent: sent, skew: skewOf(resp.Header, sent, time.Now())}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		a.fault = "unsupported_encoding" // it was not asked for, and unpacking it is how bombs go off
		return a
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	a.body = body[:min(int64(len(body)), limit)]
	switch {
	case int64(len(body)) > limit:
		a.fault = "reply_too_large"
	case err != nil && ctx.Err() != nil:
		a.fault = ended(ctx)
	case err != nil:
		a.fault = "reply_cut"
	}
	return a
}

// skewOf is how far our clock is ahead of the provider's, whose reply came between sent and received. 0 means that it does not say, or
// that the two agree as far as a header that counts whole seconds can tell.
func skewOf(h http.Header, sent, received time.Time) time.Duration {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	middle := sent.Add(received.Sub(sent) / 2)
	skew := middle.Sub(date.Add(time.Second / 2)).Round(time.Second)
	if skew.Abs() <= time.Second+received.Sub(sent)/2 {
		return 0
	}
	return skew
}
