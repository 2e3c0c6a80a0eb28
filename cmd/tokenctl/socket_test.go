package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/client"
)

func TestASocketOfThisHostWantsNoCertificate(t *testing.T) {
	for _, name := range []string{"CA", "CERT", "KEY", "SERVER_NAME", "WORKLOAD_API"} {
		t.Setenv("TOKENBROKER_"+name, "")
	}
	t.Setenv("TOKENBROKER_ADDR", "unix:///run/agent.sock")
	c := &cli{}
	got, err := c.config()
	if err != nil || got.Addr != "unix:///run/agent.sock" {
		t.Errorf("got %q and %v, want the socket", got.Addr, err)
	}
	c.addr = "127.0.0.1:8443"
	if _, err = c.config(); err == nil {
		t.Error("got no error for an address without certificates: the flag wins")
	}
	t.Setenv("TOKENBROKER_ADDR", "127.0.0.1:8443")
	t.Setenv("TOKENBROKER_CERT", "nowhere.pem")
	c.addr = "unix:///run/other.sock"
	got, err = c.config()
	if err != nil || got.Addr != c.addr || got.Server != "" || got.Files.Cert != "" {
		t.Errorf("got %+v and %v, want the socket, with no certificate", got, err)
	}
}

func TestASocketThatDoesNotAnswerIsExplained(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.sock")
	look := func() *failure { return diagnose(t.Context(), client.Config{Addr: "unix://" + path}, time.Minute) }
	if f := look(); f == nil || f.exit != exitLater || f.what != "there is no socket "+path {
		t.Errorf("got %+v, want that there is none", f)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if f := look(); f != nil {
		t.Errorf("got %+v, want nothing: somebody listens", f)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if f := look(); f == nil || f.exit != exitLater {
		t.Errorf("got %+v, want that nobody listens", f)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
