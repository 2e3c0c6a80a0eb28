package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// shortLife is too short for any client that plans ahead.
const shortLife = time.Second

// faultKind is a fault with a name of its own.
type faultKind struct {
	help string
	code bool // takes a code and a description
	fill func(*Fault, FaultSpec) error
}

// FaultKinds are the names of the kinds of faults, in order.
func FaultKinds() []string { return slices.Sorted(maps.Keys(faultKinds())) }

// FaultHelp says in a few words what a kind of fault is, "" if there is none.
func FaultHelp(kind string) string { return faultKinds()[kind].help }

// faultKinds is the table of kinds. Each fills in what was not said.
func faultKinds() map[string]faultKind {
	return map[string]faultKind{
		"":           {help: "what the fields say", fill: change(func(*Fault) {})},
		"error":      {help: "an OAuth error: code, description", code: true, fill: fillError},
		"google":     {help: "a row of Google's table of JWT errors, by its name in code", code: true, fill: fillGoogle},
		"slack":      {help: "200 with ok:false and the error code", code: true, fill: fillSlack},
		"github":     {help: "200 with the error code, form-encoded", code: true, fill: fillGitHub},
		"throttle":   {help: "429 in plain text; retry_after, retry_date, or neither", fill: change(throttle)},
		"500":        {help: "500 without a body", fill: change(func(f *Fault) { f.Status = cmp.Or(f.Status, 500) })},
		"html":       {help: "502 with a page", fill: change(badGateway)},
		"truncated":  {help: "the answer breaks off", fill: change(func(f *Fault) { f.Truncate = cmp.Or(f.Truncate, 20) })},
		"huge":       {help: "an answer of 2 MiB", fill: change(huge)},
		"latency":    {help: "delay, or something between delay and delay_to", fill: latency},
		"hang":       {help: "no answer until released", fill: change(func(f *Fault) { f.Hang = true })},
		"reset":      {help: "the connection breaks before anything is done", fill: change(func(f *Fault) { f.Drop = true })},
		"lost":       {help: "the request is processed, the answer is lost", fill: change(lost)},
		"refuse":     {help: "nobody listens; over a network as reset", fill: change(func(f *Fault) { f.Refuse = true })},
		"dns":        {help: "no such host; over a network as reset", fill: change(noHost)},
		"tls":        {help: "the handshake fails; over a network as reset", fill: change(noHandshake)},
		"expires":    {help: "expires_in in another form: expires", fill: expires},
		"short_life": {help: "tokens of one second, or of life", fill: change(func(f *Fault) { f.Life = cmp.Or(f.Life, shortLife) })},
		"no_refresh": {help: "the answer lacks refresh_token", fill: change(func(f *Fault) { f.Omit = append(f.Omit, "refresh_token") })},
		"skew":       {help: "the server's clock is off by skew", fill: skewed},
		"pending":    {help: "the device is not approved yet", fill: deviceError("authorization_pending")},
		"slow_down":  {help: "the device polls too fast", fill: deviceError("slow_down")},
		"denied":     {help: "the account denies the device", fill: deviceError("access_denied")},
		"expired":    {help: "the device code has expired", fill: deviceError("expired_token")},
		"bad_401":    {help: "the resource refuses a live token with 401", fill: change(func(f *Fault) { bearerFault(f, BearerLive, 401) })},
		"bad_403":    {help: "the resource answers 403 where 401 belongs", fill: change(func(f *Fault) { bearerFault(f, BearerDead, 403) })},
	}
}

func change(f func(*Fault)) func(*Fault, FaultSpec) error {
	return func(to *Fault, _ FaultSpec) error {
		f(to)
		return nil
	}
}

// asJSON answers with a status and an object, unless there is a body.
func asJSON(f *Fault, status int, body map[string]any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic("sandbox: encode a fault: " + err.Error()) // never, for strings
	}
	f.Status, f.Body = cmp.Or(f.Status, status), cmp.Or(f.Body, string(b))
}

var errNoCode = errors.New("needs a code")

func fillError(f *Fault, s FaultSpec) error {
	if s.Code == "" {
		return errNoCode
	}
	body := map[string]any{"error": s.Code}
	if s.Description != "" {
		body["error_description"] = s.Description
	}
	asJSON(f, http.StatusBadRequest, body)
	return nil
}

func fillGoogle(f *Fault, s FaultSpec) error {
	row, ok := GoogleErrors()[s.Code]
	if !ok {
		return fmt.Errorf("no row %q: there are %q", s.Code, slices.Sorted(maps.Keys(GoogleErrors())))
	}
	f.Name = cmp.Or(f.Name, "google "+s.Code)
	s.Code, s.Description = row.Code, cmp.Or(s.Description, row.Description)
	return fillError(f, s)
}

func fillSlack(f *Fault, s FaultSpec) error {
	if s.Code == "" {
		return errNoCode
	}
	asJSON(f, http.StatusOK, map[string]any{"ok": false, "error": s.Code})
	return nil
}

func fillGitHub(f *Fault, s FaultSpec) error {
	if s.Code == "" {
		return errNoCode
	}
	f.Status, f.Body = http.StatusOK, url.Values{"error": {s.Code}, "error_description": {s.Description}}.Encode()
	f.Header = map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
	return nil
}

func throttle(f *Fault) {
	f.Status, f.Body = cmp.Or(f.Status, http.StatusTooManyRequests), cmp.Or(f.Body, "Too Many Requests")
}

func badGateway(f *Fault) {
	f.Status = cmp.Or(f.Status, http.StatusBadGateway)
	f.Body = cmp.Or(f.Body, "<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>")
}

const hugeBytes = 2 << 20

func huge(f *Fault) {
	if f.Set == nil {
		f.Set = map[string]any{}
	}
	f.Set["padding"] = strings.Repeat("x", hugeBytes)
}

func latency(f *Fault, _ FaultSpec) error {
	if max(f.Delay, f.DelayTo) <= 0 {
		return errors.New("needs delay, or delay and delay_to")
	}
	return nil
}

func lost(f *Fault) { f.Drop, f.Stage = true, AfterCommit }

func noHost(f *Fault) {
	f.Refuse, f.Cause = true, &net.DNSError{Err: "no such host", Name: "sandbox.test", IsNotFound: true}
}

func noHandshake(f *Fault) {
	f.Refuse, f.Cause = true, &net.OpError{Op: "remote error", Net: "tcp", Err: errors.New("tls: handshake failure")}
}

func expires(f *Fault, _ FaultSpec) error {
	if f.Expires == "" {
		return fmt.Errorf("needs expires, one of %q", ExpiryForms())
	}
	return nil
}

func skewed(f *Fault, _ FaultSpec) error {
	if f.Skew == 0 {
		return errors.New("needs skew")
	}
	return nil
}

func deviceError(code string) func(*Fault, FaultSpec) error {
	return func(f *Fault, _ FaultSpec) error {
		f.GrantType = GrantDeviceCode
		asJSON(f, http.StatusBadRequest, map[string]any{"error": code})
		return nil
	}
}

// bearerFault answers at the resource, as if the token were worth something else than it is.
func bearerFault(f *Fault, kind Bearer, status int) {
	f.Endpoint, f.Bearer, f.Status = cmp.Or(f.Endpoint, EndpointResource), kind, cmp.Or(f.Status, status)
	if f.Header == nil {
		f.Header = map[string]string{}
	}
	f.Header["WWW-Authenticate"] = `Bearer realm="sandbox", error="invalid_token"`
}
