package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/client"
)

func TestWhatCanBeSentAgainIs(t *testing.T) {
	again := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
	for name, tc := range map[string]struct {
		body io.Reader
		get  func() (io.ReadCloser, error)
		want string // what the API gets the second time; "-" = there is no second time
	}{
		"nothing":            {nil, nil, ""},
		"NoBody":             {http.NoBody, nil, ""},
		"a buffer":           {bytes.NewBufferString("body"), nil, "body"},
		"bytes":              {bytes.NewReader([]byte("body")), nil, "body"},
		"a string":           {strings.NewReader("body"), nil, "body"},
		"a stream":           {io.MultiReader(strings.NewReader("body")), nil, "-"},
		"a GetBody":          {io.MultiReader(strings.NewReader("body")), again, "body"},
		"a GetBody that not": {strings.NewReader("body"), func() (io.ReadCloser, error) { return nil, errors.New("it is gone") }, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, time.Millisecond)
			a := openSite(t, false, w.valid)
			w.revoke(t)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, a.URL, tc.body)
			if err != nil {
				t.Fatal(err)
			}
			if tc.get != nil {
				req.GetBody = tc.get
			}
			status, text, err := send(w.to(a, "example/api"), req)
			hits := a.hits()
			switch {
			case err != nil:
				t.Fatal(err)
			case tc.want == "-" && (status != http.StatusUnauthorized || text != "refused" || len(hits) != 1):
				t.Errorf("got %d, %q after %d requests, want the API's 401 after one", status, text, len(hits))
			case tc.want != "-" && (status != http.StatusOK || len(hits) != 2 || hits[1].body != tc.want || hits[1].length != hits[0].length):
				t.Errorf("got %d after %+v, want 200 and %q twice", status, hits, tc.want)
			}
			if status, _, err := send(w.to(a, "example/api"), get(t, a.URL)); err != nil || status != http.StatusOK {
				t.Errorf("the next: got %d, %v, want 200 by the token that the report brought", status, err)
			}
		})
	}
}

func TestABodyThatWasHalfReadIsSentWhole(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	a.answer = func(rw http.ResponseWriter, h hit) {
		if w.valid(rw, h); !w.b.Sandbox.Valid(h.bearer()) {
			a.half = false
		}
	}
	a.half = true
	w.revoke(t)
	body := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB, more than the buffers on the way hold
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	status, _, err := send(w.to(a, "example/api"), req)
	if hits := a.hits(); err != nil || status != http.StatusOK || len(hits) != 2 || len(hits[0].body) > 1<<10 || hits[1].body != body {
		t.Errorf("got %d, %v after %d requests, want 200 and the body whole at the second", status, err, len(hits))
	}
}

func TestTrailersExpectAndLengthStayAsTheyAre(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	w.revoke(t)
	trailer := http.Header{"X-Sum": nil}
	body := func() (io.ReadCloser, error) { // says its sum when it is over, as net/http has it
		return io.NopCloser(io.MultiReader(strings.NewReader("body"), summing(trailer))), nil
	}
	first, _ := body()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL, first)
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer, req.GetBody, req.ContentLength = trailer, body, -1
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("X-Mine", "yes")
	if status, _, err := send(w.to(a, "example/api"), req); err != nil || status != http.StatusOK {
		t.Fatalf("got %d, %v, want 200", status, err)
	}
	for i, h := range a.hits() {
		if h.trailer.Get("X-Sum") != "of-it" || h.header.Get("Expect") != "100-continue" || h.header.Get("X-Mine") != "yes" || h.body != "body" || h.length != -1 {
			t.Errorf("request %d: got %+v, want it as the caller made it", i+1, h)
		}
	}
}

type summing http.Header

func (s summing) Read([]byte) (int, error) {
	http.Header(s).Set("X-Sum", "of-it")
	return 0, io.EOF
}

func TestTheConnectionOfTheFirstReplyIsUsedAgain(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	w.revoke(t)
	var reused, conns atomic.Int64
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		conns.Add(1)
		if i.Reused {
			reused.Add(1)
		}
	}}
	req := get(t, a.URL)
	hc := w.to(a, "example/api", client.RetryWait(time.Minute))
	if status, _, err := send(hc, req.WithContext(httptrace.WithClientTrace(req.Context(), trace))); err != nil || status != http.StatusOK {
		t.Fatalf("got %d, %v, want 200", status, err)
	}
	if conns.Load() != 2 || reused.Load() != 1 {
		t.Errorf("got %d connections of which %d were used again, want one for both requests", conns.Load(), reused.Load())
	}
	hc.CloseIdleConnections() // reaches the base
}
