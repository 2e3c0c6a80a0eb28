package main_test

import (
	"io"
	"net/http"
	"testing"
)

// ask gets a path of the ops listener: status and text, 0 if there is no answer.
func (s *site) ask(path string) (int, string) {
	s.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.ops+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// notReady waits until the broker says that it should get no calls.
func notReady(t testing.TB, s *site) {
	t.Helper()
	eventually(t, "not ready", func() bool {
		code, _ := s.ask("/readyz")
		return code == http.StatusServiceUnavailable
	})
}

// ready waits until it should get calls again.
func ready(t testing.TB, s *site) {
	t.Helper()
	eventually(t, "ready", func() bool {
		code, _ := s.ask("/readyz")
		return code == http.StatusOK
	})
}
