package mtls_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// Both ends of a connection from files, made by a CA for development. Source.Watch would keep them current.
func Example() {
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "mtls")
	check(err)
	defer os.RemoveAll(dir)
	ca, err := mtls.NewCA("development", time.Hour, "example.org")
	check(err)
	open := func(name string, t mtls.Template) *mtls.Source {
		cert, key, err := ca.Issue(t)
		check(err)
		files := mtls.Files{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key"), CA: filepath.Join(dir, name+".ca")}
		check(mtls.WriteNew(files.Cert, cert, 0o644))
		check(mtls.WriteNew(files.Key, key, 0o600))
		check(mtls.WriteNew(files.CA, ca.CertPEM(), 0o644))
		s, err := mtls.Open(files)
		check(err)
		return s
	}
	broker := open("broker", mtls.Template{SPIFFEID: "spiffe://example.org/broker", Server: true})
	job := open("job", mtls.Template{SPIFFEID: "spiffe://example.org/job/reports", Client: true})

	clientConfig, err := job.ClientTLS("spiffe://example.org/broker")
	check(err)
	gate := broker.Gate(mtls.ServerOptions{})
	a, b := net.Pipe()
	server, client := tls.Server(a, gate.TLS()), tls.Client(b, clientConfig)
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	check(server.Handshake())
	check(<-done)
	peer, err := gate.Peer(server.ConnectionState())
	check(err)
	fmt.Println(peer.Identity)
	// Output: spiffe://example.org/job/reports
}
