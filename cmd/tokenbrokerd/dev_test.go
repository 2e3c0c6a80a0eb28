package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// lines collects what dev prints, and says when a text came.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until dev has printed a text.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.more:
		case <-deadline.C:
			t.Fatalf("%q did not come within a minute; dev printed:\n%s", text, l)
		}
	}
}

// startDev runs dev until the test ends, or the function that it returns is called.
func startDev(t *testing.T, d *dev) (*lines, func() error) {
	t.Helper()
	out := &lines{more: make(chan struct{}, 1)}
	d.TrustDomain, d.Addr, d.out = "tokenbroker.local", "127.0.0.1:0", out
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return out, stop
}

func TestDevShowsTheMainJobAndLeavesNothing(t *testing.T) {
	t.Parallel()
	d := &dev{}
	out, stop := startDev(t, d)
	out.await(t, "\nready\n")
	out.await(t, "1 exchange served 50 waiters")
	out.await(t, "the API says 200")
	for _, c := range devCredentials {
		out.await(t, c.name+strings.Repeat(" ", 18-len(c.name))+"  is READY")
	}
	out.await(t, "refreshed ahead of expiry")
	if strings.Contains(out.String(), "the API says 401") {
		t.Errorf("a worker got a token that is not good:\n%s", out)
	}
	if strings.Contains(out.String(), "sbx_") || strings.Contains(out.String(), devSecret) {
		t.Errorf("dev printed a token or a secret:\n%s", out)
	}
	dir := d.Dir
	if err := stop(); err != nil {
		t.Errorf("dev ended with: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want it gone", dir, err)
	}
}

func TestDevKeepsTheFolderItWasGivenAndStartsThereAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/it's here"
	for range 2 {
		d := &dev{starter: starter{Dir: dir}}
		out, stop := startDev(t, d)
		out.await(t, "\nready\n")
		env, err := os.ReadFile(d.path("env"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "export TOKENBROKER_ADDR='" + d.Addr + "'\n"; !strings.Contains(string(env), want) {
			t.Errorf("env: got %q, want %q in it", env, want)
		}
		conn, err := d.conn("operator")
		if err != nil {
			t.Fatal(err)
		}
		list, err := tokenbrokerv1.NewCredentialServiceClient(conn).ListCredentials(t.Context(), &tokenbrokerv1.ListCredentialsRequest{})
		if got := len(list.GetCredentials()); err != nil || got != len(devCredentials) {
			t.Errorf("got %d credentials, %v, want %d", got, err, len(devCredentials))
		}
		if err := errors.Join(conn.Close(), stop()); err != nil {
			t.Error(err)
		}
	}
}
