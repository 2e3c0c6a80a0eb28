package conformance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// request is what reached the upstream.
type request struct {
	method string
	url    *url.URL
	header http.Header
	form   url.Values
	json   map[string]any
	unsent bool // it never left
}

// upstream plays replies in order, in place of a provider, and writes down every request. Requests wait while it is held.
type upstream struct {
	sandbox http.RoundTripper // answers where there are no replies; nil = nobody does

	mu       sync.Mutex
	replies  []reply
	always   *reply // the last reply, if it is for all that follow
	requests []request
	answered time.Time
	starved  int // requests that there was no reply for
	gate     chan struct{}
	first    string // the first refresh token of the sandbox
	refresh  string // and the last that it gave
}

// play sets the replies to come.
func (u *upstream) play(replies []reply) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(replies) > 0 {
		u.replies, u.always = replies, nil
	}
}

// hold keeps requests waiting until what it returns is called.
func (u *upstream) hold() (release func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	gate := make(chan struct{})
	u.gate = gate
	return func() { close(gate) }
}

// errReset is what the network says when a connection breaks while one waits for a reply.
var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// RoundTrip implements http.RoundTripper.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	gate := u.gate
	u.mu.Unlock()
	select {
	case <-gate:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	rep, n, scripted := u.next()
	switch {
	case rep.Fault == "pass", !scripted && u.sandbox != nil:
		return u.passOn(r)
	case rep.Fault == "lost":
		if resp, err := u.passOn(r); err == nil {
			_ = resp.Body.Close()
		}
		return nil, errReset
	case !scripted || rep.Fault == "refused":
		if r.Body != nil {
			_ = r.Body.Close()
		}
		u.note(request{method: r.Method, url: r.URL, header: r.Header.Clone(), unsent: true})
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	u.note(read(r))
	return u.answer(r, rep, n)
}

// next takes the next reply. n is the number of the request.
func (u *upstream) next() (rep reply, n int, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = u.sentLocked() + 1
	switch {
	case len(u.replies) > 0:
		rep = u.replies[0]
		u.replies = u.replies[1:]
		if rep.Always {
			u.always = &rep
		}
		return rep, n, true
	case u.always != nil:
		return *u.always, n, true
	case u.sandbox == nil:
		u.starved++
	}
	return rep, n, false
}

func (u *upstream) note(r request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests = append(u.requests, r)
}

// read reads a request, so that it counts as sent.
func read(r *http.Request) request {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	q := request{method: r.Method, url: r.URL, header: r.Header.Clone()}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		_ = json.Unmarshal(body, &q.json)
		return q
	}
	q.form, _ = url.ParseQuery(string(body))
	return q
}

// passOn lets the sandbox answer, whatever host was asked. Its issuer is "it".
func (u *upstream) passOn(r *http.Request) (*http.Response, error) {
	q := read(r)
	u.note(q)
	if q.form == nil {
		q.form = url.Values{}
		for field, value := range q.json {
			q.form.Set(field, fmt.Sprint(value))
		}
	}
	to := r.Clone(r.Context())
	to.URL = &url.URL{Scheme: "https", Host: "sandbox.example", Path: "/it/token"}
	body := q.form.Encode()
	to.Body, to.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	to.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := u.sandbox.RoundTrip(to)
	if err != nil {
		return resp, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answered = time.Now()
	u.keep(resp)
	return resp, nil
}

// keep remembers the refresh token of a reply of the sandbox. u.mu is held.
func (u *upstream) keep(resp *http.Response) {
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var held struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &held) == nil && held.RefreshToken != "" {
		u.refresh = held.RefreshToken
	}
}

// rival spends a refresh token of the sandbox, the last or the first, as somebody else would who holds it too.
func (u *upstream) rival(which string) (status int, err error) {
	last, ok := u.lastSent()
	if !ok {
		return 0, errors.New("nobody has sent anything yet")
	}
	token := u.refresh
	if which == "first" {
		token = u.first
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	for _, field := range []string{"client_id", "client_secret"} {
		if v := last.form.Get(field); v != "" {
			form.Set(field, v)
		}
	}
	r, err := http.NewRequest(http.MethodPost, "https://sandbox.example/it/token", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if auth := last.header.Get("Authorization"); auth != "" {
		r.Header.Set("Authorization", auth)
	}
	resp, err := u.sandbox.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (u *upstream) answer(r *http.Request, rep reply, n int) (*http.Response, error) {
	if err := pause(r.Context(), time.Duration(rep.Delay)); err != nil {
		return nil, err
	}
	switch rep.Fault {
	case "reset":
		return nil, errReset
	case "timeout":
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	body := []byte(fill(rep.Body, n) + strings.Repeat(" ", rep.Pad))
	if rep.Gzip {
		body = pack(body)
	}
	status := rep.Status
	if status == 0 {
		status = http.StatusOK
	}
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Request: r, ContentLength: int64(len(body)),
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), ProtoMajor: 1, ProtoMinor: 1}
	resp.Header.Set("Content-Type", "application/json")
	resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	for name, value := range rep.Headers {
		resp.Header.Set(name, fill(value, n))
		if value == "" {
			resp.Header.Del(name)
		}
	}
	resp.Body = &slowBody{ctx: r.Context(), rest: body, drip: time.Duration(rep.Drip), cut: rep.Fault == "cut"}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answered = time.Now()
	return resp, nil
}

func pack(body []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(body)
	_ = w.Close()
	return b.Bytes()
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slowBody is a body that may drip and may break off.
type slowBody struct {
	ctx  context.Context
	rest []byte
	drip time.Duration
	cut  bool
}

// Read implements io.Reader.
func (b *slowBody) Read(p []byte) (int, error) {
	if b.drip > 0 {
		if err := pause(b.ctx, b.drip); err != nil {
			return 0, err
		}
		p = p[:min(1, len(p))]
	}
	if len(b.rest) == 0 && b.cut {
		return 0, io.ErrUnexpectedEOF
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (b *slowBody) Close() error { return nil }

var placeholder = regexp.MustCompile(`\{(n|time|unix|http)([+-][0-9a-z]+)?\}`)

// fill puts values into a reply: {n}, the number of the request, and moments such as {time+1h} (RFC 3339), {unix+60s} and {http-5m}.
func fill(text string, n int) string {
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		at := time.Now().UTC()
		if m[2] != "" {
			d, err := time.ParseDuration(m[2])
			if err != nil {
				return s
			}
			at = at.Add(d)
		}
		switch m[1] {
		case "n":
			return strconv.Itoa(n)
		case "unix":
			return strconv.FormatInt(at.Unix(), 10)
		case "http":
			return at.Format(http.TimeFormat)
		}
		return at.Format(time.RFC3339)
	})
}

var errUnread = errors.New("no reply is left in the fixture")

// finish says what did not happen as the fixture has it.
func (u *upstream) finish() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var problems []error
	if u.starved > 0 {
		problems = append(problems, fmt.Errorf("%w for %d requests", errUnread, u.starved))
	}
	if len(u.replies) > 0 {
		problems = append(problems, fmt.Errorf("%d replies were not asked for", len(u.replies)))
	}
	u.starved = 0
	return errors.Join(problems...)
}

// count is the number of requests that have left so far.
func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sentLocked()
}

func (u *upstream) sentLocked() (n int) {
	for _, r := range u.requests {
		if !r.unsent {
			n++
		}
	}
	return n
}

// secrets are those that left.
func (u *upstream) secrets() (list []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.requests {
		for _, field := range []string{"refresh_token", "client_secret", "assertion", "client_assertion"} {
			if v := r.form.Get(field); v != "" {
				list = append(list, v)
			}
		}
		if auth := r.header.Get("Authorization"); auth != "" {
			list = append(list, auth)
		}
	}
	return list
}

// lastSent is the last request that left.
func (u *upstream) lastSent() (request, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range slices.Backward(u.requests) {
		if !r.unsent {
			return r, true
		}
	}
	return request{}, false
}
