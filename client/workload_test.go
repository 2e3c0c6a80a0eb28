package client_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// TestBothEndsOfTheWorkloadAPI has neither end a file of a certificate.
func TestBothEndsOfTheWorkloadAPI(t *testing.T) {
	ca, err := mtls.NewCA("spire", time.Hour, brokertest.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	broker := brokertest.WorkloadAPI(t, ca, mtls.Template{SPIFFEID: brokertest.ServerID, Server: true, Client: true})
	b := brokertest.Start(t, brokertest.Config{TCP: true, Settings: func(c *daemon.Config) {
		c.TLS, c.Workload = mtls.Files{}, daemon.Workload{Socket: broker}
	}})
	operator, err := client.New(client.Config{Addr: b.Daemon.Addr().String(), Server: brokertest.ServerID,
		Workload: brokertest.WorkloadAPI(t, ca, mtls.Template{SPIFFEID: brokertest.OperatorID, Client: true})})
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	if _, err := operator.Token(t.Context(), "example/none"); err == nil || !strings.Contains(err.Error(), "example/none") && !strings.Contains(err.Error(), "not found") {
		t.Errorf("got %v, want an answer of the broker", err)
	}
	for name, value := range map[string]string{"ADDR": b.Daemon.Addr().String(), "CA": "", "CERT": "", "KEY": "", "WORKLOAD_API": "", "SERVER_NAME": brokertest.ServerID} {
		t.Setenv("TOKENBROKER_"+name, value)
	}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", brokertest.WorkloadAPI(t, ca, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}))
	worker, err := client.NewFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if _, err := worker.Token(t.Context(), "example/none"); err == nil || !strings.Contains(err.Error(), "example/none") && !strings.Contains(err.Error(), "not found") {
		t.Errorf("by the environment: got %v, want an answer of the broker", err)
	}
	stranger, err := client.New(client.Config{Addr: b.Daemon.Addr().String(), Server: "spiffe://" + brokertest.TrustDomain + "/another",
		Workload: brokertest.WorkloadAPI(t, ca, mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Token(t.Context(), "example/none"); err == nil || strings.Contains(err.Error(), "not found") {
		t.Errorf("expecting another broker: got %v, want no connection", err)
	}
}
