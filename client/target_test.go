package client_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
)

func TestAnAddressIsReadInEachOfItsForms(t *testing.T) {
	for addr, want := range map[string]struct {
		name, hosts string
		several     bool
		local       bool
	}{
		"broker:8443":                   {name: "broker:8443", hosts: "broker"},
		"[::1]:8443":                    {name: "[::1]:8443", hosts: "::1"},
		"a:8443,b:9443":                 {name: "tokenbroker:///a:8443,b:9443", hosts: "a b", several: true},
		"a:8443, [::1]:9443":            {name: "tokenbroker:///a:8443,[::1]:9443", hosts: "a ::1", several: true},
		"dns:///broker.example:8443":    {name: "dns:///broker.example:8443", hosts: "broker.example"},
		"unix:///run/agent.sock":        {name: "unix:///run/agent.sock", local: true},
		"unix:/run/agent.sock":          {name: "unix:///run/agent.sock", local: true},
		"passthrough:///127.0.0.1:8443": {name: "passthrough:///127.0.0.1:8443", hosts: "127.0.0.1"},
	} {
		name, list, hosts, local, err := client.Target(addr)
		if err != nil || name != want.name || strings.Join(hosts, " ") != want.hosts || len(list) > 1 != want.several || local != want.local {
			t.Errorf("%s: got %q, list %q, hosts %q, local %t, %v, want %+v", addr, name, list, hosts, local, err, want)
		}
	}
	for _, addr := range []string{"unix://agent.sock", "/run/agent.sock", "unix:", "unix:///a,b:1", "a:1,,b:1", "a:1,", "a b:1", "a:1,unix:///b", "a:1,dns:///b:1"} {
		if _, _, _, _, err := client.Target(addr); err == nil {
			t.Errorf("%s: want an error", addr)
		}
		if _, err := client.New(client.Config{Addr: addr}); err == nil || !errors.Is(err, client.ErrAddress) && !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: got %v, want an error that says what an address is", addr, err)
		}
	}
}

// TestEachOfSeveralAddressesHasToShowItsOwnName has two names of one broker, of which its certificate holds one.
func TestEachOfSeveralAddressesHasToShowItsOwnName(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Settings: func(*daemon.Config) {}})
	b.AddClientCredentials("example/api", "files.read")
	_, port, err := net.SplitHostPort(b.Daemon.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for addr, good := range map[string]bool{"127.0.0.1:" + port + ",localhost:" + port: true, "127.0.0.2:" + port + ",127.0.0.3:" + port: false} {
		c, err := client.New(client.Config{Addr: addr, Files: b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token(t.Context(), "example/api"); (err == nil) != good {
			t.Errorf("%s: got %v, want a token %t", addr, err, good)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheEnvironmentHasToBeWhole(t *testing.T) {
	names := []string{"ADDR", "CA", "CERT", "KEY", "SERVER_NAME", "WORKLOAD_API"}
	for name, tc := range map[string]struct {
		set  map[string]string
		want []string // in the error; nil = none
	}{
		"nothing":                   {nil, []string{"TOKENBROKER_ADDR, TOKENBROKER_CA, TOKENBROKER_CERT, TOKENBROKER_KEY:", "host:port", "unix:///path", "TOKENBROKER_WORKLOAD_API"}},
		"a certificate, no key":     {map[string]string{"ADDR": "b:1", "CA": "ca", "CERT": "c"}, []string{"set TOKENBROKER_KEY:", "its key"}},
		"a key, no certificate":     {map[string]string{"ADDR": "b:1", "CA": "ca", "KEY": "k"}, []string{"set TOKENBROKER_CERT:"}},
		"no address":                {map[string]string{"CA": "ca", "CERT": "c", "KEY": "k"}, []string{"set TOKENBROKER_ADDR:", "host:port"}},
		"a workload API, no broker": {map[string]string{"WORKLOAD_API": "unix:///x"}, []string{"set TOKENBROKER_ADDR:"}},
		"a socket":                  {map[string]string{"ADDR": "unix:///run/agent.sock"}, nil},
		"a socket and a lone key":   {map[string]string{"ADDR": "unix:///run/agent.sock", "KEY": "/none"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
			for _, n := range names {
				t.Setenv("TOKENBROKER_"+n, tc.set[n])
			}
			c, err := client.NewFromEnv()
			if err == nil {
				_ = c.Close()
			}
			if (err == nil) != (tc.want == nil) || slices.ContainsFunc(tc.want, func(s string) bool { return !strings.Contains(err.Error(), s) }) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
