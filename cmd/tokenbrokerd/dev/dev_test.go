package dev_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output collects what dev writes, and says when more came.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
	seen int // up to where a test has read
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits for a pattern in what the test has not read yet, reads up to its end, and returns it.
func (o *output) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for {
		text := o.String()[o.seen:]
		if at := re.FindStringIndex(text); at != nil {
			o.seen += at[1]
			return text[at[0]:at[1]]
		}
		select {
		case <-o.more:
		case <-deadline.C:
			t.Fatalf("%q did not come in time; since then dev wrote:\n%s", pattern, text[max(0, len(text)-6000):])
		}
	}
}

// running is dev while it runs.
type running struct {
	*output
	keys *io.PipeWriter // nil without a terminal
	stop func() error   // as Ctrl-C does, and waits
	quit func() error   // waits for dev to end by itself
}

// start runs dev until the test ends. With keys it has a terminal.
func start(t *testing.T, c dev.Config, keys bool) *running {
	t.Helper()
	r := &running{output: newOutput()}
	c.Out = r.output
	if keys {
		in, press := io.Pipe()
		r.keys = press
		c.Terminal = &terminal.Terminal{In: in, Out: r.output, Size: func() (int, int) { return 100, 30 },
			Raw: func() (func(), error) { return func() { _, _ = r.Write([]byte("<restored>")) }, nil }}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- dev.Run(ctx, c) }()
	r.quit = sync.OnceValue(func() error { return <-done })
	r.stop = func() error {
		cancel()
		return r.quit()
	}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// press presses keys.
func (r *running) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(r.keys, keys); err != nil {
		t.Fatal(err)
	}
}

// folder is the one that dev printed.
func (r *running) folder(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`\. '([^']+)/env'`).FindStringSubmatch(r.String())
	if m == nil {
		t.Fatalf("no folder in:\n%s", r)
	}
	return m[1]
}

// noSecrets looks for what must not be shown.
func (r *running) noSecrets(t *testing.T) {
	t.Helper()
	for _, s := range []string{"sandbox_", "sandbox-secret", "PRIVATE KEY"} {
		if strings.Contains(r.String(), s) {
			t.Errorf("dev wrote %q", s)
		}
	}
}

func gone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want it gone", dir, err)
	}
}

func TestPlainLinesShowTheMainJobAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, false)
	r.await(t, "DEV ONLY")
	r.await(t, "\nready\n")
	dir := r.folder(t)
	if _, err := os.Stat(filepath.Join(dir, "env")); err != nil {
		t.Error(err)
	}
	r.await(t, `example/reports +1 exchange served ([2-9]|[1-9]\d+) waiters \(generation \d+, \d+s\)\n`)
	r.await(t, `the API says 200\n`)
	r.await(t, "refreshed ahead of expiry")
	for _, name := range []string{"example/reports", "example/billing", "example/drive", "example/crm"} {
		if !regexp.MustCompile(name + ` +is READY\n`).MatchString(r.String()) {
			t.Errorf("%s did not become READY", name)
		}
	}
	r.noSecrets(t)
	if strings.Contains(r.String(), "the API says 401") || strings.Contains(r.String(), "\x1b") {
		t.Errorf("got a token that is not good, or a terminal's codes:\n%s", r)
	}
	if err := r.stop(); err != nil {
		t.Errorf("dev ended with: %v", err)
	}
	gone(t, dir)
}

func TestAFolderThatWasGivenStaysAndIsStartedFromAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/its"
	var ca []byte
	for range 2 {
		r := start(t, dev.Config{Dir: dir}, false)
		r.await(t, "\nready\n")
		env, err := os.ReadFile(dir + "/env")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`export TOKENBROKER_ADDR='(.*)'\n`).FindSubmatch(env)
		if m == nil {
			t.Fatalf("env: %s", env)
		}
		if got := list(t, string(m[1]), dir, "operator"); got != 4 {
			t.Errorf("got %d credentials, want 4", got)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		before := ca
		if ca, err = os.ReadFile(dir + "/ca.pem"); err != nil || before != nil && !bytes.Equal(before, ca) {
			t.Errorf("the CA is another one, or gone: %v", err)
		}
	}
}

// list asks a broker how many credentials there are.
func list(t *testing.T, addr, dir, identity string) int {
	t.Helper()
	c, err := client.New(client.Config{Addr: addr, Files: mtls.Files{CA: dir + "/ca.pem", Cert: dir + "/" + identity + ".pem", Key: dir + "/" + identity + ".key"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := tokenbrokerv1.NewCredentialServiceClient(c.Conn()).ListCredentials(t.Context(), &tokenbrokerv1.ListCredentialsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return len(all.GetCredentials())
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"0.0.0.0:0": "loopback", ":8443": "loopback", "192.0.2.1:1": "loopback", "example.org:1": "loopback",
		"nonsense": "host:port"} {
		if err := dev.Run(t.Context(), dev.Config{Listen: addr, Out: io.Discard}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", addr, err, want)
		}
	}
	for _, addr := range []string{"localhost:0", "127.0.0.1:0"} {
		r := start(t, dev.Config{Listen: addr}, false)
		r.await(t, "gRPC on 127.0.0.1:")
		if err := r.stop(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestAnOutputThatFailsEndsDev(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left")
	n := 0
	err := dev.Run(t.Context(), dev.Config{Out: writerFunc(func(p []byte) (int, error) {
		if n++; n > 1 {
			return 0, full
		}
		return len(p), nil
	})})
	if !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
