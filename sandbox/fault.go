package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Forever as [Fault.Times] keeps a fault until [Server.Clear].
const Forever = -1

// Stage is when a fault strikes.
type Stage int

// The stages.
const (
	BeforeProcessing Stage = iota // nothing has changed yet
	AfterCommit                   // the request was processed and its effects stand; only the answer suffers
)

// Bearer is what becomes of a bearer token when it is looked at.
type Bearer string

// The kinds of bearer tokens.
const (
	BearerLive Bearer = "live"
	BearerDead Bearer = "dead" // unknown, expired or revoked; also no token at all
)

// Fault is one thing that goes wrong. The zero value is a request that goes well, which is how a script lets some pass:
//
//	srv.Fail("acme", sandbox.Fault{Times: 2}, sandbox.Fault{Status: 503, RetryAfter: 7 * time.Second})
//
// What is set happens in this order: Delay, Hang, Drop or Refuse; then the answer is replaced (Status, Redirect, Body) or
// edited (Set, Omit), gets its headers, and travels (Drip, Truncate). A request whose answer is replaced at
// BeforeProcessing is not processed at all.
type Fault struct {
	Name string // for the journal; "" = a description

	// Which requests it meets. Empty fields match all.
	Endpoint  Endpoint // "" = EndpointToken
	GrantType string
	ClientID  string
	Bearer    Bearer // of EndpointResource and EndpointUserinfo: only requests with such a token
	Times     int    // how many requests; 0 = 1, Forever = until cleared

	// Chance is how likely it is that the fault meets a request that matches, drawn with Config.Seed; 0 = certain. A
	// request that it spares counts not, and may meet the next fault.
	Chance float64

	Stage   Stage
	Delay   time.Duration // wait before going on
	DelayTo time.Duration // wait for something between Delay and this, drawn with Config.Seed; 0 = Delay exactly
	Hang    bool          // wait until Release, or until the client goes
	Drop    bool          // break the connection without an answer
	Refuse  bool          // as a round tripper: no connection at all, nothing was sent. As a handler it is Drop
	Cause   error         // with Refuse, what the dialler says, e.g. a *net.DNSError; nil = connection refused

	Life time.Duration // of the access token that the request brings, whole seconds; 0 = the issuer's
	Skew time.Duration // how far the server's clock is off for this request, Date header included

	Status     int               // answer with this status; 0 = 307 with Redirect, else that of the usual answer
	Header     map[string]string // headers to set; "" removes one
	RetryAfter time.Duration     // Retry-After in seconds, rounded up
	RetryDate  time.Duration     // Retry-After as a date, this far from the time of the answer
	Redirect   string            // Location

	// Body answers with this text. Its Content-Type is guessed unless Header has one. At AfterCommit {access_token},
	// {refresh_token}, {expires_in} and {scope} stand for the values of the usual answer.
	Body string

	Expires ExpiryForm     // how the usual answer writes expires_in; "" = as it is
	Set     map[string]any // members to set in the JSON of the usual answer; json.RawMessage for what no Go value gives
	Omit    []string       // members to leave out

	Truncate int           // so many bytes of the body arrive, then the connection breaks; negative = none, 0 = all arrive
	Drip     time.Duration // pause before each byte of the body
}

// scripted is a fault with the number of requests it has still to meet.
type scripted struct {
	Fault
	left int
}

// taken is a fault that met a request.
type taken struct {
	Fault
	issuer  *issuer
	release chan struct{} // closed by Release
}

// Fail appends faults to an issuer's script. Each request gets the first fault that matches it. Fail panics if a fault can't
// be: it contradicts itself, or names an endpoint, grant or client that is not there.
func (s *Server) Fail(issuer string, faults ...Fault) {
	s.mustIssuer(issuer)
	if err := s.Try(issuer, faults...); err != nil {
		panic("sandbox: " + err.Error())
	}
}

// Clear drops what is left of an issuer's script and returns how many faults that was: 0 says that the script was played
// to its end. Requests that a fault already met are not affected.
func (s *Server) Clear(issuer string) int {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.script)
	i.script = nil
	return n
}

// Release lets go the requests of an issuer that hang now. They go on where they were stopped.
func (s *Server) Release(issuer string) {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	for t := range i.hanging {
		close(t.release)
	}
	clear(i.hanging)
}

// take finds the fault for a request, nil if there is none.
func (i *issuer) take(v *visit, d *dice) *taken {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := slices.IndexFunc(i.script, func(f *scripted) bool { return f.meets(v) && d.strikes(f.Chance) })
	if n < 0 {
		return nil
	}
	f := i.script[n]
	if f.left != Forever {
		f.left--
	}
	if f.left == 0 {
		i.script = slices.Delete(i.script, n, n+1)
	}
	t := &taken{Fault: f.Fault, issuer: i}
	t.Delay = d.between(f.Delay, f.DelayTo)
	if f.Hang {
		t.release = make(chan struct{})
		i.hanging[t] = struct{}{}
	}
	return t
}

// Pending returns what is left of an issuer's script, in order; Times says how many requests each has still to meet.
func (s *Server) Pending(issuer string) []Fault {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	left := make([]Fault, 0, len(i.script))
	for _, f := range i.script {
		one := f.Fault
		one.Times = f.left
		left = append(left, one)
	}
	return left
}

func (f Fault) meets(v *visit) bool {
	return f.Endpoint == v.endpoint && accepts(f.GrantType, v.grantType()) && accepts(f.ClientID, v.clientID()) &&
		(f.Bearer == "" || f.Bearer == v.bearerKind())
}

// done forgets a request that no longer hangs.
func (t *taken) done() {
	t.issuer.mu.Lock()
	defer t.issuer.mu.Unlock()
	delete(t.issuer.hanging, t)
}

// wait does what a fault does before there is an answer.
func (t *taken) wait(ctx context.Context) error {
	if err := sleep(ctx, t.Delay); err != nil {
		return err
	}
	if t.Hang {
		select {
		case <-t.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case t.Refuse && t.Cause != nil:
		return t.Cause
	case t.Refuse:
		return errRefused
	case t.Drop:
		return errDropped
	}
	return nil
}

// sleep waits for d or until ctx ends, whose error it then returns.
func sleep(ctx context.Context, d time.Duration) error {
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

func (f Fault) edits() bool { return len(f.Set)+len(f.Omit) > 0 || f.Expires != "" }

func (f Fault) replaces() bool { return f.Status != 0 || f.Body != "" || f.Redirect != "" }

// apply changes the usual answer, which has no status if there was none.
func (f Fault) apply(a answer, now time.Time) answer {
	switch {
	case f.replaces():
		a = f.replace(a)
	case f.edits():
		a.body = f.edit(a.body)
		a.code = errorCode(a.body)
	}
	f.setHeaders(a.header, now)
	a.drip = f.Drip
	if f.Truncate != 0 {
		a.cut = max(0, min(f.Truncate, len(a.body)-1))
	}
	return a
}

func (f Fault) replace(a answer) answer {
	status := cmp.Or(f.Status, a.status, http.StatusOK)
	if f.Redirect != "" {
		status = cmp.Or(f.Status, http.StatusTemporaryRedirect)
		a.header.Set("Location", f.Redirect)
	}
	body := []byte(fill(f.Body, a.body))
	a.header.Del("Content-Type")
	if len(body) > 0 {
		a.header.Set("Content-Type", contentType(body))
	}
	return answer{status: status, header: a.header, body: body, code: errorCode(body), cut: -1}
}

// fill puts the values of the usual answer into a body.
func fill(body string, usual []byte) string {
	var t tokens
	if json.Unmarshal(usual, &t) != nil {
		t = tokens{} // not JSON: there is nothing to put in
	}
	return strings.NewReplacer("{access_token}", t.AccessToken, "{refresh_token}", t.RefreshToken,
		"{expires_in}", strconv.FormatInt(t.ExpiresIn, 10), "{scope}", t.Scope).Replace(body)
}

func (f Fault) edit(body []byte) []byte {
	members := map[string]any{}
	var raw map[string]json.RawMessage
	if json.Unmarshal(body, &raw) != nil {
		return body // the answer of a resource may be plain text
	}
	for name, value := range raw {
		members[name] = value
	}
	f.Expires.write(members, raw["expires_in"])
	maps.Copy(members, f.Set)
	for _, name := range f.Omit {
		delete(members, name)
	}
	return jsonAnswer(0, members).body
}

func (f Fault) setHeaders(h http.Header, now time.Time) {
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if f.RetryDate > 0 {
		h.Set("Retry-After", now.Add(f.RetryDate).UTC().Format(http.TimeFormat))
	}
	for name, value := range f.Header {
		h.Set(name, value)
		if value == "" {
			h[http.CanonicalHeaderKey(name)] = nil // net/http fills in what is absent, but not this
		}
	}
}

func contentType(body []byte) string {
	if body[0] == '{' || body[0] == '[' {
		return "application/json"
	}
	return http.DetectContentType(body)
}

// errorCode reads the error code of a body that may be anything.
func errorCode(body []byte) string {
	var e oauthError
	if json.Unmarshal(body, &e) != nil {
		return "" // it carries none that could be read
	}
	return e.Code
}
