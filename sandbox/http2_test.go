package sandbox_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// overHTTP2 puts the world behind a listener that speaks HTTP/2, and fails the test if a request went out otherwise.
func (w *world) overHTTP2() *world {
	w.t.Helper()
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			w.t.Errorf("got %s, want HTTP/2", r.Proto)
		}
		w.srv.ServeHTTP(rw, r)
	}))
	ts.EnableHTTP2 = true
	ts.StartTLS()
	w.t.Cleanup(ts.Close)
	w.client.Transport, w.base = ts.Client().Transport, ts.URL
	return w
}

func TestOverHTTP2ADropBreaksOneStreamOnly(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateNone}).overHTTP2()
	token := w.seed("read")
	w.srv.Fail("acme", sandbox.Fault{Hang: true})
	hanging := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := w.try(w.refreshing(token))
		hanging <- err
	})
	w.await(sandbox.Filter{Unanswered: true})
	w.srv.Fail("acme", sandbox.Fault{Drop: true})
	if _, err := w.try(w.refreshing(token)); err == nil || !strings.Contains(err.Error(), "stream error") {
		t.Errorf("got %v, want a stream that was reset", err)
	}
	w.refresh(token).want(t, 200, "")
	w.srv.Release("acme")
	wg.Wait()
	if err := <-hanging; err != nil {
		t.Errorf("the stream beside it: got %v, want it answered", err)
	}
}

func TestOverHTTP2ATruncatedBodyIsAnError(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{}).overHTTP2()
	first := w.seed("read")
	w.srv.Fail("acme", sandbox.Fault{Stage: sandbox.AfterCommit, Truncate: 20})
	got, err := w.try(w.refreshing(first))
	if err == nil || errors.Is(err, io.EOF) || len(got.text) > 20 {
		t.Errorf("got %d bytes and %v, want 20 at most and an error that is not the end", len(got.text), err)
	}
	w.refresh(first).want(t, 400, "invalid_grant") // the request was processed, so this is a replay
}

func TestOverHTTP2TheAnswersAreThoseOfHTTP1(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{}).overHTTP2()
	first := w.seed("read")
	w.srv.Fail("acme", sandbox.Fault{Status: 503})
	w.refresh(first).want(t, 503, "")
	second := w.refresh(first).want(t, 200, "").str("refresh_token")
	access := w.refresh(second).want(t, 200, "").str("access_token")
	w.wantValid(access, true)
	w.refresh(first).want(t, 400, "invalid_grant")
	w.wantValid(access, false)
}
