package client_test

import (
	"os/exec"
	"strings"
	"testing"
)

func TestAWorkerLinksNeitherTheStoreNorTheServer(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/tokenbroker/tokenbroker/"
	seen := false
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		own, ours := strings.CutPrefix(path, module)
		switch {
		case strings.HasPrefix(path, "go.etcd.io/"), strings.HasPrefix(path, "github.com/prometheus/"):
			t.Errorf("the client depends on %s", path)
		case ours && own != "client" && own != "mtls" && own != "proto/tokenbroker/v1":
			t.Errorf("the client depends on %s, want the protocol and mtls alone", own)
		case own == "mtls":
			seen = true
		}
	}
	if !seen {
		t.Errorf("got no list of what the client depends on")
	}
}
