package sandbox_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestTraceTellsWhatWasSent(t *testing.T) {
	for name, row := range map[string]struct {
		fault sandbox.Fault
		hooks string
	}{
		"answered": {sandbox.Fault{}, "conn headers request byte"},
		"dropped":  {sandbox.Fault{Drop: true}, "conn headers request"},
		"refused":  {sandbox.Fault{Refuse: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			w.srv.Fail("acme", row.fault)
			var hooks []string
			note := func(s string) { hooks = append(hooks, s) }
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				GotConn:              func(httptrace.GotConnInfo) { note("conn") },
				WroteHeaders:         func() { note("headers") },
				WroteRequest:         func(httptrace.WroteRequestInfo) { note("request") },
				GotFirstResponseByte: func() { note("byte") },
			})
			_, err := w.try(w.refreshing(w.seed()).WithContext(ctx))
			if got := strings.Join(hooks, " "); got != row.hooks {
				t.Errorf("got %q, want %q", got, row.hooks)
			}
			if row.fault.Refuse && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
			}
		})
	}
}

func TestAHandlerDropsWhatItCannotRefuse(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{}).overTLS()
	w.srv.Fail("acme", sandbox.Fault{Refuse: true})
	if _, err := w.try(w.refreshing(w.seed())); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
	w.wantLast(sandbox.Entry{})
}

func TestRoundTripKeepsTheContract(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	body := &closing{Reader: strings.NewReader(ccPost)}
	r := w.request("POST", "/acme/token", "")
	r.Body = body
	res, err := w.srv.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if !body.closed || res.Request != r || res.ContentLength <= 0 || res.Header.Get("Date") == "" {
		t.Errorf("got body closed %t, length %d, date %q", body.closed, res.ContentLength, res.Header.Get("Date"))
	}
	if n, err := res.Body.Read(nil); n != 0 || err != nil {
		t.Errorf("got %d, %v for an empty read", n, err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := res.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("got %v, want %v", err, http.ErrBodyReadAfterClose)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestRoundTripSendsNothingThatItCannotRead(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	broken := errors.New("broken")
	r := w.request("POST", "/acme/token", "")
	r.Body = io.NopCloser(iotest.ErrReader(broken))
	if _, err := w.srv.RoundTrip(r); !errors.Is(err, broken) { //nolint:bodyclose // there is none
		t.Errorf("got %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.srv.RoundTrip(w.request("POST", "/acme/token", ccPost).WithContext(ctx)); !errors.Is(err, context.Canceled) { //nolint:bodyclose // there is none
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if got := w.srv.Count(sandbox.Filter{}); got != 0 {
		t.Errorf("got %d requests, want 0", got)
	}
}

func TestHEADHasNoBody(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		if got := w.do(w.request("HEAD", "/acme/resource", "")); got.text != "" || got.status != 401 {
			t.Errorf("got %d %q, want 401 and no body", got.status, got.text)
		}
	})
}
