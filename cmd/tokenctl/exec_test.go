package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// TestTheCommandDoesNotOutliveTokenctl kills tokenctl in a way that it can't do anything about, and looks for the token in all processes before.
func TestTheCommandDoesNotOutliveTokenctl(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	pidFile := filepath.Join(w.dir, "pid")
	cmd := exec.Command("tokenctl", "exec", "--file", "F=example/api", "--", "sh", "-c", `cp "$F" token; echo $$ >pid.new; mv pid.new pid; exec sleep 1000`)
	cmd.Dir = w.dir
	cmd.Env = append(w.environ(), "XDG_RUNTIME_DIR="+w.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(awaitFile(t, pidFile))
	processes(t, readIfThere(filepath.Join(w.dir, "token")), pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		stat := readIfThere("/proc/" + pid + "/stat")
		if stat == "" || strings.Contains(stat, ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the command goes on: %s", stat)
		}
	}
}

func TestExecTellsThatATokenHasEnded(t *testing.T) {
	w := &world{t: t, dir: t.TempDir(), Broker: brokertest.Start(t, brokertest.Config{TCP: true, Issuers: []sandbox.Issuer{
		{Name: "fast", Clients: []sandbox.Client{{ID: "job", Secrets: []string{brokertest.Secret}}}, AccessLife: 10 * time.Second}}})}
	w.certificate("operator", brokertest.OperatorID)
	for name, value := range w.env() {
		t.Setenv(name, value)
	}
	t.Setenv("XDG_RUNTIME_DIR", w.dir)
	w.AddClientCredentials("example/a", "files.read")
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, ended := &page{more: make(chan struct{}, 1)}, make(chan int, 1)
	go func() {
		c := &cli{in: in, out: out, errs: out}
		ended <- c.run(context.Background(), []string{"exec", "--file", "F=example/a", "--", "sh", "-c", "echo began; read x; exit 7"})
	}()
	out.await(t, "began", 1)
	w.Sandbox.Fail("fast", sandbox.Fault{Times: sandbox.Forever, Refuse: true})
	out.await(t, "tokenctl: credential example/a: its token ended at 2", 1)
	_ = keys.Close()
	if got := <-ended; got != 7 {
		t.Errorf("got exit status %d, want that of the command:\n%s", got, out.shown())
	}
}

// TestExecRunsInThisProcess is for the race detector and the search for goroutines.
func TestExecRunsInThisProcess(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for name, value := range w.env() {
		t.Setenv(name, value)
	}
	t.Setenv("XDG_RUNTIME_DIR", w.dir)
	w.AddRefreshToken("example/a", "rotating", "files.read")
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, ended := &page{more: make(chan struct{}, 1)}, make(chan int, 1)
	go func() {
		c := &cli{in: in, out: out, errs: out}
		ended <- c.run(context.Background(), []string{"exec", "--file", "F=example/a", "--on-renewal", "restart", "--", "sh", "-c", "echo began; read x; exit 7"})
	}()
	out.await(t, "began", 1)
	for range 2 {
		w.tokenctl(t, "credential", "refresh", "example/a")
	}
	out.await(t, "began", 2)
	_ = keys.Close() // the command reads the end of its input
	if got := <-ended; got != 7 {
		t.Errorf("got exit status %d, want that of the command:\n%s", got, out.shown())
	}
	if left, _ := filepath.Glob(w.dir + "/tokenctl-*"); len(left) > 0 {
		t.Errorf("got %v, want nothing left", left)
	}
}
